"""What a process has around it, for comparing before and after a test; cheap, as each test pays for it."""

from __future__ import annotations

from pytest_isolate.syscalls._native import ffi, lib

__all__ = ["count_ipc", "open_descriptors", "print_of_processes", "umask"]

# Made before the forks, and reused: memory that a child makes anew costs it more than all the rest.
_look = ffi.new("struct look *")
_open = ffi.buffer(_look.open)


def open_descriptors() -> bytes:
    """A byte for each of the first 1024: 1 if it is open."""
    lib.isolate_look_at_descriptors(_look)
    return bytes(_open)


def count_ipc() -> int:
    """System V objects, and POSIX message queues, of the caller's ipc namespace."""
    lib.isolate_look_at_ipc(_look)
    return int(_look.system_v) + int(_look.queues)


def print_of_processes() -> int:
    """A number that other processes in /proc would have made another."""
    lib.isolate_look_at_processes(_look)
    return int(_look.processes)


def umask() -> int:
    return int(lib.isolate_umask())

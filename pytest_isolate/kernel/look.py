"""What a process has around it, for comparing before and after a test; cheap, as each test pays for it."""

from __future__ import annotations

from pytest_isolate.syscalls._native import ffi, lib

__all__ = ["count_ipc", "has_company", "open_descriptors", "signal_actions", "umask"]

# Made before the forks, and reused: memory that a child makes anew costs it more than all the rest.
_look = ffi.new("struct look *")
_open = ffi.buffer(_look.open)
_signals = ffi.buffer(_look.signals)


def open_descriptors() -> bytes:
    """A byte for each of the first 1024: 1 if it is open."""
    lib.isolate_look_at_descriptors(_look)
    return bytes(_open)


def count_ipc() -> int:
    """System V objects, and POSIX message queues, of the caller's ipc namespace."""
    lib.isolate_look_at_ipc(_look)
    return int(_look.system_v) + int(_look.queues)


def signal_actions() -> bytes:
    """A byte for each signal from 1 to 64: 0 for SIG_DFL, 1 for SIG_IGN, 2 for a function."""
    lib.isolate_look_at_signals(_look)
    return bytes(_signals)


def has_company() -> bool:
    """Whether the pid namespace has a process, if only a zombie, beside this one and its init."""
    return bool(lib.isolate_has_company())


def umask() -> int:
    return int(lib.isolate_umask())

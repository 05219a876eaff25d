"""What a process has around it, for comparing before and after a test; cheap, as each test pays for it."""

from __future__ import annotations

import struct
from typing import NamedTuple

from pytest_isolate.syscalls._native import ffi, lib

__all__ = ["SIGNALS_AT", "State", "count_ipc", "has_company", "open_descriptors", "process_state"]

# Made before the forks, and reused: memory that a child makes anew costs it more than all the rest.
_look = ffi.new("struct look *")
_open = ffi.buffer(_look.open)
_state = ffi.buffer(ffi.addressof(_look, "state"))
_STATE = struct.Struct(f"=Qi{lib.LOOK_SIGNALS}s")
SIGNALS_AT = _STATE.size - lib.LOOK_SIGNALS


class State(NamedTuple):
    """What a process can change of itself, and its children inherit."""

    locale: int  #: a hash of its name
    umask: int
    signals: bytes  #: a byte for each from 1 to 64: 0 for SIG_DFL, 1 for SIG_IGN, 2 for a function

    @classmethod
    def of(cls, state: bytes) -> State:
        return cls(*_STATE.unpack_from(state))


def open_descriptors() -> bytes:
    """A byte for each of the first 1024: 1 if it is open."""
    lib.isolate_look_at_descriptors(_look)
    return bytes(_open)


def count_ipc() -> int:
    """System V objects, and POSIX message queues, of the caller's ipc namespace."""
    lib.isolate_look_at_ipc(_look)
    return int(_look.system_v) + int(_look.queues)


def process_state() -> bytes:
    """To compare with another, or to read with :meth:`State.of`."""
    lib.isolate_look_at_state(_look)
    return bytes(_state)


def has_company() -> bool:
    """Whether the pid namespace has a process, if only a zombie, beside this one and its init."""
    return bool(lib.isolate_has_company())

"""What a process has around it, for comparing before and after a test; cheap, as each test pays for it."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from pytest_isolate.syscalls._native import ffi, lib

__all__ = [
    "SIGNALS_AT",
    "State",
    "Use",
    "count_ipc",
    "descriptor_uses",
    "descriptor_uses_again",
    "has_company",
    "open_descriptors",
    "own_descriptors",
    "process_state",
]

# Made before the forks, and reused: memory that a child makes anew costs it more than all the rest.
_look = ffi.new("struct look *")
_open = ffi.buffer(_look.open)
_uses = ffi.buffer(_look.uses)
_state = ffi.buffer(ffi.addressof(_look, "state"))
_STATE = struct.Struct(f"=Qi{lib.LOOK_SIGNALS}s")
SIGNALS_AT = _STATE.size - lib.LOOK_SIGNALS


class State(NamedTuple):
    """What a process can change of itself, and what it starts inherits."""

    locale: int  #: a hash of its name
    umask: int
    signals: bytes  #: a byte for each from 1 to 64: 0 for SIG_DFL, 1 for SIG_IGN, 2 for a function

    @classmethod
    def of(cls, state: bytes) -> State:
        return cls(*_STATE.unpack_from(state))


_USE = struct.Struct("=iiQQQ")


class Use(NamedTuple):
    """Of a descriptor: of a file that has a name, of a TCP socket, or of those that are the caller's own."""

    fd: int
    is_own: int
    device: int
    inode: int
    use: int  #: changes with the position in the file, and with what goes over the connection

    @property
    def file(self) -> tuple[int, int]:
        """Several descriptors may lead to it."""
        return self.device, self.inode

    @classmethod
    def all_of(cls, uses: bytes) -> list[Use]:
        return [cls(*each) for each in _USE.iter_unpack(uses)]


def own_descriptors(descriptors: Iterable[int]) -> None:
    """What :func:`descriptor_uses` is to call so, of as many as there is room for."""
    chosen = sorted(descriptors)[: lib.LOOK_OWN]
    _look.own = [*chosen, *[-1] * (lib.LOOK_OWN - len(chosen))]


def descriptor_uses() -> bytes:
    """To compare with another, or to read with :meth:`Use.all_of`."""
    lib.isolate_look_at_uses(_look)
    return bytes(_uses[: _look.uses_count * _USE.size])


def descriptor_uses_again() -> bytes:
    """Of those that :func:`descriptor_uses` gave last, in their order; where one is closed now, or leads to
    another file, it is as it was."""
    lib.isolate_look_again_at_uses(_look)
    return bytes(_uses[: _look.uses_count * _USE.size])


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

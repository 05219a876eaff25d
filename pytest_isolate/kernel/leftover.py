"""Processes that somebody left behind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Left", "command_of", "look_at"]

LONGEST_COMMAND = 4096


@dataclass(frozen=True, slots=True)
class Left:
    pid: int  #: as it is in its own pid namespace
    command: str


def command_of(pid: int | str) -> str | None:
    """In one line. None if it has ended: a zombie has no command line."""
    text = _read(f"/proc/{pid}/cmdline").decode(errors="backslashreplace")
    return " ".join(text.replace("\0", " ").split()) or None


def look_at(pids: Iterable[int]) -> tuple[Left, ...]:
    """Those that live."""
    return tuple(Left(_inner_pid(pid), command) for pid in pids if (command := command_of(pid)) is not None)


def _inner_pid(pid: int) -> int:
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"NSpid:"):  # since Linux 4.1
            return int(line.split()[-1])
    return pid


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(LONGEST_COMMAND)
    except OSError:  # it has ended
        return b""

"""Processes that somebody left behind."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Left", "command_of", "look_at"]

LONGEST_COMMAND = 4096
#: The caller of fork and exec goes on when the new program has no command line yet: in a moment it has.
EXEC_TRIES = 10
EXEC_S = 0.001


@dataclass(frozen=True, slots=True)
class Left:
    pid: int  #: as it is in its own pid namespace
    command: str


def command_of(pid: int | str) -> str | None:
    """In one line. None if it has ended."""
    for _ in range(EXEC_TRIES):
        text = _read(f"/proc/{pid}/cmdline").decode(errors="backslashreplace")
        if words := text.replace("\0", " ").split():
            return " ".join(words)
        # Zombies have none, nor has who is amidst an execve.
        name, _, state = _read(f"/proc/{pid}/stat").decode(errors="backslashreplace").rpartition(") ")
        if state[:1] in ("", "Z", "X"):
            return None
        time.sleep(EXEC_S)
    return name.partition("(")[2]


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

"""Processes that somebody left behind. There may be thousands, made to keep who looks at them busy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

__all__ = [
    "BUSY_GRACE_S",
    "GRACE_S",
    "MOST_COMMANDS",
    "Left",
    "are_ending",
    "await_end",
    "commands_of",
    "living",
    "look_at",
    "own_command",
]

#: How long those that a test has left may take to end by themselves,
GRACE_S = 0.1
#: and how long if they need a processor for it, which others may have. Who serves or waits needs none.
BUSY_GRACE_S = 2.0

LONGEST_COMMAND = 4096
#: Of these the command is looked up; what is known of more is the name of their program.
MOST_COMMANDS = 80
#: The caller of fork and exec goes on when the new program has no command line yet: in a moment it has.
EXEC_S = 0.002
#: States: of those that are about to end, and of those that run or wait for a disk, and may be about to.
EXITS = "exits"
BUSY = ("R", "D", EXITS)
PF_EXITING = 0x4  # linux/sched.h, in the field "flags" of proc_pid_stat(5)
FLAGS = 6  # the field's place behind the name


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Left:
    pid: int  #: as it is in its own pid namespace
    command: str


def living(pids: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Those that have neither ended, as zombies have, nor are about to, with the names of their programs."""
    for pid, name, state in _seen(pids):
        if state != EXITS:
            yield pid, name


def are_ending(pids: Iterable[int], waited_s: float) -> bool:
    """Whether some are there that may end by themselves yet, ``waited_s`` after they were seen first."""
    if waited_s < GRACE_S:
        return next(_seen(pids), None) is not None
    return waited_s < BUSY_GRACE_S and any(state in BUSY for _, _, state in _seen(pids))


def await_end(look: Callable[[], T], pids: Callable[[T], Iterable[int]]) -> T:
    """What ``look`` finds once it finds nothing, or all had their time to end. ``pids``: those of what it has
    found, of processes or of threads, which proc_pid(5) knows without listing them."""
    started_s, is_last = time.monotonic(), False
    while (found := look()) and not is_last:
        waited_s = time.monotonic() - started_s
        is_last = waited_s > GRACE_S and not are_ending(pids(found), waited_s)  # or they have ended just now
        time.sleep(0.001)
    return found


def _seen(pids: Iterable[int]) -> Iterator[tuple[int, str, str]]:
    """Pid, name of the program and state, by proc_pid_stat(5), of those that have not ended."""
    for pid in pids:
        name, _, rest = _read(f"/proc/{pid}/stat").decode(errors="backslashreplace").rpartition(") ")
        fields = rest.split()
        if len(fields) > FLAGS and fields[0] not in "ZX":
            yield pid, name.partition("(")[2], EXITS if int(fields[FLAGS]) & PF_EXITING else fields[0]


def commands_of(pids: Iterable[int]) -> dict[int, str]:
    """In one line, of those that live. Whoever has none, the program's name has to do for."""
    found = dict(living(pids))
    nameless = [*_look_up(found, [*islice(found, MOST_COMMANDS)])]
    if nameless:
        time.sleep(EXEC_S)  # once for all of them: a process may have done away with its command line
        nameless = [*_look_up(found, nameless)]
        alive = dict(living(nameless))
        for pid in nameless:
            if pid not in alive:
                del found[pid]
    return found


def own_command() -> str:
    """As :func:`commands_of` tells it of a fork of the caller."""
    pid = os.getpid()
    return commands_of([pid]).get(pid, "")


def look_at(pids: Iterable[int]) -> tuple[Left, ...]:
    """Those that live."""
    return tuple(Left(_inner_pid(pid), command) for pid, command in commands_of(pids).items())


def _look_up(found: dict[int, str], pids: Iterable[int]) -> Iterator[int]:
    """Those that have no command line."""
    for pid in pids:
        text = _read(f"/proc/{pid}/cmdline").decode(errors="backslashreplace")
        if words := text.replace("\0", " ").split():
            found[pid] = " ".join(words)
        else:
            yield pid


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

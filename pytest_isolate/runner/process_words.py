"""What is said of processes that a test has left, whoever has seen them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from pytest_isolate.kernel.leftover import MOST_COMMANDS
from pytest_isolate.runner import cures
from pytest_isolate.violation import Kind, Violation

__all__ = ["describe", "is_harmless"]

CURE = cures.allow(Kind.PROCESSES)
#: multiprocessing's own helpers, which end when their parent does.
HARMLESS = (
    "multiprocessing.resource_tracker",
    "multiprocessing.semaphore_tracker",
    "multiprocessing.forkserver",
)


def is_harmless(command: str) -> bool:
    return any(part in command for part in HARMLESS)


def describe(left: Iterable[tuple[str, str]], count: int) -> Iterator[Violation]:
    """``left``: (command as it is shown, where) of each, of which the first are told."""
    for command, where in islice(left, MOST_COMMANDS):
        yield Violation(kind=Kind.PROCESSES, what=f"left a process: {command}", where=where, cure=CURE)
    if (more := count - MOST_COMMANDS) > 0:
        yield Violation(kind=Kind.PROCESSES, what="left more processes", cure=CURE, count=more)

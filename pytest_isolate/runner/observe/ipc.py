"""System V and POSIX message queues, shared memory and semaphores that a test leaves in its ipc namespace.

POSIX shared memory and semaphores are files, which pytest finds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from pytest_isolate.kernel.look import count_ipc
from pytest_isolate.runner import cures
from pytest_isolate.violation import Kind, Violation

__all__ = ["Ipc"]

SYSTEM_V = {
    "/proc/sysvipc/shm": "a System V shared memory segment",
    "/proc/sysvipc/sem": "a System V semaphore set",
    "/proc/sysvipc/msg": "a System V message queue",
}
QUEUES = "/dev/mqueue"


class Ipc:
    """Of a namespace that is new: what another test of the sandbox left is told once."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()

    def begin(self) -> None:
        """Nothing comes between two tests."""

    def aside(self) -> Callable[[], None]:
        before = _present()
        return lambda: self._known.update(_present() - before)

    def found(self) -> Iterator[Violation]:
        if count_ipc() <= len(self._known):
            return
        new = _present() - self._known
        self._known |= new
        for what, _ in sorted(new):
            yield Violation(kind=Kind.IPC, what=f"left {what}", cure=cures.allow(Kind.IPC))


def _present() -> set[tuple[str, str]]:
    """What, and which."""
    return {*_listed()} if count_ipc() else set()  # so that nearly no test pays for the list


def _listed() -> Iterator[tuple[str, str]]:
    for path, what in SYSTEM_V.items():
        for line in _read(path).splitlines()[1:]:
            yield what, line.split()[1]
    try:
        names = os.listdir(QUEUES)
    except OSError:  # a root without
        return
    yield from ((f"a POSIX message queue /{name}", name) for name in names)


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # a kernel without
        return ""
    try:
        return os.read(fd, 2**16).decode()
    finally:
        os.close(fd)

"""Processes that are alive when their test has ended, as /proc of the sandbox shows them."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from pytest_isolate.kernel.leftover import command_of
from pytest_isolate.kernel.look import has_company
from pytest_isolate.runner.observe import audit, paths
from pytest_isolate.violation import Kind, Violation

__all__ = ["HARMLESS", "Processes"]

#: As long as pytest waits for those of a sandbox.
GRACE_S = 0.1
INIT = "1"
#: multiprocessing's own helpers, which end when their parent does.
HARMLESS = (
    "multiprocessing.resource_tracker",
    "multiprocessing.semaphore_tracker",
    "multiprocessing.forkserver",
)


class Processes:
    """Of a pid namespace of its own."""

    def __init__(self) -> None:
        self._before: set[str] = set()
        self._places: dict[str, str] = {}  # by the last argument of a command
        self.told: list[int] = []  #: pids, for pytest, which sees them too
        audit.listen("subprocess.Popen", self._started)
        audit.listen("os.posix_spawn", self._started)

    def begin(self) -> None:
        if self._places or self.told:
            self._places.clear()
            self.told.clear()
        self._before = _present()

    def aside(self) -> Callable[[], None]:
        before = _present()
        return lambda: self._before.update(_present() - before)

    def found(self) -> Iterator[Violation]:
        if not self._left():
            return
        gc.collect()  # as pools of multiprocessing end when nobody has them
        deadline = time.monotonic() + GRACE_S
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.001)
        for pid, command in sorted(left.items()):
            self.told.append(pid)
            place = self._places.get(command, "")
            yield Violation(
                kind=Kind.PROCESSES,
                what=f"left a process: {paths.shown_command(command, audit.rootdir())}",
                where=f"{place}, pid {pid}" if place else f"pid {pid}",
                cure='allow=["processes"]',
            )

    def _left(self) -> dict[int, str]:
        found = {}
        for name in _present() - self._before:
            command = command_of(name)
            if command is not None and not any(part in command for part in HARMLESS):
                found[int(name)] = command
        return found

    def _started(self, args: tuple[Any, ...]) -> None:
        command = args[1]
        words = [command] if isinstance(command, (str, bytes, os.PathLike)) else command
        try:
            text = " ".join(os.fsdecode(word) for word in words)
        except TypeError:  # which the call itself will say
            return
        if place := audit.place():
            self._places[text] = self._places[f"/bin/sh -c {text}"] = place


def _present() -> set[str]:
    """But for the test's own and the namespace's init."""
    if not has_company():  # so that nearly no test pays for the list
        return set()
    return {name for name in os.listdir("/proc") if name.isdecimal()} - {INIT, str(os.getpid())}

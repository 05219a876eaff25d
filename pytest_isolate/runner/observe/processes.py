"""Processes that are alive when their test has ended, as /proc of the sandbox shows them."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

from pytest_isolate.kernel.leftover import await_end, commands_of
from pytest_isolate.kernel.look import has_company
from pytest_isolate.runner import process_words
from pytest_isolate.runner.observe import audit, paths
from pytest_isolate.violation import Violation

__all__ = ["Processes"]

INIT = 1


class Processes:
    """Of a pid namespace of its own."""

    def __init__(self) -> None:
        self._earlier: set[int] = set()
        self._before: set[int] = set()
        self._harmless: set[int] = set()
        self._places: dict[str, str] = {}  # by the last argument of a command
        self._told: list[int] = []
        audit.listen("subprocess.Popen", self._started)
        audit.listen("os.posix_spawn", self._started)

    def enter(self) -> None:
        """What is alive now no test has started, but plugins and conftest files of a fresh interpreter."""
        self._earlier = _present()

    def settled(self) -> list[int]:
        """Pids that pytest, which sees what is alive at the end too, has nothing to say of."""
        return [*self._told, *self._earlier]

    def begin(self) -> None:
        if self._places or self._told or self._harmless:
            self._places.clear()
            self._harmless.clear()
            self._told.clear()
        self._before = _present()

    def aside(self) -> Callable[[], None]:
        before = _present()
        return lambda: self._before.update(_present() - before)

    def found(self) -> Iterator[Violation]:
        if not self._left():
            return
        gc.collect()  # as pools of multiprocessing end when nobody has them
        commands = await_end(self._left, iter)
        self._told += commands
        shown = (
            (paths.shown_command(command, audit.rootdir()), self._where(pid, command))
            for pid, command in commands.items()
        )
        yield from process_words.describe(shown, len(commands))

    def _where(self, pid: int, command: str) -> str:
        place = self._places.get(command, "")
        return f"{place}, pid {pid}" if place else f"pid {pid}"

    def _left(self) -> dict[int, str]:
        """Their commands, looked up anew each time: a process in exec, or before it, has not its own yet."""
        commands = commands_of(sorted(_present() - self._before - self._harmless))
        self._harmless |= {pid for pid, command in commands.items() if process_words.is_harmless(command)}
        return {pid: command for pid, command in commands.items() if pid not in self._harmless}

    def _started(self, args: tuple[Any, ...]) -> None:
        command = args[1]
        words = [command] if isinstance(command, (str, bytes, os.PathLike)) else command
        try:
            text = " ".join(os.fsdecode(word) for word in words)
        except TypeError:  # which the call itself will say
            return
        if place := audit.place():
            self._places[text] = self._places[f"/bin/sh -c {text}"] = place


def _present() -> set[int]:
    """But for the test's own and the namespace's init."""
    if not has_company():  # so that nearly no test pays for the list
        return set()
    return {int(name) for name in os.listdir("/proc") if name.isdecimal()} - {INIT, os.getpid()}

"""What a test leaves changed in its process: variables, directory, umask, locale, signal handlers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pytest_isolate.kernel.look import SIGNALS_AT, State, process_state
from pytest_isolate.runner import cures
from pytest_isolate.runner.observe import audit
from pytest_isolate.violation import Kind, Violation

__all__ = ["Environment"]

#: Variables that pytest and its plugins set themselves.
OF_PLUGINS = ("PYTEST_", "COV_", "COVERAGE_")
UMASK = "the umask"
LOCALE = "the locale"
SIGNALS = "signals"
FUNCTION = b"\2"
MOST = 1000
#: Without the enumerations, which cost more.
_handler_of: Callable[[int], Any] = getattr(signal, "_signal", signal).getsignal
CURE = cures.allow(Kind.ENVIRONMENT)

Known = dict[str, object]
"""By the words for it."""


class Environment:
    """Python tells before it changes a variable or the directory: only then is noted what they were."""

    def __init__(self) -> None:
        self._state = b""
        self._handlers: dict[int, Any] = {}
        self._noted: Known = {}  # of what else there is, before it was changed
        self._accepted: list[Known] = []  # what fixtures of a wider scope make of it, and restore
        self._places: dict[str, str] = {}
        for event in ("os.putenv", "os.unsetenv"):
            audit.listen(event, self._variable)
        audit.listen("os.chdir", self._directory)

    def begin(self) -> None:
        if self._places:
            self._places.clear()
        if self._noted:
            self._noted = {}
        self._state = process_state()
        self._handlers = _handlers(self._state)

    def aside(self) -> Callable[[], Callable[[], None] | None]:
        # A fixture that this one takes the place of may have been torn down in this test already.
        before = self._look(process_state())

        def end() -> Callable[[], None] | None:
            after = self._look(process_state())
            known = self._known()
            earlier = {name: before.get(name, known.get(name)) for name in after}
            changed = [name for name, value in after.items() if earlier[name] != value]
            if not changed:
                return None
            made = {name: after[name] for name in changed}
            restored = {name: earlier[name] for name in changed}
            self._accepted += [made, restored]
            places = {name: self._places[name] for name in changed if name in self._places}
            return lambda: self._torn_down(made, restored, places)

        return end

    def _torn_down(self, made: Known, restored: Known, places: Mapping[str, str]) -> None:
        """A fixture: what is as it made it, it has not restored."""
        self._accepted.remove(made)
        now = self._look(process_state())
        left = [name for name, value in made.items() if (now[name] if name in now else _now(name)) == value]
        for name in left:
            self._noted.setdefault(name, restored[name])
            if name in places:
                self._places[name] = places[name]

    def _known(self) -> Known:
        """From before the test."""
        return _parts(self._state, self._handlers) | self._noted

    def _look(self, state: bytes) -> Known:
        """All of that, as it is now."""
        parts = _parts(state, _handlers(state))
        return parts | {name: _now(name) for name in self._noted if name not in parts}

    def found(self) -> Iterator[Violation]:
        state = process_state()
        if state == self._state and not self._noted and _handlers(state) == self._handlers:
            return
        after = self._look(state)
        for name, then in self._known().items():
            now = after[name]
            if now != then and not any(
                name in accepted and accepted[name] == now for accepted in self._accepted
            ):
                for what in _differences(name, then, now):
                    where = self._places.get(name, "")
                    yield Violation(kind=Kind.ENVIRONMENT, what=f"changed {what}", where=where, cure=CURE)

    def _variable(self, args: tuple[Any, ...]) -> None:
        name = os.fsdecode(args[0])
        if not name.startswith(OF_PLUGINS):
            self._note(VARIABLE + name)

    def _directory(self, args: tuple[Any, ...]) -> None:
        self._note(DIRECTORY)

    def _note(self, name: str) -> None:
        if name not in self._noted and len(self._noted) < MOST:
            self._noted[name] = _now(name)
        if place := audit.place():
            self._places[name] = place


VARIABLE = "os.environ: "
DIRECTORY = "the current directory"


def _parts(state: bytes, handlers: dict[int, Any]) -> Known:
    found = State.of(state)
    return {UMASK: found.umask, LOCALE: found.locale, SIGNALS: (found.signals, handlers)}


def _handlers(state: bytes) -> dict[int, Any]:
    """Which function of Python each signal calls that calls a function; None if it is not Python's."""
    found = {}
    at = state.find(FUNCTION, SIGNALS_AT)
    while at >= 0:
        number = at - SIGNALS_AT + 1
        found[number] = _handler_of(number)
        at = state.find(FUNCTION, at + 1)
    return found


def _now(name: str) -> object:
    """Of what Python tells."""
    if name != DIRECTORY:
        return os.environ.get(name.removeprefix(VARIABLE))
    try:
        return os.getcwd()
    except OSError:  # it is deleted
        return None


def _differences(name: str, then: Any, now: Any) -> Iterator[str]:
    if name != SIGNALS:
        yield name
        return
    for number, (old, new) in enumerate(zip(then[0], now[0], strict=True), 1):
        if old != new or then[1].get(number) != now[1].get(number):
            yield f"the handler of {_name(number)}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"

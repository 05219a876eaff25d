"""What a test leaves changed in its process: variables, directory, umask, locale, signal handlers."""

from __future__ import annotations

import locale
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from pytest_isolate.kernel.look import signal_actions, umask
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
#: Without the enumerations, which cost more than all the rest.
_handler_of: Callable[[int], Any] = getattr(signal.getsignal, "__wrapped__", signal.getsignal)
_locale_of: Callable[[int, None], str] = getattr(locale, "_setlocale", locale.setlocale)
CURE = cures.allow(Kind.ENVIRONMENT)

State = dict[str, object]


class Environment:
    """Python tells before it changes a variable or the directory: only then is noted what they were."""

    def __init__(self) -> None:
        self._before: State = {}
        self._accepted: list[State] = []  # what fixtures of a wider scope make of it, and restore
        self._places: dict[str, str] = {}
        for event in ("os.putenv", "os.unsetenv"):
            audit.listen(event, self._variable)
        audit.listen("os.chdir", self._directory)

    def begin(self) -> None:
        if self._places:
            self._places.clear()
        self._before = _state()

    def aside(self) -> Callable[[], None]:
        # A fixture that this one takes the place of may have been torn down in this test already.
        before = self._look()

        def end() -> None:
            after = self._look()
            earlier = {name: before.get(name, self._before.get(name)) for name in after}
            changed = [name for name, value in after.items() if earlier[name] != value]
            if changed:
                self._accepted += [
                    {name: after[name] for name in changed},
                    # What it restores when it is torn down, some test's end.
                    {name: earlier[name] for name in changed},
                ]

        return end

    def _look(self) -> State:
        """All that is known of."""
        state = _state()
        return state | {name: _now(name) for name in self._before if name not in state}

    def found(self) -> Iterator[Violation]:
        after = _state()
        for name, then in self._before.items():
            now = after[name] if name in after else _now(name)
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
        if name not in self._before and len(self._before) < MOST:
            self._before[name] = _now(name)
        if place := audit.place():
            self._places[name] = place


VARIABLE = "os.environ: "
DIRECTORY = "the current directory"


def _state() -> State:
    """By the words for it."""
    return {
        UMASK: umask(),
        LOCALE: _locale_of(locale.LC_ALL, None),
        SIGNALS: _handlers(),
    }


def _handlers() -> tuple[bytes, dict[int, Any]]:
    """What signals do; and which function of Python those call that call one, None if it is not Python's."""
    actions = signal_actions()
    handlers = {}
    at = actions.find(FUNCTION)
    while at >= 0:
        handlers[at + 1] = _handler_of(at + 1)
        at = actions.find(FUNCTION, at + 1)
    return actions, handlers


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

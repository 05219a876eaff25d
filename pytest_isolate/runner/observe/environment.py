"""What a test leaves changed in its process: variables, directory, umask, locale, signal handlers."""

from __future__ import annotations

import locale
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from pytest_isolate.runner.observe import audit
from pytest_isolate.violation import Kind, Violation

__all__ = ["Environment"]

#: Variables that pytest and its plugins set themselves.
OF_PLUGINS = ("PYTEST_", "COV_", "COVERAGE_")
SIGNALS = range(1, signal.NSIG)
#: Without the enumerations, which cost more than all the rest.
_handler_of: Callable[[int], Any] = getattr(signal.getsignal, "__wrapped__", signal.getsignal)
CURE = 'allow=["environment"]'

State = dict[str, object]


class Environment:
    def __init__(self) -> None:
        self._before: State = {}
        self._accepted: list[State] = []  # what fixtures of a wider scope have made of it
        self._places: dict[str, str] = {}
        for event in ("os.putenv", "os.unsetenv"):
            audit.listen(event, self._variable)
        audit.listen("os.chdir", self._directory)

    def begin(self) -> None:
        self._before = _state()
        self._accepted.clear()
        self._places.clear()

    def aside(self) -> Callable[[], None]:
        before = _state()

        def end() -> None:
            after = _state()
            if after != before:
                self._accepted.append({name: after.get(name) for name in _changes(before, after)})

        return end

    def found(self) -> Iterator[Violation]:
        after = _state()
        if after == self._before:
            return
        for name in sorted(_changes(self._before, after)):
            if name.removeprefix(VARIABLE).startswith(OF_PLUGINS):
                continue
            if any(name in accepted and accepted[name] == after.get(name) for accepted in self._accepted):
                continue
            yield Violation(
                kind=Kind.ENVIRONMENT, what=f"changed {name}", where=self._places.get(name, ""), cure=CURE
            )

    def _variable(self, args: tuple[Any, ...]) -> None:
        name = os.fsdecode(args[0])
        if not name.startswith(OF_PLUGINS) and (place := audit.place()):
            self._places[VARIABLE + name] = place

    def _directory(self, args: tuple[Any, ...]) -> None:
        if place := audit.place():
            self._places[DIRECTORY] = place


VARIABLE = "os.environ: "
DIRECTORY = "the current directory"


def _state() -> State:
    """By the words for it."""
    found: State = {VARIABLE + name: value for name, value in os.environ.items()}
    try:
        found[DIRECTORY] = os.getcwd()
    except OSError:  # it is deleted
        found[DIRECTORY] = None
    found["the umask"] = mask = os.umask(0o077)
    os.umask(mask)
    found["the locale"] = locale.setlocale(locale.LC_ALL)
    found["signals"] = [*map(_handler_of, SIGNALS)]
    return found


def _changes(before: State, after: State) -> Iterator[str]:
    for name in before.keys() | after.keys():
        if before.get(name) == after.get(name):
            continue
        if name == "signals":
            pairs: Any = zip(SIGNALS, before[name], after[name], strict=True)  # type: ignore[call-overload]
            yield from (f"the handler of {_name(number)}" for number, old, new in pairs if old != new)
        else:
            yield name


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"

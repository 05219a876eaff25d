"""``--isolate-profile``: where the time of an isolated test goes, over all tests of a session."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pytest_isolate.reporters.line import Line
from pytest_isolate.sandbox.moments import STAGES

__all__ = ["Profile"]

#: What a user may want to know of a stage; one that is no cost is not shown.
MEANINGS = {
    "prepare": "set up what is shared",
    "sandbox": "wait until it is built",
    "fork": "copy pytest's process",
    "enter": "cgroup, namespaces, rights",
    "set-up": "be the test's process",
    "test": "setup, call and teardown",
    "report": "tell pytest",
    "reap": "end it, and read what it used",
    "log": "hand its reports on",
}
BEFORE = ("prepare", "sandbox", "fork", "enter", "set-up")


@dataclass(slots=True)
class Profile:
    """Of all tests that told their stages."""

    _durations_s: dict[str, list[float]] = field(default_factory=dict)
    _tests: int = 0
    _held: int = 0

    def add(self, stages: Any) -> None:
        """The stages of one test, as its record has them. Raises TypeError for what are none."""
        if stages is None:
            return
        if not isinstance(stages, dict):
            raise TypeError(stages)
        self._tests += 1
        self._held += stages.get("held") is True
        for name in STAGES:
            if isinstance(duration_s := stages.get(name), float):
                self._durations_s.setdefault(name, []).append(duration_s)

    def table(self) -> list[Line]:
        return [*self._lines()] if self._tests else []

    def _lines(self) -> Iterator[Line]:
        title = "where the time of a test goes"
        yield Line(f"{title:42}{'median':>10}{'slowest':>12}{'all':>11}", "bold")
        for name, meaning in MEANINGS.items():
            if durations_s := self._durations_s.get(name):
                median, most, total = statistics.median(durations_s), max(durations_s), sum(durations_s)
                mark = "*" if self._held and name in BEFORE else " "
                what = f"  {name:8}{mark} {meaning}"
                yield Line(f"{what:42}{median * 1e3:7.2f} ms{most * 1e3:9.2f} ms{total:9.2f} s")
        if self._held:
            yield Line(f"  * of {self._held} of {self._tests} tests while the one before it ran")

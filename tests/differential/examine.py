"""The experiment: a suite run plain and isolated, and what the comparison gives, for people to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.differential.compare import Comparison, Difference, compare, differences
from tests.differential.modes import Mode
from tests.differential.recording import SESSION, Facts, Recording
from tests.differential.suite import Expected, Suite, run

__all__ = ["Examiner", "Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One suite in one mode."""

    suite: Suite
    mode: str
    plain: Recording | None
    isolated: Recording
    comparison: Comparison

    @property
    def good(self) -> bool:
        return not self.comparison.unexplained and self.isolated.tests > 0

    def lines(self) -> Iterator[str]:
        found = self.comparison
        times = f"{self.plain.wall_s:.1f} s plain, " if self.plain is not None else ""
        yield (
            f"{'ok  ' if self.good else 'DIFF'} {self.suite.name} ({self.mode}): {self.isolated.tests} tests, "
            f"{len(found.unexplained)} differences, {len(found.explained)} explained, "
            f"{len(found.unsteady)} unsteady; {times}{self.isolated.wall_s:.1f} s isolated"
        )
        for difference in found.unexplained:
            yield from _indented(difference.lines())
        for explanation, count in Counter(by for _, by in found.explained).items():
            yield f"  explained, {count}: {explanation.tests}: {explanation.reason}"
        for name in found.unsteady:
            yield f"  unsteady, as plain runs differ in it too: {name}"
        if not self.isolated.tests:
            yield "  nothing ran"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


@dataclass(slots=True)
class Examiner:
    """Plain runs are made once for all modes that have the same."""

    work: Path
    _plain: dict[tuple[str, tuple[str, ...]], tuple[Recording, list[Recording]]] = field(default_factory=dict)

    def examine(self, suite: Suite, name: str, mode: Mode) -> Verdict:
        (self.work / suite.name).mkdir(parents=True, exist_ok=True)
        if suite.expected:
            isolated = run(suite, mode.isolated, self.work, name, ordered=mode.ordered)
            return Verdict(suite, name, None, isolated, Comparison([*_unexpected(isolated, suite.expected)]))
        plain, again = self._plain_of(suite, name, mode)
        isolated = run(suite, mode.isolated, self.work, name, ordered=mode.ordered)
        known = suite.explained
        comparison = compare(plain, isolated, None, known, name)
        if comparison.unexplained:
            if not again:
                again.append(run(suite, mode.plain, self.work, f"{name}-again", ordered=mode.ordered))
            comparison = compare(plain, isolated, again[0], known, name)
        return Verdict(suite, name, plain, isolated, comparison)

    def _plain_of(self, suite: Suite, name: str, mode: Mode) -> tuple[Recording, list[Recording]]:
        key = (suite.name, mode.plain)
        if key not in self._plain:
            recording = run(suite, mode.plain, self.work, f"{name}-plain", ordered=mode.ordered)
            self._plain[key] = (recording, [])
        return self._plain[key]


def _unexpected(isolated: Recording, expected: Mapping[str, Expected]) -> Iterator[Difference]:
    wanted: dict[str, Facts] = {SESSION: {}}
    wanted |= {
        nodeid: {"outcome": list(test.outcome), "says": [test.says]} for nodeid, test in expected.items()
    }
    got: dict[str, Facts] = {SESSION: {}}
    for nodeid, facts in isolated.facts.items():
        if nodeid == SESSION:
            continue
        says = expected[nodeid].says if nodeid in expected else ""
        text = "\n".join("\n".join(lines) for what, lines in facts.items() if what.endswith("longrepr"))
        outcomes = [line.removeprefix("TestReport ") for line in facts.get("outcome", [])]
        got[nodeid] = {"outcome": outcomes, "says": [says if says in text else text]}
    code = isolated.exit_code
    return iter(differences(Recording(code, 0.0, wanted), Recording(code, 0.0, got)))

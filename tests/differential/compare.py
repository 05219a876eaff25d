"""Two recordings, and what of the second is not as in the first."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from tests.differential.explained import Explanation
from tests.differential.recording import SESSION, Recording

__all__ = ["Comparison", "Difference", "compare", "differences"]

CONTEXT_LINES = 2
MOST_LINES = 40


@dataclass(frozen=True, slots=True)
class Difference:
    nodeid: str
    what: str
    plain: tuple[str, ...]
    isolated: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people: which test, what of it, and a unified diff."""
        diff = difflib.unified_diff(
            self.plain, self.isolated, "plain", "isolated", lineterm="", n=CONTEXT_LINES
        )
        shown = [*diff]
        cut = [f"… {len(shown) - MOST_LINES} lines more"] if len(shown) > MOST_LINES else []
        return [f"{self.nodeid}: {self.what}", *(f"    {line}" for line in shown[:MOST_LINES] + cut)]


@dataclass(frozen=True, slots=True)
class Comparison:
    unexplained: list[Difference] = field(default_factory=list)
    explained: list[tuple[Difference, Explanation]] = field(default_factory=list)
    unsteady: list[str] = field(default_factory=list)  #: tests that differ between two plain runs


def differences(plain: Recording, isolated: Recording) -> list[Difference]:
    """In the order of the plain run."""
    names = [SESSION, *dict.fromkeys([*plain.facts, *isolated.facts])]
    return [
        Difference(name, what, tuple(ours), tuple(theirs))
        for name in dict.fromkeys(names)
        for what, ours, theirs in _unequal(plain, isolated, name)
    ]


def _unequal(
    plain: Recording, isolated: Recording, name: str
) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    ours, theirs = plain.facts.get(name), isolated.facts.get(name)
    if ours is None or theirs is None:
        yield "runs", ["no"] if ours is None else ["yes"], ["no"] if theirs is None else ["yes"]
        return
    for what in dict.fromkeys([*ours, *theirs]):
        if ours.get(what, []) != theirs.get(what, []):
            yield what, ours.get(what, []), theirs.get(what, [])


def compare(
    plain: Recording,
    isolated: Recording,
    again: Recording | None,
    known: Collection[Explanation],
    mode: str,
) -> Comparison:
    """``again``: a second plain run, which tells what of a suite is never twice the same."""
    found = Comparison()
    shaky = {(d.nodeid, d.what) for d in differences(plain, again)} if again is not None else set()
    for difference in differences(plain, isolated):
        by = next((e for e in known if e.covers(difference.nodeid, difference.what, mode)), None)
        if by is not None:
            found.explained.append((difference, by))
        elif (difference.nodeid, difference.what) in shaky:
            found.unsteady.append(f"{difference.nodeid}: {difference.what}")
        else:
            found.unexplained.append(difference)
    return found

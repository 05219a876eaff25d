"""When a flight came to what, and the stages that lie between: where the time of one test goes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from pytest_isolate.errors import ChannelError

__all__ = ["STAGES", "Moments"]

#: Each with the moment at which it begins; it ends where the next one does that has a beginning.
STAGES = {
    "prepare": "asked",
    "sandbox": "started",
    "fork": "forked",
    "enter": "born",
    "set-up": "entered",
    "wait": "ready",
    "test": "begun",
    "report": "ended",
    "reap": "received",
    "log": "done",
}
#: Those that the child tells, in this order.
OF_CHILD = ("born", "ready", "begun", "ended")


@dataclass(slots=True)
class Moments:
    """By CLOCK_MONOTONIC, which is one clock for all processes. None: not, or not with this test."""

    asked: float | None = None  #: pytest turned to the test, or to making its process before its turn
    started: float | None = None  #: what the parent sets up is set up
    forked: float | None = None  #: the sandbox was there; pytest called fork
    born: float | None = None  #: the child's first instruction in Python
    entered: float | None = None  #: the sandbox, with all that it takes away
    ready: float | None = None  #: to run the test, once told to
    begun: float | None = None  #: the test; until the child says when, when it was told to
    ended: float | None = None  #: the test's whole protocol
    received: float | None = None  #: its last message
    done: float | None = None  #: reaped, and measured
    logged: float | None = None

    def hear(self, told: Iterable[object]) -> None:
        """What the child says of itself: any time between the fork and now, or None."""
        for name, at in zip(OF_CHILD, told, strict=False):
            if at is not None and type(at) is not float:
                raise ChannelError(f"no time: {at!r}")
            if at is not None:
                setattr(self, name, self.believable(at))

    def believable(self, at: float) -> float:
        """The child's own time of an event, which pytest may come to read later; within what is possible."""
        return min(max(at, self.forked or at), time.monotonic())

    def stages(self) -> dict[str, float]:
        """Seconds of each stage that is known, in their order."""
        return {name: end - begin for name, begin, end in self._known()}

    def _known(self) -> Iterator[tuple[str, float, float]]:
        known = [(name, at) for name, of in STAGES.items() if (at := getattr(self, of)) is not None]
        known += [("", self.logged)] if self.logged is not None else []
        begin = 0.0
        for (name, at), (_, end) in pairwise(known):
            begin = max(begin, at)  # a process may be told to begin before it has entered
            yield name, begin, max(end, begin)

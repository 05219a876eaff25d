"""When a flight came to what, and the stages that lie between: where the time of one test goes."""

from __future__ import annotations

import math
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
#: How long a message may be on its way to pytest while that waits for one.
ON_ITS_WAY_S = 0.1


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
            if at is None:
                continue
            if type(at) is not float or not math.isfinite(at):
                raise ChannelError(f"no time: {at!r}")
            setattr(self, name, self.believable(at))

    def hear_end(self, at: float, told: Iterable[object], quiet_s: float) -> float:
        """The last message is read: when the test ended. What the child says of that counts if it can have
        been sent then: it was not there at ``quiet_s``."""
        self.received = time.monotonic()
        self.hear(told)
        return self.believable(at) if at >= quiet_s - ON_ITS_WAY_S else self.received

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

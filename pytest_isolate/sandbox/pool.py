"""Sandboxes made ahead: while one test runs, the supervisor builds what the next one will enter.

A *berth* is a sandbox with a cgroup and without a test. It is used once, by one test, or by none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_isolate.kernel.cgroups.base import Cgroup, discard
from pytest_isolate.sandbox.plan import Plan

__all__ = ["Berth", "Pool"]

MAX_BERTHS = 32


@dataclass(slots=True)
class Berth:
    """Where one test will run; ``fds`` are what the init exported, as soon as it is built."""

    name: str
    plan: Plan
    cgroup: Cgroup | None
    sandbox_id: int | None  #: None: the plan has no sandbox to build (degraded)
    fds: tuple[int, ...] | None = None
    given_up: bool = False  #: it could not be built, or is one too many: it only waits to be gone

    def close(self) -> None:
        """Drop the descriptors; the sandbox stays."""
        for fd in self.fds or ():
            os.close(fd)
        self.fds = None


class Pool:
    """The berths that no test has taken yet, oldest first."""

    def __init__(self) -> None:
        self._berths: dict[int | None, Berth] = {}

    def __contains__(self, sandbox_id: object) -> bool:
        return sandbox_id in self._berths

    def __iter__(self) -> Iterator[Berth]:
        return iter([*self._berths.values()])

    def add(self, berth: Berth) -> None:
        self._berths[berth.sandbox_id] = berth

    def __getitem__(self, sandbox_id: int) -> Berth:
        return self._berths[sandbox_id]

    def __len__(self) -> int:
        return len(self._berths)

    def count(self, plan: Plan) -> int:
        """Those to come of a plan that cannot be built count too: nobody shall try for ever."""
        return sum(berth.plan is plan for berth in self)

    def surplus(self) -> Berth | None:
        """One to give up, when there are more than any run needs: their tests were never started."""
        waiting = [berth for berth in self if not berth.given_up]
        return waiting[0] if len(waiting) > MAX_BERTHS else None

    def take(self, plan: Plan) -> Berth | None:
        """A berth of this plan, if possible one that is built; it belongs to the caller."""
        of_plan = [berth for berth in self if berth.plan is plan and not berth.given_up]
        if not of_plan:
            return None
        berth = next((berth for berth in of_plan if berth.fds is not None), of_plan[0])
        return self._berths.pop(berth.sandbox_id)

    def drop(self, sandbox_id: int | None) -> None:
        """What is left of a berth whose sandbox is gone."""
        berth = self._berths.pop(sandbox_id)
        berth.close()
        discard(berth.cgroup)

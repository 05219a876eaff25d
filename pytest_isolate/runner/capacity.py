"""How much may run at the same time: so many tests, and so much memory and processor time as they declare."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pytest_isolate.kernel.available import available_cpus, available_memory_bytes
from pytest_isolate.spec import Limits
from pytest_isolate.values import AUTO

__all__ = ["ONE_BY_ONE", "Capacity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    jobs: int
    memory_bytes: int
    cpus: float

    @classmethod
    def find(cls, jobs: int, memory_bytes: int | None, *, worker: int = 0, workers: int = 1) -> Capacity:
        """Of this machine, or this worker's share of it; ``jobs`` may be ``AUTO``: one per processor."""
        cpus = available_cpus()
        wanted = max(int(cpus), 1) if jobs == AUTO else jobs
        memory = available_memory_bytes() if memory_bytes is None else memory_bytes
        return cls(
            jobs=max(wanted // workers + (worker < wanted % workers), 1),
            memory_bytes=memory // workers,
            cpus=cpus / workers,
        )

    def admits(self, wanted: Limits, running: Iterable[Limits]) -> bool:
        """Whether a test may start beside these. One that is too large for the machine may start alone."""
        others = [*running]
        if not others:
            return True
        together = [*others, wanted]
        return (
            len(together) <= self.jobs
            and sum(limits.memory_bytes or 0 for limits in together) <= self.memory_bytes
            and sum(limits.cpus or 0.0 for limits in together) <= self.cpus
        )


ONE_BY_ONE = Capacity(jobs=1, memory_bytes=0, cpus=0.0)

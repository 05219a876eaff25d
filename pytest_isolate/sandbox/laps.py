"""What each of the tests in one sandbox has used: the sandbox's counters from one test's end to the next."""

from __future__ import annotations

import time
from dataclasses import replace

from pytest_isolate.usage import Usage

__all__ = ["Laps"]

#: Sums, of which a test's share is a difference. Peaks are not: they stay the sandbox's so far.
SUMS = (
    "cpu_user_s",
    "cpu_system_s",
    "throttled_s",
    "oom_kills",
    "pids_refused",
    "io_read_bytes",
    "io_write_bytes",
    "minor_faults",
    "major_faults",
    "context_switches",
    "written_files",
    "written_bytes",
)


class Laps:
    """Times are of CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._asked = time.monotonic()
        self._begun: float | None = None
        self._before: Usage | None = None

    def begin(self, at: float) -> None:
        """The process is there; its test begins now, or when it is asked for."""
        self._begun = max(at, self._asked)

    def ask(self) -> None:
        """The test is asked for now, and not when its process was."""
        self._asked = time.monotonic()
        if self._begun is not None:
            self._begun = self._asked

    def end(self, total: Usage, at: float) -> Usage:
        """The share of the test that ended ``at``, when the sandbox had used ``total``."""
        wall = max(at - self._begun, 0.0) if self._begun is not None else None
        overhead = time.monotonic() - self._asked - (wall or 0.0)
        share = total if self._before is None else _difference(total, self._before)
        return replace(share, wall_s=wall, overhead_s=overhead)

    def next(self, total: Usage) -> None:
        """Another test begins, now."""
        self._asked = self._begun = time.monotonic()
        self._before = total


def _difference(total: Usage, before: Usage) -> Usage:
    shares = {}
    for name in SUMS:
        now, then = getattr(total, name), getattr(before, name)
        shares[name] = max(now - then, 0) if now is not None and then is not None else None
    return replace(total, **shares)

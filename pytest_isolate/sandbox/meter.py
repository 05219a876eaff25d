"""What each of the tests in one sandbox has used: the sandbox's counters from one test's end to the next."""

from __future__ import annotations

import time
from dataclasses import replace

from pytest_isolate.kernel.accounting import Rusage, combine
from pytest_isolate.kernel.cgroups.base import Cgroup
from pytest_isolate.sandbox.written import Written
from pytest_isolate.spec import Limits
from pytest_isolate.usage import CgroupUsage, Usage

__all__ = ["Meter"]

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


class Meter:
    """Times are of CLOCK_MONOTONIC."""

    def __init__(self, limits: Limits, cgroup: Cgroup | None) -> None:
        self.written: Written | None = None
        self._limits = limits
        self._cgroup = cgroup
        self._asked = time.monotonic()
        self._begun: float | None = None
        self._before: Usage | None = None
        self._total = Usage()  # when the last test ended

    def begin(self, at: float) -> None:
        """The process is there; its test begins now, or when it is asked for."""
        self._begun = max(at, self._asked)

    def ask(self) -> None:
        """The test is asked for now, and not when its process was."""
        self._asked = time.monotonic()
        if self._begun is not None:
            self._begun = self._asked

    def next(self) -> None:
        """Another test begins, now."""
        self._asked = self._begun = time.monotonic()
        self._before = self._total

    def so_far(self) -> CgroupUsage:
        """All tests together."""
        return self._cgroup.read_usage() if self._cgroup is not None else CgroupUsage()

    def end(self, at: float, rusage: Rusage | None = None, leaked: int | None = None) -> Usage:
        """The share of the test that ended ``at``. What only rusage tells, and how many processes were left,
        is known when the child has ended, which is with its last test."""
        written = self.written.count() if self.written is not None else (None, None)
        self._total = replace(
            combine(self.so_far(), rusage),
            memory_limit_bytes=self._limits.memory_bytes,
            written_files=written[0],
            written_bytes=written[1],
            tmp_free_bytes=self.written.free_bytes() if self.written is not None else None,
            leaked_processes=leaked,
        )
        wall = max(at - self._begun, 0.0) if self._begun is not None else None
        overhead = time.monotonic() - self._asked - (wall or 0.0)
        share = self._total if self._before is None else _difference(self._total, self._before)
        return replace(share, wall_s=wall, overhead_s=overhead)

    def last(self, at: float, rusage: Rusage | None, leaked: int | None) -> tuple[Usage, dict[str, str], str]:
        """As :meth:`end`, and the limits as the cgroup has them; or why nothing of this can be read, for even
        then whoever waits for the test is to be told of its end."""
        try:
            limits = dict(self._cgroup.read_limits()) if self._cgroup is not None else {}
            return self.end(at, rusage, leaked), limits, ""
        except Exception as error:  # of files in which the test has a part
            return Usage(), {}, f"what the test has used cannot be read: {error!r}"


def _difference(total: Usage, before: Usage) -> Usage:
    shares = {}
    for name in SUMS:
        now, then = getattr(total, name), getattr(before, name)
        shares[name] = max(now - then, 0) if now is not None and then is not None else None
    return replace(total, **shares)

"""Limits that the kernel leaves to us: wall-clock time, and processor time of all processes together."""

from __future__ import annotations

import os
from collections.abc import Callable

from pytest_isolate.kernel.cgroups.base import Cgroup
from pytest_isolate.outcome import CpuTimeExceeded, TimedOut
from pytest_isolate.sandbox.loop import Loop, Timer
from pytest_isolate.spec import Limits

__all__ = ["Watchdog"]

#: Between two looks at the memory in use, where the kernel keeps no peak.
SAMPLE_S = 0.02


class Watchdog:
    """Of one sandbox, from :meth:`start` to :meth:`stop`; ``exceeded`` is called at most once.

    The deadline is one test's, and starts with that.
    """

    def __init__(
        self,
        limits: Limits,
        cgroup: Cgroup | None,
        loop: Loop,
        exceeded: Callable[[TimedOut | CpuTimeExceeded], None],
    ) -> None:
        self._limits = limits
        self._cgroup = cgroup
        self._loop = loop
        self._exceeded = exceeded
        self._deadline: Timer | None = None
        self._stopped = False

    def start(self) -> None:
        if self._cgroup is not None:
            self._sample()
            if self._limits.cpu_time_s is not None:
                self._check_cpu_time()

    def start_deadline(self) -> None:
        self.cancel_deadline()
        if (timeout_s := self._limits.timeout_s) is not None:
            self._deadline = self._loop.call_later(timeout_s, lambda: self._report(TimedOut(timeout_s)))

    def cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def stop(self) -> None:
        """The last look."""
        if not self._stopped and self._cgroup is not None:
            self._cgroup.sample()
        self._stopped = True
        self.cancel_deadline()

    def _report(self, outcome: TimedOut | CpuTimeExceeded) -> None:
        if not self._stopped:
            self.stop()
            self._exceeded(outcome)

    def _check_cpu_time(self) -> None:
        limit = self._limits.cpu_time_s
        if self._stopped or self._cgroup is None or limit is None:
            return
        usage = self._cgroup.read_usage()
        used = (usage.cpu_user_s or 0.0) + (usage.cpu_system_s or 0.0)
        if used >= limit:
            self._report(CpuTimeExceeded(limit, used))
        else:  # not before all processors together can have used up the rest
            self._loop.call_later(max((limit - used) / (os.cpu_count() or 1), 0.01), self._check_cpu_time)

    def _sample(self) -> None:
        if not self._stopped and self._cgroup is not None and self._cgroup.sample():
            self._loop.call_later(SAMPLE_S, self._sample)

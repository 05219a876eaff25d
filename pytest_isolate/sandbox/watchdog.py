"""Limits that the kernel leaves to us: wall-clock time, processor time of all processes together, and with
cgroup v1 the end of those beside the one that it kills for want of memory."""

from __future__ import annotations

import os
import time
from typing import Protocol

from pytest_isolate.kernel.cgroups.base import Cgroup
from pytest_isolate.outcome import CpuTimeExceeded, TimedOut
from pytest_isolate.sandbox.loop import Loop, Timer
from pytest_isolate.spec import Limits

__all__ = ["Watchdog"]

#: Between two looks at the memory in use, where the kernel keeps no peak.
SAMPLE_S = 0.02
#: A test whose deadline is over may be telling that it has ended: pytest looks so often, at such intervals.
LOOKS = 10
LOOK_S = 0.1
#: How long the kernel may take to kill a process for want of memory, after it has said so.
OOM_KILL_S = 1.0
OOM_LOOK_S = 0.005
EVENTFD_BYTES = 8


class Watched(Protocol):
    """The test of a sandbox."""

    def hears(self) -> bool:
        """Take what the test has said by now, which may be that it has ended; whether there was anything."""
        ...

    def exceeded(self, outcome: TimedOut | CpuTimeExceeded) -> None: ...

    def interrupt(self) -> None:
        """The kernel has killed a process for want of memory, and others would go on (cgroup v1)."""
        ...


class Watchdog:
    """Of one sandbox, from :meth:`start` to :meth:`stop`. The deadline is of one test, and starts with it."""

    def __init__(self, limits: Limits, cgroup: Cgroup | None, loop: Loop, watched: Watched) -> None:
        self._limits = limits
        self._cgroup = cgroup
        self._loop = loop
        self._watched = watched
        self._deadline: Timer | None = None
        self._oom_fd: int | None = None  # owned by the cgroup
        self._stopped = False

    def start(self) -> None:
        if self._cgroup is None:
            return
        self._oom_fd = self._cgroup.oom_event_fd()
        self._watch_memory(self._cgroup)
        self._sample()
        if self._limits.cpu_time_s is not None:
            self._check_cpu_time()

    def start_deadline(self) -> None:
        self.cancel_deadline()
        if (timeout_s := self._limits.timeout_s) is not None:
            self._deadline = self._loop.call_later(timeout_s, lambda: self._overdue(timeout_s, LOOKS))

    def cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None

    def _overdue(self, timeout_s: float, looks: int) -> None:
        deadline = self._deadline
        is_heard = self._watched.hears()
        if self._deadline is not deadline:  # that was the end of the test
            return
        if is_heard and looks > 0:
            self._deadline = self._loop.call_later(LOOK_S, lambda: self._overdue(timeout_s, looks - 1))
        else:
            self._report(TimedOut(timeout_s))

    def stop(self) -> None:
        """The last look."""
        if not self._stopped and self._cgroup is not None:
            self._cgroup.sample()
        self._stopped = True
        self.cancel_deadline()
        if self._oom_fd is not None:
            self._loop.unwatch(self._oom_fd)
        self._oom_fd = None

    def _report(self, outcome: TimedOut | CpuTimeExceeded) -> None:
        if not self._stopped:
            self.stop()
            self._watched.exceeded(outcome)

    def _watch_memory(self, cgroup: Cgroup) -> None:
        if (fd := self._oom_fd) is not None:
            self._loop.watch(fd, lambda: self._out_of_memory(fd, cgroup, time.monotonic()))

    def _out_of_memory(self, fd: int, cgroup: Cgroup, since_s: float) -> None:
        """The event comes before the kill, which there will not be if memory has become free meanwhile."""
        if self._stopped:
            return
        self._loop.unwatch(fd)
        if cgroup.read_usage().oom_kills:
            self._watched.interrupt()
        elif time.monotonic() - since_s < OOM_KILL_S:
            self._loop.call_later(OOM_LOOK_S, lambda: self._out_of_memory(fd, cgroup, since_s))
        else:
            os.read(fd, EVENTFD_BYTES)
            self._watch_memory(cgroup)

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

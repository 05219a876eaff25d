"""The process of a test, which is not always the one that was forked: followed until it ends.

A fork hops into the pid namespace (native/enter.c), so that the test is a child of pytest but another
process; with an OCI runtime that one is the runtime, and the test is whatever the container's init says.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from pytest_isolate.kernel.accounting import Rusage, reap
from pytest_isolate.kernel.process import deliver, descendants, kill
from pytest_isolate.outcome import Exited, Outcome, SetupFailed, Signaled, from_wait_status, signal_name
from pytest_isolate.sandbox.enter import EntryReport
from pytest_isolate.sandbox.loop import Loop
from pytest_isolate.sandbox.oci.container import Container
from pytest_isolate.sandbox.trace import Trace

__all__ = ["Passage"]


class Passage:
    """``ended`` is called once; ``arrived`` when the test waits in its container, if there is one."""

    def __init__(
        self, loop: Loop, container: Container | None, ended: Callable[[], None], arrived: Callable[[], None]
    ) -> None:
        self.report: EntryReport  # there when a process was asked for
        self.pid = 0  #: of the test, as far as it is known
        self.status: int | None = None  #: as wait(2) gives it; None: it lives, or nobody can tell
        self.rusage: Rusage | None = None
        self._loop = loop
        self._container = container
        self._ended = ended
        self._arrived = arrived
        self._pidfd = -1
        self._lost: SetupFailed | None = None  # out of sight
        self._family: list[int] = []

    def watch(self, pid: int) -> None:
        self.pid = pid
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError as error:  # whoever waits for its end is told of one all the same
            self._lost = SetupFailed("follow the test's process", error.errno or 0, str(error.strerror))
            self._loop.call_later(0, self._ended)
        else:
            self._loop.watch(self._pidfd, self._exited)

    def watch_container(self) -> None:
        if self._container is not None:
            self._container.watch(self._into_container, self._down)

    @property
    def is_over(self) -> bool:
        """There was one, and it has ended."""
        return self.pid > 0 and self._pidfd < 0

    @property
    def pids(self) -> set[int]:
        """Of the fork, and of the process that it hands over to, whose end it may be too early to see."""
        return {self.pid, self.report.pid if hasattr(self, "report") else 0}

    def wake(self, number: signal.Signals) -> None:
        """Have it write its stacks, and end."""
        self._family = descendants(self.pid)  # while they can be told from others
        deliver(self.pid, number)

    def kill(self) -> None:
        """Where neither a pid namespace nor a cgroup ends what it has started."""
        for pid in [self.pid, *descendants(self.pid), *self._family]:
            kill(pid)

    def signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, number)

    @property
    def failure(self) -> SetupFailed | None:
        """To enter the sandbox; nobody who has entered is to be asked."""
        failed = self.report.failure
        return self._lost if failed is None else SetupFailed(*failed, os.strerror(failed[1]))

    def outcome(self, has_entered: bool, cpu_time_s: float | None, trace: Trace) -> Outcome:
        """Of one that ended without a word."""
        if has_entered:
            return from_wait_status(self.status, cpu_time_s)
        reason = trace.read().strip().rpartition("\n")[2]
        return SetupFailed("start the test in the sandbox", 0, reason or self._silent_end())

    def _silent_end(self) -> str:
        match from_wait_status(self.status, None):
            case Exited(status):
                ended = f"ended with exit status {status}"
            case Signaled(number):
                ended = f"was killed by {signal_name(number)}"
            case _:
                ended = "ended"
        if self._container is None:
            return f"its process {ended} before it started the test"
        runtime = self._container.runtime
        return f"runtime {runtime} {ended} before it started the test; try: {runtime} --version"

    def forget(self) -> None:
        """In the child of another test, which has pytest's memory: it could answer in this one's place."""
        if hasattr(self, "report"):
            self.report.drop()

    def close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pidfd = -1

    def _exited(self) -> None:
        self._loop.unwatch(self._pidfd)
        self.close()
        self.status, self.rusage = reap(self.pid)
        if self.report.pid and self.report.pid != self.pid:
            self.status = self.rusage = None
            self.watch(self.report.pid)  # the fork has handed over to the process in the sandbox
        else:
            self._ended()

    def _into_container(self, test: int, pidfd: int) -> None:
        assert self._container is not None
        if self.report.pid != self.pid:
            self._exited()  # of the fork, which may come to be read later
        self._loop.unwatch(self._pidfd)
        self._container.hold_runtime(self.pid, self._pidfd)
        self.pid, self._pidfd = test, pidfd
        self._arrived()

    def _down(self, status: int | None, rusage: Rusage | None) -> None:
        """Of the test in the container; Nones: the kernel has killed it together with its init."""
        self.close()
        self.status = signal.SIGKILL if status is None else status
        self.rusage = rusage
        self._ended()

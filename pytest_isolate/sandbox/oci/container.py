"""pytest's side of a container: what its init tells, and its end.

the runtime starts -> up: test and init are known, the runtime stops -> go -> the test is down -> killed
-> measured -> the runtime goes on, removes the container, and is gone
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable

from pytest_isolate.kernel.accounting import BLOCK_BYTES, Rusage, reap
from pytest_isolate.kernel.cgroups.lent import LentCgroup
from pytest_isolate.sandbox.loop import Loop, Timer
from pytest_isolate.syscalls._native import lib

__all__ = ["Container"]

STATUS = struct.Struct("=Ii8Q")  # struct container_status of wire.h
#: How long a runtime may take to remove a container before its hull is taken away from it.
REMOVAL_S = 2.0


class Container:
    """``theirs`` is for the container's init; ``kill_hull`` ends all at once."""

    def __init__(
        self, runtime: str, loop: Loop, cgroup: LentCgroup | None, kill_hull: Callable[[], None]
    ) -> None:
        self.runtime = runtime  #: an absolute path
        self._loop = loop
        self._cgroup = cgroup
        self._kill_hull = kill_hull
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._init_fd = self._test_fd = -1
        self._is_down = self._is_killed = False
        self._runtime = (0, -1)  # its pid, and a descriptor of it
        self._up: Callable[[int, int], None]
        self._down: Callable[[int | None, Rusage | None], None]
        self._timer: Timer | None = None

    def watch(
        self, up: Callable[[int, int], None], down: Callable[[int | None, Rusage | None], None]
    ) -> None:
        """``up`` gets the test's pid and a descriptor of it, which is the callee's, when the test waits for
        :meth:`go`; ``down`` its wait status and usage, Nones if the init died with it."""
        self._up, self._down = up, down
        self._loop.watch(self._ours, self._read)

    def _read(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._ours, STATUS.size, 2)
        if len(data) != STATUS.size:
            self._loop.unwatch(self._ours)  # the runtime has ended
            return
        kind, status, *numbers = STATUS.unpack(data)
        if kind == lib.CONTAINER_DOWN:
            if self.is_up:  # else the runtime will end, and tells more
                self._ended(status, _rusage(*numbers))
            return
        self._init_fd, self._test_fd = fds
        test = _pid_of(self._test_fd)
        if test > 0:
            self._loop.watch(self._init_fd, self._init_ended)
            self._up(test, os.dup(self._test_fd))
        else:  # dead already, and nobody to wait for
            self._close(*fds)
            self._kill_hull()

    def _init_ended(self) -> None:
        """Killed, by us or for want of memory. What it has said before is still to be read; the runtime has
        the other end, too, and keeps it open."""
        self._ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self._read()
        self._ended(None, None)

    def _ended(self, status: int | None, rusage: Rusage | None) -> None:
        """The first word counts."""
        self._loop.unwatch(self._ours)
        if self._init_fd >= 0:
            self._loop.unwatch(self._init_fd)
        if self._is_killed:
            _signal(self._init_fd, signal.SIGKILL)
        if not self._is_down:
            self._is_down = True
            self._down(status, rusage)

    @property
    def is_up(self) -> bool:
        return self._init_fd >= 0

    def hold_runtime(self, pid: int, pidfd: int) -> None:
        """It would remove the container, cgroup and all, before anybody can look at it."""
        self._runtime = (pid, pidfd)
        self._loop.watch(pidfd, self._runtime_gone)
        _signal(pidfd, signal.SIGSTOP)

    def go(self, test: int) -> None:
        """Let the test begin, in its cgroup. Raises OSError or SetupError."""
        if self._cgroup is not None:
            self._cgroup.occupy(_pid_of(self._init_fd), test)
        self._ours.send(b"!")

    def kill(self) -> None:
        """First the test, of which the init then tells what it used; all else dies with the init
        (pid_namespaces(7)); without one, the hull."""
        if not self.is_up:
            self._kill_hull()
        elif self._is_down:
            _signal(self._init_fd, signal.SIGKILL)
        else:
            self._is_killed = True
            _signal(self._test_fd, signal.SIGKILL)

    def remove(self) -> None:
        """It is dead and measured."""
        self._loop.unwatch(self._ours)
        self._ours.close()
        self.theirs.close()  # if there was no child to have it
        if self._init_fd >= 0:
            self._loop.unwatch(self._init_fd)
            _signal(self._init_fd, signal.SIGKILL)
        self._close(self._init_fd, self._test_fd)
        pid, pidfd = self._runtime
        if pid and pidfd >= 0:
            _signal(pidfd, signal.SIGCONT)
            self._timer = self._loop.call_later(REMOVAL_S, self._kill_hull)
        else:
            self._kill_hull()

    def _runtime_gone(self) -> None:
        pid, pidfd = self._runtime
        self._loop.unwatch(pidfd)
        os.close(pidfd)
        reap(pid)
        self._runtime = (pid, -1)
        if self._timer is not None:
            self._timer.cancel()
        self._kill_hull()

    def close_descriptors(self) -> None:
        """Also in the child of another test, whose business it is not."""
        self._ours.close()
        self._close(self._init_fd, self._test_fd, self._runtime[1])
        self._runtime = (self._runtime[0], -1)

    def _close(self, *fds: int) -> None:
        for fd in fds:
            if fd >= 0:
                os.close(fd)
        self._init_fd = self._test_fd = -1


def _rusage(
    user_us: int,
    system_us: int,
    peak_rss_kib: int,
    minor: int,
    major: int,
    switches: int,
    blocks_in: int,
    blocks_out: int,
) -> Rusage:
    return Rusage(
        cpu_user_s=user_us / 1e6,
        cpu_system_s=system_us / 1e6,
        peak_rss_bytes=peak_rss_kib * 1024,
        minor_faults=minor,
        major_faults=major,
        context_switches=switches,
        io_read_bytes=blocks_in * BLOCK_BYTES,
        io_write_bytes=blocks_out * BLOCK_BYTES,
    )


def _signal(pidfd: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return


def _pid_of(pidfd: int) -> int:
    """As seen here; -1 if it is reaped (pidfd_open(2): fdinfo)."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))

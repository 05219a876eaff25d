"""pytest's end of the supervisor: the process that makes sandboxes and outlives pytest to clean up."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import overload

import pytest_isolate.syscalls
from pytest_isolate.errors import SupervisorError
from pytest_isolate.kernel.attempts import Attempt, Counts
from pytest_isolate.kernel.process import parent_of
from pytest_isolate.syscalls._native import lib
from pytest_isolate.syscalls.program import Program

__all__ = ["ANSWER_S", "CONTAINER_INIT", "DESTROY_S", "Failed", "Gone", "Ready", "Reply", "Supervisor"]

REQUEST = struct.Struct("=IIQQIIII")
REPLY = struct.Struct("=IIQii")
EXECUTABLE = Path(pytest_isolate.syscalls.__file__).with_name("isolate-supervisor")
CONTAINER_INIT = EXECUTABLE.with_name("isolate-init")  #: of containers that an OCI runtime makes
REPLY_BYTES = 2048  # more than the longest
FDS_BYTES = socket.CMSG_SPACE(lib.WIRE_MAX_EXPORTS * array("i").itemsize)
SHUTDOWN_S = 15.0  # more than the supervisor's own patience
KILL_S = 1.0
#: Without an answer for so long it will not give one any more: it waits for two helpers in turn (HELPER_MS).
ANSWER_S = 75.0
DESTROY_S = 2.0  #: How long it may take to kill a sandbox before :meth:`Supervisor.insist`.


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A sandbox is built. ``fds`` are what its program exported, in order; the receiver owns them."""

    sandbox_id: int
    init_pid: int
    fds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Call ``op_index`` of the program failed (one past the last: creating the namespaces did).

    If the init was ``born``, :class:`Gone` will follow.
    """

    sandbox_id: int
    born: bool
    op_index: int
    errno: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """The init of a sandbox was reaped, and with it every process, mount and namespace in it."""

    sandbox_id: int


Reply = Ready | Failed | Gone | Attempt | Counts


def _fds_of(rights: list[tuple[int, int, bytes]]) -> tuple[int, ...]:
    fds = array("i")
    for _, _, data in rights:  # a socket of ours, over which nothing else comes
        fds.frombytes(data)
    return tuple(fds)


class Supervisor:
    """Started once per session. Requests do not wait; :meth:`receive` gives one reply."""

    def __init__(self) -> None:
        self.owner_pid = os.getpid()
        self._next_id = 0
        self._unread: deque[Reply] = deque()  # that came while another was waited for
        self._inits: dict[int, int] = {}  # by id of the sandboxes that are not gone; 0: not built yet
        self._condemned: set[int] = set()  # ids of those that it was told to kill
        self.insisted: set[int] = set()  #: ids of those that were killed from here
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, lib.WIRE_MAX_BYTES * 2)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, lib.WIRE_MAX_BYTES * 2)
            self.pid = self._spawn(theirs.fileno())
        self._socket = ours

    def _spawn(self, fd: int) -> int:
        null = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_RDWR, 0) for n in range(3)]
        argv = ["pytest-isolate: supervisor", str(self.owner_pid)]
        # dup2 onto itself would leave close-on-exec set: go by way of another number.
        spare = os.dup(fd)
        actions = [
            *null,
            (os.POSIX_SPAWN_DUP2, spare if fd == lib.WIRE_SOCKET_FD else fd, lib.WIRE_SOCKET_FD),
        ]
        try:
            return os.posix_spawn(EXECUTABLE, argv, {}, file_actions=actions)
        except OSError as error:
            raise SupervisorError(
                f"cannot start {EXECUTABLE}: {error.strerror}; reinstall pytest-isolate-ns"
            ) from error
        finally:
            os.close(spare)

    def fileno(self) -> int:
        return self._socket.fileno()

    def create(self, clone_flags: int, program: Program, *, inside: int = 0, watch: bool = False) -> int:
        """Have a sandbox built; :class:`Ready` or :class:`Failed` with the returned id will follow.

        ``inside``: a process of the caller's in whose user namespace it is made, or 0; ``watch``: one more
        descriptor, to hand over the listener of the watch (native/watch.h).
        """
        self._next_id += 1
        op_count, payload = program.pack()
        self._send(
            lib.REQUEST_CREATE, op_count, self._next_id, clone_flags, payload, inside=inside, watch=watch
        )
        self._inits[self._next_id] = 0
        return self._next_id

    def destroy(self, sandbox_id: int) -> None:
        """Kill the init of a sandbox, and with it all in it; :class:`Gone` will follow."""
        self._condemned.add(sandbox_id)
        self._send(lib.REQUEST_DESTROY, 0, sandbox_id, 0, b"")

    def insist(self, sandbox_id: int) -> None:
        """Some time after :meth:`destroy`: if the sandbox is not gone the supervisor waits for something,
        maybe for that very sandbox. So kill it from here."""
        init_pid = self._inits.get(sandbox_id, 0)
        if self._socket.fileno() < 0 or not init_pid:
            return
        self.insisted.add(sandbox_id)
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(init_pid)
            try:
                # One that waits reaps nobody, and its child is the init still.
                if parent_of(init_pid) == self.pid:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)

    def expect(self, sandbox_id: int) -> None:
        """``ANSWER_S`` after :meth:`create`: who has not even built it by now does nothing any more. What it
        has said is read first, as pytest may have been busy elsewhere; :attr:`has_unread` tells of it."""
        if self._inits.get(sandbox_id) != 0:
            return
        try:
            self._unread.extend(iter(partial(self._read, wait=False), None))
        except SupervisorError:
            return  # it is gone, as who reads next will hear
        if self._inits.get(sandbox_id) == 0:
            self._give_up()

    def _give_up(self) -> None:
        """Kill it, of which everybody hears; but the sandboxes first: it may wait for one in a system call
        that no signal ends, as those of file systems of a test's own (FUSE)."""
        for sandbox_id in self._inits:
            self.insist(sandbox_id)
        if self._socket.fileno() >= 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def remember_cgroup(self, path: str) -> None:
        """Have a cgroup directory emptied and removed at the end, whatever ends pytest."""
        self._send(lib.REQUEST_REMEMBER_CGROUP, 0, 0, 0, os.fsencode(path))

    def remember_tree(self, path: str) -> None:
        """Have a directory tree removed at the end, whatever ends pytest."""
        self._send(lib.REQUEST_REMEMBER_TREE, 0, 0, 0, os.fsencode(path))

    def ask_counts(self, sandbox_id: int) -> None:
        """How often each attempt was made; :class:`Counts` will follow, also if the sandbox is gone."""
        self._send(lib.REQUEST_COUNTS, 0, sandbox_id, 0, b"")

    def _send(
        self,
        kind: int,
        op_count: int,
        sandbox_id: int,
        flags: int,
        payload: bytes,
        *,
        inside: int = 0,
        watch: bool = False,
    ) -> None:
        data_bytes = len(payload) - op_count * OP_BYTES
        message = REQUEST.pack(kind, op_count, sandbox_id, flags, data_bytes, watch, inside, 0) + payload
        try:
            try:
                self._socket.send(message, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._await(select.POLLOUT)
                self._socket.send(message)
        except OSError as error:
            raise SupervisorError(f"the supervisor (pid {self.pid}) is gone: {error.strerror}") from error

    def _await(self, event: int) -> None:
        poll = select.poll()
        poll.register(self._socket, event)
        if poll.poll(DESTROY_S * 1000):
            return
        for sandbox_id in self._condemned:
            self.insist(sandbox_id)
        if not poll.poll(ANSWER_S * 1000):
            self._give_up()
            raise SupervisorError(
                f"the supervisor (pid {self.pid}) did not answer within {ANSWER_S:.0f} s, and was killed"
            )

    def receive(self) -> Reply:
        """The next reply; waits for it."""
        return self._unread.popleft() if self._unread else self._read()

    def look_ahead(self, sandbox_id: int, *, until_counts: bool = False) -> list[Attempt | Counts]:
        """What has come of attempts in one sandbox; ``until_counts``: wait for these. Others stay."""
        found: list[Attempt | Counts] = []
        stay: deque[Reply] = deque()
        while True:
            reply = self._unread.popleft() if self._unread else self._read(wait=until_counts)
            if reply is None:
                break
            if isinstance(reply, Attempt | Counts) and reply.sandbox_id == sandbox_id:
                found.append(reply)
            else:
                stay.append(reply)
            if until_counts and isinstance(reply, Counts) and reply.sandbox_id == sandbox_id:
                break
        self._unread.extendleft(reversed(stay))
        return found

    @property
    def has_unread(self) -> bool:
        """Replies that :meth:`receive` gives though there is nothing to read."""
        return bool(self._unread)

    @overload
    def _read(self) -> Reply: ...
    @overload
    def _read(self, *, wait: bool) -> Reply | None: ...

    def _read(self, *, wait: bool = True) -> Reply | None:
        try:
            # Not recv_fds, which forgets the flags (CPython 3.10 to 3.13).
            data, rights, flags, _ = self._socket.recvmsg(REPLY_BYTES, FDS_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if not wait:
                return None
            self._await(select.POLLIN)
            return self._read()
        except OSError as error:
            raise SupervisorError(f"the supervisor (pid {self.pid}) is gone: {error.strerror}") from error
        if len(data) < REPLY.size:
            raise SupervisorError(f"the supervisor (pid {self.pid}) ended unexpectedly")
        kind, op_index, sandbox_id, pid, error_number = REPLY.unpack_from(data)
        if kind == lib.REPLY_READY:
            self._inits[sandbox_id] = pid
            fds = _fds_of(rights)
            if flags & socket.MSG_CTRUNC:  # recvmsg(2): this process may not open that many
                for fd in fds:
                    os.close(fd)
                self.destroy(sandbox_id)
                return Failed(sandbox_id=sandbox_id, born=True, op_index=sys.maxsize, errno=errno.EMFILE)
            return Ready(sandbox_id=sandbox_id, init_pid=pid, fds=fds)
        if kind == lib.REPLY_FAILED:
            self._inits.pop(sandbox_id, None)
            return Failed(sandbox_id=sandbox_id, born=pid > 0, op_index=op_index, errno=error_number)
        if kind == lib.REPLY_ATTEMPT:
            return Attempt.unpack(sandbox_id, op_index, data[REPLY.size :])
        if kind == lib.REPLY_COUNTS:
            times = struct.unpack_from(f"={op_index}I", data, REPLY.size)
            return Counts(sandbox_id=sandbox_id, times=times, more=error_number)
        self._inits.pop(sandbox_id, None)
        self._condemned.discard(sandbox_id)
        return Gone(sandbox_id=sandbox_id)

    def receive_about(self, sandbox_id: int, other: Callable[[Reply], None]) -> Reply:
        """Wait for the next reply about one sandbox, handing those about others to ``other``."""
        while True:
            reply = self.receive()
            if reply.sandbox_id == sandbox_id:
                return reply
            other(reply)

    def forget(self) -> None:
        """In a forked child: drop the connection without ending anything."""
        self._socket.close()

    def close(self) -> None:
        """End the supervisor and wait until it has removed everything. Does nothing in a forked child."""
        if os.getpid() != self.owner_pid or self._socket.fileno() < 0:
            return
        self._socket.close()
        if self._has_ended_within(SHUTDOWN_S):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._has_ended_within(KILL_S)
        raise SupervisorError(f"the supervisor (pid {self.pid}) did not end within {SHUTDOWN_S:.0f} s")

    def _has_ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    return True
            except ChildProcessError:
                return True
            time.sleep(0.001)
        return False


OP_BYTES = 72  # sizeof (struct op), held against the C side by tests/unit/test_wire.py

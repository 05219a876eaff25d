"""pytest's end of the supervisor: the process that makes sandboxes and outlives pytest to clean up."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest_isolate.syscalls
from pytest_isolate.errors import SupervisorError
from pytest_isolate.syscalls._native import lib
from pytest_isolate.syscalls.program import Program

__all__ = ["CONTAINER_INIT", "Failed", "Gone", "Ready", "Supervisor"]

REQUEST = struct.Struct("=IIQQIIII")
REPLY = struct.Struct("=IIQii")
EXECUTABLE = Path(pytest_isolate.syscalls.__file__).with_name("isolate-supervisor")
CONTAINER_INIT = EXECUTABLE.with_name("isolate-init")  #: of containers that an OCI runtime makes
SHUTDOWN_S = 15.0  # more than the supervisor's own patience


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


Reply = Ready | Failed | Gone


class Supervisor:
    """Started once per session. Requests do not wait; :meth:`receive` gives one reply."""

    def __init__(self) -> None:
        self.owner_pid = os.getpid()
        self._next_id = 0
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

    def create(self, clone_flags: int, program: Program, inside: int = 0) -> int:
        """Have a sandbox built; :class:`Ready` or :class:`Failed` with the returned id will follow.

        ``inside``: a process of the caller's in whose user namespace it is made, or 0.
        """
        self._next_id += 1
        op_count, payload = program.pack()
        self._send(lib.REQUEST_CREATE, op_count, self._next_id, clone_flags, payload, inside)
        return self._next_id

    def destroy(self, sandbox_id: int) -> None:
        """Kill the init of a sandbox, and with it all in it; :class:`Gone` will follow."""
        self._send(lib.REQUEST_DESTROY, 0, sandbox_id, 0, b"")

    def remember_cgroup(self, path: str) -> None:
        """Have a cgroup directory emptied and removed at the end, whatever ends pytest."""
        self._send(lib.REQUEST_REMEMBER_CGROUP, 0, 0, 0, os.fsencode(path))

    def remember_tree(self, path: str) -> None:
        """Have a directory tree removed at the end, whatever ends pytest."""
        self._send(lib.REQUEST_REMEMBER_TREE, 0, 0, 0, os.fsencode(path))

    def _send(
        self, kind: int, op_count: int, sandbox_id: int, flags: int, payload: bytes, inside: int = 0
    ) -> None:
        data_bytes = len(payload) - op_count * OP_BYTES
        message = REQUEST.pack(kind, op_count, sandbox_id, flags, data_bytes, 0, inside, 0) + payload
        try:
            self._socket.send(message)
        except OSError as error:
            raise SupervisorError(f"the supervisor (pid {self.pid}) is gone: {error.strerror}") from error

    def receive(self) -> Reply:
        """The next reply; waits for it."""
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, REPLY.size, lib.WIRE_MAX_EXPORTS)
        except OSError as error:
            raise SupervisorError(f"the supervisor (pid {self.pid}) is gone: {error.strerror}") from error
        if len(data) != REPLY.size:
            raise SupervisorError(f"the supervisor (pid {self.pid}) ended unexpectedly")
        kind, op_index, sandbox_id, pid, error_number = REPLY.unpack(data)
        if kind == lib.REPLY_READY:
            return Ready(sandbox_id=sandbox_id, init_pid=pid, fds=tuple(fds))
        if kind == lib.REPLY_FAILED:
            return Failed(sandbox_id=sandbox_id, born=pid > 0, op_index=op_index, errno=error_number)
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
        deadline = time.monotonic() + SHUTDOWN_S
        while time.monotonic() < deadline:
            try:
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    return
            except ChildProcessError:
                return
            time.sleep(0.001)
        raise SupervisorError(f"the supervisor (pid {self.pid}) did not end within {SHUTDOWN_S:.0f} s")


OP_BYTES = 72  # sizeof (struct op), held against the C side by tests/unit/test_wire.py

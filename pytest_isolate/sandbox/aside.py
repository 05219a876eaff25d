"""A program beside pytest that serves its sandboxes, told over a socket, and ended with pytest.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_isolate.errors import SetupError
from pytest_isolate.kernel.process import kill

__all__ = ["CONTROL_FD", "Aside"]

CONTROL_FD = 3  # in the program
ANSWER_BYTES = 2**16
MOST_FDS = 4
SHUTDOWN_S = 5.0


class Aside:
    """Started at once; its program is a file of this package that imports no other."""

    def __init__(self, program: str, *arguments: str) -> None:
        self._owner_pid = os.getpid()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.pid = self._spawn([program, *arguments], theirs.fileno())

    def _spawn(self, command: list[str], fd: int) -> int:
        null = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_RDWR, 0) for n in range(3)]
        # dup2 onto itself would leave close-on-exec set: go by way of another number.
        spare = os.dup(fd)
        actions = [*null, (os.POSIX_SPAWN_DUP2, spare if fd == CONTROL_FD else fd, CONTROL_FD)]
        argv = [sys.executable, "-I", *command]
        try:
            # A session of its own: Ctrl-C is for pytest.
            return os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)
        finally:
            os.close(spare)

    @property
    def is_alive(self) -> bool:
        return self._socket.fileno() >= 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def tell(self, message: Mapping[str, object], fds: Sequence[int] = ()) -> None:
        """Raises ConnectionError if it has died: a broken pipe, or a reset if it left something unread."""
        socket.send_fds(self._socket, [json.dumps(message).encode()], fds)

    def hear(self) -> tuple[dict[str, Any], list[int]]:
        """The next answer, with descriptors; waits for it. Raises SetupError if it has died."""
        data, fds, _, _ = socket.recv_fds(self._socket, ANSWER_BYTES, MOST_FDS)
        if not data:
            why = f"the program beside pytest (pid {self.pid}) has ended; run the test again"
            raise SetupError("ask the program beside pytest", 0, why)
        return json.loads(data), [*fds]

    def forget(self) -> None:
        """In a forked child."""
        self._socket.close()

    def close(self) -> None:
        """End it, and wait until it is gone. Does nothing in a forked child."""
        if os.getpid() != self._owner_pid or not self.is_alive:
            return
        self._socket.close()
        with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored, or somebody else waited for it
            deadline = time.monotonic() + SHUTDOWN_S
            while not os.waitpid(self.pid, os.WNOHANG)[0]:
                if time.monotonic() > deadline:
                    kill(self.pid)
                time.sleep(0.001)

"""Ports of the host for sandboxes: pytest's end of the forwarder, which is started for the first of them.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from pytest_isolate.sandbox.aside import Aside

__all__ = ["Ports"]

PROGRAM = str(Path(__file__).with_name("forwarder.py"))


class Ports:
    def __init__(self) -> None:
        self._forwarder: Aside | None = None
        self._served: set[int] = set()

    def serve(self, sandbox_id: int, forwarded: Sequence[tuple[int, int]], fds: Sequence[int]) -> None:
        """``forwarded``: (port of the host, number of sockets) for the sockets ``fds``, which are closed
        here. Raises OSError."""
        ports = [port for port, count in forwarded for _ in range(count)]
        message = {"do": "add", "sandbox": sandbox_id, "ports": ports}
        try:
            if self._forwarder is None:
                self._forwarder = Aside(PROGRAM)
            try:
                self._forwarder.tell(message, fds)
            except ConnectionError:  # somebody has killed it: sandboxes to come are to have their ports
                self._forwarder.close()
                self._forwarder = Aside(PROGRAM)
                self._forwarder.tell(message, fds)
        finally:
            for fd in fds:
                os.close(fd)
        self._served.add(sandbox_id)

    def end(self, sandbox_id: int) -> None:
        """The sandbox is gone; does nothing if it had no ports."""
        if sandbox_id in self._served:
            self._served.remove(sandbox_id)
            if self._forwarder is not None:
                with contextlib.suppress(OSError):  # it has died, and its sockets with it
                    self._forwarder.tell({"do": "end", "sandbox": sandbox_id})

    def forget(self) -> None:
        """In a forked child."""
        if self._forwarder is not None:
            self._forwarder.forget()

    def close(self) -> None:
        if self._forwarder is not None:
            self._forwarder.close()

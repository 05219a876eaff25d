"""What a child's faulthandler writes: a file in memory, of which each test gets its own part."""

from __future__ import annotations

import os

__all__ = ["Trace"]

MOST_BYTES = 2**16


class Trace:
    """Empty until :meth:`open`; ``fd`` is the child's too."""

    def __init__(self) -> None:
        self.fd = -1
        self._told = 0  # bytes of it that are of earlier tests

    def open(self) -> None:
        self.fd = os.memfd_create("faulthandler")

    def begin_next(self) -> None:
        """What is there by now is of a test that has ended."""
        self._told = os.fstat(self.fd).st_size

    def write(self, text: str) -> None:
        os.write(self.fd, text.encode(errors="replace"))

    def read(self) -> str:
        return os.pread(self.fd, MOST_BYTES, self._told).decode(errors="replace") if self.fd >= 0 else ""

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

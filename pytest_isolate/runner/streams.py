"""What a test says while others run beside it, kept apart from theirs until it is logged.

Captured output goes to files of its own, since pytest's are one for all forks. What is meant for the
terminal (live logs, ``-s``, ``capsys.disabled()``) or the log file is kept too, and shown when the test's
turn comes. A test that stops in a debugger gets the terminal back. The files are memory, of the test's own
cgroup.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from pytest_isolate.runner import pytest_private

__all__ = ["Streams", "flush"]

STDIN, STDOUT, STDERR = 0, 1, 2
PIECE_BYTES = 2**16

#: Those of all tests under way: none of them is another child's business.
_open: set[Streams] = set()


class Streams:
    """Made in pytest before the fork; the child adopts it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._captured = [os.memfd_create("captured") for _ in pytest_private.capture_fds(config)]
        # One file if stdout and stderr are one: then their order counts.
        shown = [STDOUT] if _is_one_file() else [STDOUT, STDERR]
        if (log_fd := pytest_private.log_file_fd(config)) is not None:
            shown.append(log_fd)
        self._shown = {number: os.memfd_create("shown") for number in shown}
        self._told = dict.fromkeys(shown, 0)  # bytes that have been shown
        self._terminal: dict[int, int] = {}  # in the child: what the streams were
        _open.add(self)

    # ---- in the child ---------------------------------------------------------------------------

    def adopt(self, *, stdin: bool) -> None:
        """Say everything to the files. ``stdin``: the test may still read pytest's, as a debugger does."""
        for other in _open - {self}:
            other.close()
        pytest_private.share_capture(self._config, self._captured)
        for number, fd in {STDERR: self._shown[STDOUT], **self._shown}.items():
            self._divert(number, fd)
        for fd in self._shown.values():
            os.close(fd)
        if not stdin:
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._divert(STDIN, null)
            os.close(null)

    def _divert(self, number: int, fd: int) -> None:
        saved = pytest_private.uncaptured_fd(self._config, number) if number <= STDERR else None
        for stream in (number, saved) if saved is not None else (number,):
            self._terminal[stream] = os.dup(stream)
            os.dup2(fd, stream, inheritable=stream <= STDERR)

    def release(self) -> None:
        """What was meant for the terminal is shown there, and so is what comes."""
        for number in self._shown:
            for piece in _pieces(number):
                _write(self._terminal[number], piece)
            os.ftruncate(number, 0)
        while self._terminal:
            stream, fd = self._terminal.popitem()
            os.dup2(fd, stream, inheritable=stream <= STDERR)
            os.close(fd)

    # ---- in pytest ------------------------------------------------------------------------------

    def read_captured(self) -> tuple[str, str]:
        """(out, err) that no report of the test has; for one that died."""
        texts = [_read(fd) for fd in self._captured]
        return (texts[0], texts[1]) if texts else ("", "")

    def show(self) -> None:
        """What was meant for the terminal and the log file, and is not there yet."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, fd in self._shown.items():
            for piece in _pieces(fd, self._told[number]):
                _write(number, piece)
                self._told[number] += len(piece)

    def close(self) -> None:
        for fd in (*self._captured, *self._shown.values()):
            os.close(fd)
        self._captured, self._shown = [], {}
        _open.discard(self)


def _is_one_file() -> bool:
    try:
        return os.path.sameopenfile(STDOUT, STDERR)
    except OSError:
        return False  # one is closed


def _read(fd: int) -> str:
    return b"".join(_pieces(fd)).decode("utf-8", "replace")


def _pieces(fd: int, at: int = 0) -> Iterator[bytes]:
    while piece := os.pread(fd, PIECE_BYTES, at):
        yield piece
        at += len(piece)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def flush() -> None:
    """What Python has not written yet."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()  # type: ignore[union-attr]
        except (OSError, ValueError, AttributeError):
            continue  # closed, or none

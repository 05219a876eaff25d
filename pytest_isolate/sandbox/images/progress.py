"""How far a pull is, for people: one live line on a terminal, one line at the end elsewhere."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, TextIO

from pytest_isolate.sandbox.images.manifest import Descriptor
from pytest_isolate.units import format_duration, format_size

__all__ = ["Progress", "ProgressLine"]

_REDRAW_S = 0.1


class Progress(Protocol):
    """Called by several threads."""

    def begin(self, blobs: Sequence[Descriptor]) -> None:
        """These are wanted, those that are there already included."""

    def start(self, descriptor: Descriptor, have_bytes: int) -> None:
        """A blob starts to arrive after ``have_bytes`` that are there; perhaps more than once."""

    def advance(self, digest: str, n_bytes: int) -> None: ...

    def done(self, digest: str) -> None:
        """The blob is in the store."""


class ProgressLine:
    """``with ProgressLine(sys.stderr, str(reference)) as progress: pull(…, progress=progress)``"""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._live = stream.isatty()
        self._lock = threading.Lock()
        self._size_bytes: dict[str, int] = {}
        self._have_bytes: dict[str, int] = {}
        self._done: set[str] = set()
        self._received_bytes = 0
        self._started_s = time.monotonic()
        self._drawn_s = 0.0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The error says what went wrong; of a success one line stays."""
        with self._lock:
            took_s = time.monotonic() - self._started_s
            text = f"pulled {self._name}: {format_size(self._received_bytes)} in {format_duration(took_s)}\n"
            self._stream.write(("\r\033[K" if self._live else "") + ("" if kind else text))
            self._stream.flush()

    def begin(self, blobs: Sequence[Descriptor]) -> None:
        with self._lock:
            self._size_bytes.update((blob.digest, blob.size_bytes) for blob in blobs)
            self._draw()

    def start(self, descriptor: Descriptor, have_bytes: int) -> None:
        with self._lock:
            self._have_bytes[descriptor.digest] = have_bytes
            self._draw()

    def advance(self, digest: str, n_bytes: int) -> None:
        with self._lock:
            self._have_bytes[digest] = self._have_bytes.get(digest, 0) + n_bytes
            self._received_bytes += n_bytes
            self._draw()

    def done(self, digest: str) -> None:
        with self._lock:
            self._have_bytes[digest] = self._size_bytes.get(digest, 0)
            self._done.add(digest)
            self._draw()

    def line(self) -> str:
        have, size = sum(self._have_bytes.values()), sum(self._size_bytes.values())
        rate = self._received_bytes / max(time.monotonic() - self._started_s, 0.001)
        return (
            f"{self._name}: {len(self._done)}/{len(self._size_bytes)} blobs, "
            f"{format_size(have)} of {format_size(size)}, {format_size(int(rate))}/s"
        )

    def _draw(self) -> None:
        now = time.monotonic()
        if self._live and now - self._drawn_s >= _REDRAW_S:
            self._drawn_s = now
            width = shutil.get_terminal_size().columns - 1  # the last column would wrap
            self._stream.write("\r\033[K" + self.line()[:width])
            self._stream.flush()

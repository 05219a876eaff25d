"""Threads of Python that outlive their test."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from pytest_isolate.violation import Kind, Violation

__all__ = ["Threads"]

#: How long a thread may take to end by itself: who has told one to stop need not wait for it.
GRACE_S = 0.1


class Threads:
    def __init__(self) -> None:
        self._before: set[threading.Thread] = set()

    def begin(self) -> None:
        self._before = set(threading.enumerate())

    def found(self) -> Iterator[Violation]:
        deadline = time.monotonic() + GRACE_S
        while (left := set(threading.enumerate()) - self._before) and time.monotonic() < deadline:
            time.sleep(0.001)
        for thread in sorted(left, key=lambda thread: thread.name):
            target = getattr(thread, "_target", None)
            name = getattr(target, "__qualname__", "") or type(thread).__qualname__
            yield Violation(
                kind=Kind.THREADS,
                what=f"left a thread that runs {name}",
                where=f"thread {thread.name}",
                cure='allow=["threads"]',
            )

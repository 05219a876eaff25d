"""Threads of Python that outlive their test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from pytest_isolate.runner.observe import audit
from pytest_isolate.violation import Kind, Violation

__all__ = ["Threads"]

#: How long a thread may take to end by itself: who has told one to stop need not wait for it.
GRACE_S = 0.1
#: Modules whose threads end by themselves, when their process does or some time after they were used.
HARMLESS = ("multiprocessing.", "trio.", "coverage.", "pytest_timeout", "execnet.", "hypothesis.")
POOL = ("concurrent.futures.thread", "_worker")


class Threads:
    def __init__(self) -> None:
        self._before: set[threading.Thread] = set()
        self._places: WeakKeyDictionary[threading.Thread, str] = WeakKeyDictionary()
        audit.listen("_thread.start_new_thread", self._started)  # since Python 3.12
        audit.listen("_thread.start_joinable_thread", self._started)  # by threading since Python 3.13

    def begin(self) -> None:
        self._before = set(threading.enumerate())

    def aside(self) -> Callable[[], None]:
        before = set(threading.enumerate())
        return lambda: self._before.update(set(threading.enumerate()) - before)

    def found(self) -> Iterator[Violation]:
        deadline = time.monotonic() + GRACE_S
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.001)
        for thread in sorted(left, key=lambda thread: thread.name):
            yield Violation(
                kind=Kind.THREADS,
                what=f"left {_describe(thread)}",
                where=self._places.get(thread) or _definition(thread) or f"thread {thread.name}",
                cure='allow=["threads"]',
            )

    def _left(self) -> list[threading.Thread]:
        if threading.active_count() <= len(self._before) and self._before.issuperset(threading.enumerate()):
            return []
        new = set(threading.enumerate()) - self._before
        return [
            thread
            for thread in new
            # A dummy stands for a thread that is not Python's.
            if not isinstance(thread, threading._DummyThread)
            and not (_target_of(thread)[0] + ".").startswith(HARMLESS)
        ]

    def _started(self, args: tuple[Any, ...]) -> None:
        thread = getattr(args[0], "__self__", None)  # of Thread._bootstrap
        if isinstance(thread, threading.Thread) and (place := audit.place()):
            self._places[thread] = place


def _definition(thread: threading.Thread) -> str:
    """Where that is which it runs: before Python 3.12 nobody tells where a thread is started."""
    code = getattr(getattr(thread, "_target", None) or type(thread).run, "__code__", None)
    return "" if code is None else audit.place_of(code.co_filename, code.co_firstlineno, code.co_name)


def _target_of(thread: threading.Thread) -> tuple[str, str]:
    """Module and name of what a thread runs."""
    target = getattr(thread, "_target", None)
    if target is None:
        return type(thread).__module__, type(thread).__qualname__
    module = getattr(target, "__module__", None)
    return module or type(target).__module__, getattr(target, "__qualname__", type(target).__qualname__)


def _describe(thread: threading.Thread) -> str:
    target = _target_of(thread)
    return "a thread of a ThreadPoolExecutor" if target == POOL else f"a thread that runs {target[1]}"

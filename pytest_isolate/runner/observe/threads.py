"""Threads of Python that outlive their test."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, WeakSet

from pytest_isolate.kernel.leftover import await_end
from pytest_isolate.runner import cures
from pytest_isolate.runner.definition import line_of_def
from pytest_isolate.runner.observe import audit
from pytest_isolate.violation import Kind, Violation

__all__ = ["Threads"]

#: Modules whose threads end by themselves, when their process does or some time after they were used.
HARMLESS = ("multiprocessing.", "trio.", "coverage.", "pytest_timeout", "execnet.", "hypothesis.")
POOL = ("concurrent.futures.thread", "_worker")


class Threads:
    def __init__(self) -> None:
        self._before: set[threading.Thread] = set()
        self._places: WeakKeyDictionary[threading.Thread, str] = WeakKeyDictionary()
        self._pools: WeakSet[ThreadPoolExecutor] = WeakSet()  # made by the test
        audit.listen("_thread.start_new_thread", self._started)  # since Python 3.12
        audit.listen("_thread.start_joinable_thread", self._started)  # by threading since Python 3.13
        self._make = ThreadPoolExecutor.__init__
        self._make_noted = self._noting(self._make)

    def enter(self) -> None:
        """Hear of pools as they are made, in the test's own process alone. One that was there before starts
        its threads when a test gives it work, and they are not the test's; but no audit event tells, nor does
        a pool know its age."""
        if ThreadPoolExecutor.__init__ is not self._make:  # another plugin's, of later
            self._make_noted = self._noting(ThreadPoolExecutor.__init__)
        ThreadPoolExecutor.__init__ = self._make_noted  # type: ignore[method-assign]

    def _noting(self, make: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(make)
        def __init__(pool: ThreadPoolExecutor, *args: Any, **kwargs: Any) -> None:
            make(pool, *args, **kwargs)
            self._pools.add(pool)

        return __init__

    def begin(self) -> None:
        self._before = _others()
        if self._pools:
            self._pools.clear()

    def aside(self) -> Callable[[], Callable[[], None]]:
        before, pools = _others(), set(self._pools)

        def end() -> Callable[[], None]:
            new = _others() - before
            self._before |= new
            self._pools &= pools
            return lambda: self._before.difference_update(new)

        return end

    def found(self) -> Iterator[Violation]:
        left = await_end(self._left, _numbers)  # who has told one to stop need not wait for it
        for thread in sorted(left, key=lambda thread: thread.name):
            yield Violation(
                kind=Kind.THREADS,
                what=f"left {_describe(thread)}",
                where=self._places.get(thread) or _definition(thread) or f"thread {thread.name}",
                cure=cures.allow(Kind.THREADS),
            )

    def _left(self) -> list[threading.Thread]:
        return [
            thread
            for thread in _others() - self._before
            # A dummy stands for a thread that is not Python's.
            if not isinstance(thread, threading._DummyThread)
            and not (_target_of(thread)[0] + ".").startswith(HARMLESS)
            and not self._is_of_older_pool(thread)
        ]

    def _is_of_older_pool(self, thread: threading.Thread) -> bool:
        if _target_of(thread) != POOL:
            return False
        first, *_ = getattr(thread, "_args", None) or [None]
        pool = first() if isinstance(first, ReferenceType) else None
        return isinstance(pool, ThreadPoolExecutor) and pool not in self._pools

    def _started(self, args: tuple[Any, ...]) -> None:
        thread = getattr(args[0], "__self__", None)  # of Thread._bootstrap
        if isinstance(thread, threading.Thread) and (place := audit.place()):
            self._places[thread] = place


def _others() -> set[threading.Thread]:
    """But for the caller, which runs the test; nearly all tests have no other."""
    if threading.active_count() == 1:
        return set()
    return {*threading.enumerate()} - {threading.current_thread()}


def _numbers(threads: Iterable[threading.Thread]) -> Iterator[int]:
    return (thread.native_id for thread in threads if thread.native_id is not None)


def _definition(thread: threading.Thread) -> str:
    """Where that is which it runs: before Python 3.12 nobody tells where a thread is started."""
    code = getattr(getattr(thread, "_target", None) or type(thread).run, "__code__", None)
    if code is None:
        return ""
    lineno = line_of_def(code.co_filename, code.co_firstlineno, code.co_name)
    return audit.place_of(code.co_filename, lineno, code.co_name)


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

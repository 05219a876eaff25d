"""A small event loop: descriptors and deadlines. One child in flight or many is the same code."""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections.abc import Callable
from typing import Protocol

from pytest_isolate.kernel import interrupts

__all__ = ["HasFileno", "Loop", "Timer"]

#: poll(2) that takes longer has waited: what is ready then has become so just now.
WAITED_S = 0.001


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Timer:
    """Cancelled by :meth:`cancel`; never runs afterwards."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """poll(2) and not epoll: no descriptor of its own that a fork would share."""

    def __init__(self) -> None:
        self._selector = selectors.PollSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._polled_s = 0.0
        self.quiet_s = 0.0  #: by CLOCK_MONOTONIC: what is ready now was not ready then

    def watch(self, source: HasFileno | int, callback: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, callback)

    def unwatch(self, source: HasFileno | int) -> None:
        """Does nothing if ``source`` is not watched."""
        try:
            self._selector.unregister(source)
        except KeyError:
            return

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), timer))
        return timer

    def run_until(self, done: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Or until so much time is over."""
        timer = Timer(lambda: None) if timeout_s is None else self.call_later(timeout_s, lambda: None)
        while not done() and timer.callback is not None:
            self.run_once()
        timer.cancel()

    def run_once(self, *, wait: bool = True) -> None:
        """Run what the next events and deadlines call for, and wait for the first unless told not to."""
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        timeout = self._timers[0][0] - time.monotonic() if self._timers else None
        timeout = timeout if wait else 0.0
        asked_s = time.monotonic()
        with interrupts.waiting():
            events = self._selector.select(timeout if timeout is None else max(timeout, 0))
        answered_s = time.monotonic()
        self.quiet_s = answered_s if answered_s - asked_s > WAITED_S else self._polled_s
        self._polled_s = answered_s
        for key, _ in events:
            if key.fd in self._selector.get_map():  # an earlier callback may have dropped it
                key.data()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                callback, timer.callback = timer.callback, None
                callback()

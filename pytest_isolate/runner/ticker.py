"""What runs now, on a line below the progress, while pytest waits for a slow test. On a terminal only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import pytest

from pytest_isolate.runner import pytest_private
from pytest_isolate.sandbox.loop import Loop, Timer

__all__ = ["Ticker"]

FIRST_S = 1.0  #: nobody wants to read of tests that are over by then
EVERY_S = 1.0
SHOWN = 4  #: tests

CLEAR_LINE = "\033[2K"
UP = "\033[A"


class Ticker:
    """``running``: the tests under way, and when each was started (of ``time.time``)."""

    def __init__(
        self, config: pytest.Config, loop: Loop, running: Callable[[], Iterable[tuple[str, float]]]
    ) -> None:
        self._terminal = pytest_private.terminal(config)
        self._loop = loop
        self._running = running
        self._timer: Timer | None = None
        self._shown = False

    def start(self) -> None:
        if self._terminal is not None:
            self._timer = self._loop.call_later(FIRST_S, self._tick)

    def stop(self) -> None:
        """Nothing is left of the line."""
        if self._timer is not None:
            self._timer.cancel()
        if self._shown:
            self._write("")
            self._shown = False

    def _tick(self) -> None:
        now = time.time()
        tests = [f"{name} {now - start:.0f} s" for name, start in self._running()]
        self._timer = self._loop.call_later(EVERY_S, self._tick)
        if not tests:
            return
        more = f" and {len(tests) - SHOWN} more" if len(tests) > SHOWN else ""
        self._write(f"running: {', '.join(tests[:SHOWN])}{more}")
        self._shown = True

    def _write(self, text: str) -> None:
        assert self._terminal is not None
        columns = self._terminal.column
        back = f"\033[{columns}C" if columns else ""
        # Not by saving the cursor's place: on the last line of the screen all scrolls up.
        self._terminal.write(f"\n{CLEAR_LINE}{text[: self._terminal.width - 1]}{UP}\r{back}")

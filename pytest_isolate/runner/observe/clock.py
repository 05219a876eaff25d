"""How long a test slept: information, and no violation. Python tells since 3.13."""

from __future__ import annotations

import sys
from typing import Any

from pytest_isolate.runner.observe import audit

__all__ = ["IS_TOLD", "Clock"]

IS_TOLD = sys.version_info >= (3, 13)


class Clock:
    """``time.sleep`` in all threads of the test's own process, as asked for."""

    def __init__(self) -> None:
        self.slept_s = 0.0
        audit.listen("time.sleep", self._sleep)

    def begin(self) -> None:
        self.slept_s = 0.0

    def _sleep(self, args: tuple[Any, ...]) -> None:
        seconds = args[0]
        if isinstance(seconds, (int, float)) and seconds > 0:
            self.slept_s += seconds

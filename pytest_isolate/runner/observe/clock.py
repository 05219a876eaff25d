"""How long a test slept, and how often it asked for the time of day: information, and no violation.

Told is what Python's own functions were asked for, whoever asked: the test, or a library for it, such as
``logging`` for the time of a record. Not what pytest asks around a phase.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime
from functools import cache

from pytest_isolate.syscalls._native import ffi, lib

__all__ = ["Clock", "is_told"]

READS_OF_PYTEST = 1  #: CallInfo.from_call (_pytest/runner.py), from the end of a phase to its report
# date.today and datetime.today ask time.time.
FUNCTIONS: dict[int, Callable[..., object]] = {
    lib.CLOCK_SLEEP: time.sleep,
    lib.CLOCK_TIME: time.time,
    lib.CLOCK_TIME_NS: time.time_ns,
    lib.CLOCK_LOCALTIME: time.localtime,
    lib.CLOCK_GMTIME: time.gmtime,
    lib.CLOCK_CTIME: time.ctime,
    lib.CLOCK_NOW: datetime.now,
    lib.CLOCK_UTCNOW: datetime.utcnow,
}


@cache
def is_told() -> bool:
    """Whether this Python has its functions where they can be counted. From now on they are."""
    if sys.implementation.name != "cpython":
        return False
    counted = [_count(function, which) for which, function in FUNCTIONS.items()]
    return all(counted)


class Clock:
    """Of the process: the counts begin in it, and forks of it have their own."""

    def __init__(self) -> None:
        is_told()  # before the forks
        self._counts = lib.isolate_clock_counts()
        self._has_begun = False

    def begin(self) -> None:
        if self._has_begun:
            self._counts.reads, self._counts.slept_s = 0, 0.0
        self._has_begun = True

    def during(self, is_phase: bool) -> None:
        """What comes now is a phase of the test, with its fixtures; or its report, for which pytest has asked
        when it ended."""
        if self._counts.is_on and not is_phase:
            self._counts.reads -= min(self._counts.reads, READS_OF_PYTEST)
        self._counts.is_on = is_phase

    @property
    def slept_s(self) -> float:
        """As asked for."""
        return float(self._counts.slept_s)

    @property
    def reads(self) -> int:
        return int(self._counts.reads)


def _count(function: Callable[..., object], which: int) -> bool:
    if type(function) is not type(len):  # somebody has put another in its place, as freezegun does
        return False
    address, of_type = ffi.cast("void *", id(function)), ffi.cast("void *", id(type(function)))
    return bool(lib.isolate_count_clock(address, of_type, function.__name__.encode(), which) == 0)

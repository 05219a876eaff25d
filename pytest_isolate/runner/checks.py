"""What a report must be before anybody hears of it: reporters take its fields for what pytest makes them.

A child may say anything. What a plugin may have made, and plain pytest would only print, stays.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from pytest_isolate.errors import ChannelError
from pytest_isolate.runner.record import PREFIX
from pytest_isolate.sandbox.messages import Report

__all__ = ["check", "is_complete"]

PHASES = ("setup", "call", "teardown")
OUTCOMES = ("passed", "failed", "skipped")
#: Seconds. A clock that a test has set may be off by decades.
LONGEST = 1e12


def check(report: pytest.TestReport, item: pytest.Item) -> pytest.TestReport:
    """The report, in which nothing makes a reporter stumble. Raises whatever comes to mind of Python."""
    if report.when not in PHASES:
        raise _refused("the phase", report.when)
    if report.outcome not in OUTCOMES and not _is_known(report, item.config):
        raise _refused("the outcome", report.outcome)
    for name, value in vars(report).items():
        if callable(getattr(type(report), name, None)):  # an attribute would be found in the method's place
            raise _refused(f"its own {name}", value)
    report.duration = max(_seconds(report.duration), 0)
    for name in ("start", "stop"):  # since pytest 7.3
        _seconds(getattr(report, name, 0.0))
    if type(getattr(report, "rerun", 0)) is not int:
        raise _refused("the attempt", report.rerun)
    if report.location is not item.location:
        _check_location(report.location)
    report.sections = [(str(title), str(text)) for title, text in report.sections]
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in report.user_properties):
        raise _refused("the properties", report.user_properties)
    # A test could give itself properties of the names that its record has.
    report.user_properties = [pair for pair in report.user_properties if not str(pair[0]).startswith(PREFIX)]
    if type(report) is not pytest.TestReport:
        str(report.head_line)  # which is made of what a subtest says of itself
    if hasattr(report, "wasxfail"):
        report.wasxfail = str(report.wasxfail)
    if not report.passed:
        _check_failure(report, item)
    return report


def _refused(what: str, value: object) -> ChannelError:
    return ChannelError(f"a report with {what} {repr(value)[:80]}")


def _is_known(report: pytest.TestReport, config: pytest.Config) -> bool:
    """Whether some plugin has a letter for the outcome, as pytest-rerunfailures for "rerun"."""
    if not isinstance(report.outcome, str):
        return False
    status = config.hook.pytest_report_teststatus(report=report, config=config)
    # That of pytest's own, for what nobody knows (terminal.py).
    return status is not None and tuple(status) != (report.outcome, "F", report.outcome.upper())


def _seconds(value: Any) -> float:
    if type(value) not in (float, int) or not -LONGEST < value < LONGEST:
        raise _refused("the time", value)
    return float(value)


def _check_location(location: Any) -> None:
    path, lineno, name = location
    if not isinstance(path, str) or type(lineno) not in (int, type(None)) or not isinstance(name, str):
        raise _refused("the place", location)


def _check_failure(report: pytest.TestReport, item: pytest.Item) -> None:
    longrepr: Any = report.longrepr
    if report.skipped and not hasattr(report, "wasxfail"):
        if not isinstance(longrepr, tuple):  # of a plugin that has turned a failure into a skip
            path, lineno, _ = item.location
            longrepr = report.longrepr = (path, (lineno or 0) + 1, report.longreprtext)
        _check_location(longrepr)
    elif longrepr is None:
        report.longrepr = ""  # which JUnit XML can have
    elif hasattr(longrepr, "toterminal"):
        crash = getattr(longrepr, "reprcrash", None)
        if crash is not None:
            _check_location((crash.path, crash.lineno, crash.message))
        _ = report.longreprtext  # raises here what it would in the terminal


def is_complete(item: pytest.Item, messages: Iterable[object]) -> bool:
    """Whether these have a report of each phase that pytest's protocol has come to, in its last attempt."""
    outcomes: dict[object, object] = {}
    for message in messages:
        if isinstance(message, Report):
            when = message.data.get("when")
            if when == "setup":
                outcomes = {}
            outcomes[str(when)] = message.data.get("outcome")
    needed = {"setup", "teardown"}
    if outcomes.get("setup") == "passed" and not item.config.getoption("setuponly", False):
        needed.add("call")
    return needed <= outcomes.keys()

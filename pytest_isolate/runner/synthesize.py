"""From how a child ended to reports, where the child could not make them itself."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from typing import Literal

import pytest

from pytest_isolate.outcome import (
    ChannelBroken,
    Completed,
    CpuTimeExceeded,
    Exited,
    Outcome,
    OutOfMemory,
    SetupFailed,
    Signaled,
    TimedOut,
    signal_name,
)
from pytest_isolate.runner import pytest_private
from pytest_isolate.sandbox.plan import DEFAULT_TMP_SIZE_BYTES
from pytest_isolate.spec import Limits
from pytest_isolate.units import format_duration, format_size
from pytest_isolate.usage import Usage

__all__ = [
    "READ_OPTIONS",
    "Ending",
    "complete",
    "explain",
    "explain_limits",
    "late_failure",
    "reason_of",
    "refusal",
]

READ_OPTIONS = "read the options"  #: the step that failed if they are wrong
Phase = Literal["setup", "call", "teardown"]
PHASES: tuple[Phase, ...] = ("setup", "call", "teardown")
OUR_FRAMES = (
    "/_pytest/",
    "/pluggy/",
    "/pytest/",
    "/pytest_isolate/",
    '"<frozen runpy>"',
    "/runpy.py",
    "/bin/pytest",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What is known about a child that did not end as it should."""

    outcome: Outcome
    trace: str = ""  #: of faulthandler, or of an exception that nobody caught
    out: str = ""  #: captured and not yet reported
    err: str = ""
    duration_s: float = 0.0


def explain(outcome: Outcome) -> str:
    """One line: what a person needs to know, and what cures it."""
    match outcome:
        case Completed():
            return "completed"
        case Exited(status):
            return (
                f"the test's process ended with exit status {status} before the test did: "
                "os._exit, or a program it was replaced with (exec)"
            )
        case Signaled(number):
            return f"killed by {signal_name(number)}"
        case TimedOut(timeout_s):
            return (
                f"timeout {format_duration(timeout_s)}: the test was killed; "
                "raise it with @pytest.mark.isolated(timeout=…)"
            )
        case CpuTimeExceeded(limit_s, used_s):
            return (
                f"cpu time limit {format_duration(limit_s)} exceeded ({format_duration(used_s)} used): "
                "the test was killed; raise it with @pytest.mark.isolated(cpu_time=…)"
            )
        case OutOfMemory():
            return _explain_out_of_memory(outcome)
        case SetupFailed(_, _, message):
            return message
        case ChannelBroken(reason):
            return f"the report channel broke: {reason}"


def _explain_out_of_memory(outcome: OutOfMemory) -> str:
    limit = "" if outcome.limit_bytes is None else f" {format_size(outcome.limit_bytes)}"
    peak = "" if outcome.peak_bytes is None else f"peak {format_size(outcome.peak_bytes)}, "
    killed = f"{outcome.killed} process{'es' if outcome.killed != 1 else ''} killed"
    return (
        f"memory limit{limit} exceeded: killed by the kernel ({peak}{killed}); "
        "raise it with @pytest.mark.isolated(memory=…)"
    )


def reason_of(outcome: Outcome) -> str:
    """The word for machines; of a completed test its reports decide."""
    match outcome:
        case Completed():
            return "completed"
        case Exited():
            return "exited"
        case Signaled():
            return "signal"
        case TimedOut():
            return "timeout"
        case CpuTimeExceeded():
            return "cpu_time"
        case OutOfMemory():
            return "oom"
        case SetupFailed(step):
            return "options" if step == READ_OPTIONS else "setup"
        case ChannelBroken():
            return "channel"


def complete(
    item: pytest.Item, reports: list[pytest.TestReport], ending: Ending, phase: str = ""
) -> list[pytest.TestReport]:
    """The child's reports and those that are missing, so that each phase that plain pytest would report is
    reported, and the ending shows as one failure: in ``phase`` if that is known, else in the first without a
    report."""
    if isinstance(ending.outcome, Completed):
        return reports
    for passed in PHASES[: PHASES.index(phase)] if phase in PHASES else ():
        if passed not in _last_attempt(reports):
            reports = [*reports, _report(item, passed, "passed")]
    phases = _last_attempt(reports)
    failed_phase = next((phase for phase in PHASES if phase not in phases), None)
    if failed_phase is None or (isinstance(ending.outcome, OutOfMemory) and "call" in phases):
        # All is reported, and nothing of it says what the kernel did.
        failed_phase = "call" if isinstance(ending.outcome, OutOfMemory) else "teardown"
        reports = [r for r in reports if r is not phases[failed_phase] or r.failed]
        if phases[failed_phase].failed:
            failed = phases[failed_phase]
            failed.longrepr = _long_repr(item, ending)
            failed.sections += _sections(ending, failed_phase)
            return reports
    failure = _failure(item, failed_phase, ending, phases)
    at = (
        reports.index(phases["teardown"]) if "teardown" in phases and failed_phase == "call" else len(reports)
    )
    reports = [*reports[:at], failure, *reports[at:]]
    if failed_phase != "teardown" and "teardown" not in phases:
        reports.append(_report(item, "teardown", "passed", sections=list(failure.sections)))
    return reports


def late_failure(item: pytest.Item, outcome: Outcome) -> pytest.TestReport:
    """Of a process that waited for another test, and did not end as it should."""
    return _failure(item, "teardown", Ending(outcome=outcome), {})


def explain_limits(reports: list[pytest.TestReport], limits: Limits, usage: Usage) -> None:
    """A failed test says of which limit an error is that Python tells as the machine's: EAGAIN of fork and of
    a new thread, ENOSPC of a write."""
    for report in reports:
        if report.failed:
            found = (_refused_forks(limits, usage), _no_space(limits, usage, report.longreprtext))
            report.sections += [("isolate", text) for text in found if text]


def _refused_forks(limits: Limits, usage: Usage) -> str:
    refused = usage.pids_refused
    if not refused or limits.pids is None:
        return ""
    times = "1 fork or thread was" if refused == 1 else f"{refused} forks or threads were"
    return f"pids limit {limits.pids} reached: {times} refused; raise it with @pytest.mark.isolated(pids=…)"


def _no_space(limits: Limits, usage: Usage, failure: str) -> str:
    size = f"tmp_size {format_size(limits.tmp_size_bytes or DEFAULT_TMP_SIZE_BYTES)}"
    cure = "raise it with @pytest.mark.isolated(tmp_size=…)"
    if usage.tmp_free_bytes == 0:
        return f"{size} reached; {cure}"
    if usage.tmp_free_bytes is not None and os.strerror(errno.ENOSPC) in failure:
        return f"no space left: perhaps of {size}, which was not full at the end; {cure}"
    return ""


def refusal(item: pytest.Item, message: str, *, skip: bool = False) -> list[pytest.TestReport]:
    """Reports of a test that was not run at all."""
    path, lineno, _ = item.location
    line = (lineno or 0) + 1
    setup = _report(item, "setup", "skipped" if skip else "failed")
    if skip:
        setup.longrepr = (path, line, f"Skipped: {message}")
    else:
        setup.longrepr = pytest_private.long_repr(path, line, message, message)
    return [setup, _report(item, "teardown", "passed")]


def _last_attempt(reports: list[pytest.TestReport]) -> dict[str, pytest.TestReport]:
    """The phases since the last setup: plugins that run a test again report each attempt."""
    phases: dict[str, pytest.TestReport] = {}
    for report in reports:
        if report.when == "setup":
            phases = {}
        if report.when is not None and type(report) is pytest.TestReport:
            phases[report.when] = report
    return phases


def _failure(
    item: pytest.Item, phase: Phase, ending: Ending, phases: dict[str, pytest.TestReport]
) -> pytest.TestReport:
    report = _report(item, phase, "failed", sections=_sections(ending, phase), duration_s=ending.duration_s)
    earlier = [*phases.values()]
    if earlier:
        report.user_properties = list(earlier[-1].user_properties)
        report.sections = [*earlier[-1].sections, *report.sections]
    report.longrepr = _long_repr(item, ending)
    if phase != "teardown" and not isinstance(ending.outcome, SetupFailed):
        reason = pytest_private.xfail_reason(item)
        if reason is not None:
            report.outcome = "skipped"
            report.wasxfail = reason
    return report


def _long_repr(item: pytest.Item, ending: Ending) -> pytest_private.LongRepr:
    path, lineno, _ = item.location
    text = explain(ending.outcome)
    return pytest_private.long_repr(path, (lineno or 0) + 1, text.split("\n", 1)[0], text)


def _sections(ending: Ending, phase: Phase) -> list[tuple[str, str]]:
    sections = [
        (f"Captured stdout {phase}", ending.out),
        (f"Captured stderr {phase}", ending.err),
        ("Captured faulthandler", _without_our_frames(ending.trace)),
    ]
    return [(title, text) for title, text in sections if text]


def _without_our_frames(trace: str) -> str:
    """faulthandler prints innermost first: the last frames of a thread say how pytest got to the test."""
    kept: list[str] = []
    for line in trace.splitlines(keepends=True):
        if not line.startswith("  File "):
            _drop_our_frames(kept)
        kept.append(line)
    _drop_our_frames(kept)
    return "".join(kept)


def _drop_our_frames(lines: list[str]) -> None:
    end = len(lines)
    while end and lines[end - 1].startswith("  File ") and any(part in lines[end - 1] for part in OUR_FRAMES):
        end -= 1
    if end and lines[end - 1].startswith("  File "):  # else nothing would be left of the thread
        del lines[end:]


def _report(
    item: pytest.Item,
    when: Phase,
    outcome: Literal["passed", "failed", "skipped"],
    *,
    sections: list[tuple[str, str]] | None = None,
    duration_s: float = 0.0,
) -> pytest.TestReport:
    now = time.time()
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome=outcome,
        longrepr=None,
        when=when,
        sections=sections or [],
        duration=duration_s,
        start=now - duration_s,
        stop=now,
        user_properties=list(item.user_properties),
    )

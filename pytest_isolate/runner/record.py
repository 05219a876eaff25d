"""One test's record: what it used, how it ended and what was enforced, as properties of its reports.

Properties are the one channel to all reporters: they survive xdist, and JUnit shows them as they are.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from pytest_isolate.evidence import Evidence
from pytest_isolate.outcome import Completed, Outcome, Signaled, signal_name
from pytest_isolate.runner.synthesize import reason_of
from pytest_isolate.usage import Usage
from pytest_isolate.violation import Violation

__all__ = ["NEVER_RAN", "PREFIX", "SCHEMA", "attach", "attach_more", "record_of"]

PREFIX = "isolate."
SCHEMA = 1
#: Reasons of tests that were in no sandbox.
NEVER_RAN = ("setup", "options")
#: Fields that are not a number or a word travel as JSON.
STRUCTURED = ("artifacts", "declared", "enforced", "violations", "escapes", "stages")


def attach(
    reports: Iterable[pytest.TestReport],
    *,
    outcome: Outcome,
    usage: Usage,
    evidence: Evidence,
    violations: Iterable[Violation] | None = None,
    worker: str,
    kept: str | None = None,
    sandbox: str | None = None,
    start_ts: float,
) -> None:
    """Add a property ``isolate.<field>`` to every report for each field that was measured."""
    reports = list(reports)
    final = _final_outcome(reports)
    reason = reason_of(outcome)
    if isinstance(outcome, Completed):
        reason = "failed" if final in ("failed", "error") else "skipped" if final == "skipped" else "passed"
    fields: dict[str, Any] = {
        "schema": SCHEMA,
        "outcome": final,
        "reason": reason,
        "signal": signal_name(outcome.signal) if isinstance(outcome, Signaled) else None,
        **{field.name: _rounded(getattr(usage, field.name)) for field in dataclasses.fields(Usage)},
        "violations": None if violations is None else _json([v.to_dict() for v in violations]),
        "enforced": _json(evidence.to_dict()),
        "worker": worker,
        "sandbox": sandbox,
        "kept": kept,
        "start_ts": round(start_ts, 3),
    }
    # pytest keeps every report: the names at least are the same strings for all of them.
    properties = [(sys.intern(PREFIX + name), value) for name, value in fields.items() if value is not None]
    for report in reports:
        # A test could give itself properties of these names.
        own = [(name, value) for name, value in report.user_properties if not str(name).startswith(PREFIX)]
        report.user_properties = [*own, *properties]


def attach_more(reports: Iterable[pytest.TestReport], name: str, value: object) -> None:
    """Add a structured field that only some tests have."""
    text = _json(value)
    for report in reports:
        report.user_properties.append((PREFIX + name, text))


def record_of(report: pytest.TestReport) -> Mapping[str, Any] | None:
    """The record back from a report's properties, every field named; None if the test was not isolated."""
    found = {
        name.removeprefix(PREFIX): value
        for name, value in report.user_properties
        if isinstance(name, str) and name.startswith(PREFIX)
    }
    if "schema" not in found:
        return None
    for name in STRUCTURED:
        if isinstance(found.get(name), str):
            found[name] = json.loads(found[name])  # type: ignore[arg-type]
    return {"schema": found["schema"], "nodeid": report.nodeid} | {name: found.get(name) for name in FIELDS}


FIELDS = (
    "outcome",
    "reason",
    "signal",
    *(field.name for field in dataclasses.fields(Usage)),
    "violations",
    "declared",
    "escapes",
    "enforced",
    "worker",
    "sandbox",
    "kept",
    "artifacts",
    "start_ts",
    "stages",
)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _final_outcome(reports: list[pytest.TestReport]) -> str:
    """As pytest's own summary counts the test: the worst of its phases."""
    words = [_word(report) for report in reports]
    for word in ("failed", "error", "xpassed", "xfailed", "skipped"):
        if word in words:
            return word
    return "passed"


def _word(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed" if report.passed else "failed"
    if report.failed:
        return "failed" if report.when == "call" else "error"
    return "skipped" if report.skipped else "passed"

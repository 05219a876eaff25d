"""From reports to one row per isolated test, in the process that all reports come to: xdist's controller."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pytest

from pytest_isolate.marker import OPTED_OUT, SWITCHED_OFF
from pytest_isolate.reporters.profile import Profile
from pytest_isolate.runner.record import NEVER_RAN, PREFIX, record_of
from pytest_isolate.violation import Violation

__all__ = ["Collected", "Collector", "Enforced", "Record", "Row"]

Record = Mapping[str, Any]
Key = tuple[str, str]  #: worker and node id: with xdist's --dist=each every worker runs every test


class Enforced(NamedTuple):
    """What a summary says of a test's evidence."""

    namespaces: tuple[str, ...] = ()
    root: str | None = None
    cgroup: str | None = None
    level: str | None = None
    confined: tuple[str, ...] = ()


_NOTHING = Enforced()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a summary needs of one test's record: a fraction of its size, as a session keeps one per test."""

    nodeid: str
    outcome: str = "passed"
    reason: str = "passed"
    signal: str = ""
    wall_s: float | None = None
    overhead_s: float | None = None
    cpu_user_s: float | None = None
    cpu_system_s: float | None = None
    throttled_s: float | None = None
    memory_peak_bytes: float | None = None
    memory_limit_bytes: float | None = None
    pids_refused: float | None = None
    written_files: float | None = None
    written_bytes: float | None = None
    tmp_free_bytes: float | None = None
    network_attempts: float | None = None
    leaked_processes: float | None = None
    slept_s: float | None = None
    clock_reads: float | None = None
    enforced: Enforced = _NOTHING
    missing: tuple[str, ...] = ()
    deeds: tuple[Violation, ...] = ()
    escapes: tuple[str, ...] = ()  #: from --isolate-strict
    location: tuple[str, int] = ("", 0)  #: file and line of the test, counted from 1
    kept: str | None = None
    artifacts: float | None = None  #: files that were copied out

    @property
    def has_run(self) -> bool:
        return self.reason not in NEVER_RAN

    @property
    def cpu_s(self) -> float | None:
        parts = [part for part in (self.cpu_user_s, self.cpu_system_s) if part is not None]
        return sum(parts) if parts else None


_NUMBERS = tuple(name for name, kind in Row.__annotations__.items() if kind == "float | None")


@dataclass(slots=True)
class Collected:
    """What a session has to tell about isolation."""

    rows: dict[Key, Row] = field(default_factory=dict)
    opted_out: dict[str, str] = field(default_factory=dict)  #: node id -> reason
    switched_off: set[str] = field(default_factory=set)  #: tests that --isolate-off left unprotected
    rerun: set[str] = field(default_factory=set)  #: tests that ran more than once
    profile: Profile = field(default_factory=Profile)

    def __bool__(self) -> bool:
        return bool(self.rows or self.opted_out or self.switched_off)


class Collector:
    """Plugin: takes one record per test from its reports when the test has ended."""

    def __init__(self, on_record: Callable[[Record], None] | None = None) -> None:
        self.collected = Collected()
        self._on_record = on_record
        self._open: dict[Key, pytest.TestReport] = {}
        self._shared: dict[object, Any] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        names = {
            name for name, _ in report.user_properties if isinstance(name, str) and name.startswith(PREFIX)
        }
        if PREFIX + "schema" in names:
            key = (getattr(report, "worker_id", "main"), report.nodeid)
            if report.when == "setup" and (key in self._open or key in self.collected.rows):
                self.collected.rerun.add(report.nodeid)
            self._open[key] = report
        elif OPTED_OUT in names or SWITCHED_OFF in names:
            properties = dict(report.user_properties)
            if OPTED_OUT in properties:
                self.collected.opted_out[report.nodeid] = str(properties[OPTED_OUT])
            else:
                self.collected.switched_off.add(report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        ended = [key for key in self._open if key[1] == nodeid]
        if len(ended) > 1:  # on several workers: this may be any one's end
            ended = [key for key in ended if self._open[key].when == "teardown"]
        for key in ended:
            self._close(key)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        for key in [*self._open]:  # their worker died before it could say that they had ended
            self._close(key)

    def _close(self, key: Key) -> None:
        report = self._open.pop(key)
        try:
            record = record_of(report)
            if record is None:
                return
            row = self._row(record, report.location)
            self.collected.profile.add(record.get("stages"))
            if self._on_record is not None:
                self._on_record(record)
        except (TypeError, ValueError):
            return  # a test that is not isolated gave itself properties of these names
        self.collected.rows[key] = row

    def _row(self, record: Record, location: tuple[str, int | None, str]) -> Row:
        evidence = dict(record.get("enforced") or {})
        return Row(
            nodeid=record["nodeid"],
            outcome=str(record.get("outcome")),
            reason=str(record.get("reason")),
            signal=str(record.get("signal") or ""),
            **{name: value for name in _NUMBERS if _is_number(value := record.get(name))},
            enforced=self._share(
                Enforced(
                    tuple(evidence.get("namespaces") or ()),
                    evidence.get("root"),
                    evidence.get("cgroup"),
                    evidence.get("level"),
                    tuple(evidence.get("confined") or ()),
                )
            ),
            missing=self._share(tuple(evidence.get("missing") or ())),
            deeds=tuple(_violation(told) for told in record.get("violations") or ()),
            escapes=self._share(tuple(map(str, record.get("escapes") or ()))),
            location=(location[0], (location[1] or 0) + 1),
            kept=record.get("kept"),
        )

    def _share(self, value: Any) -> Any:
        """One object for all tests with the same value."""
        return self._shared.setdefault(value, value)


def _violation(told: Any) -> Violation:
    return replace(Violation.from_told(told), known=bool(told.get("known")))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)

"""A pytest plugin that writes down all that a run says of each test, one JSON object per line.

It stands alone in its directory, as that goes onto the PYTHONPATH of suites nobody here has seen. Hooks of
pytest's own and public attributes only. It writes what it sees: :mod:`tests.differential.normalise` decides what
of it counts.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any, TextIO

import pytest

__all__ = ["Recorder", "pytest_addoption", "pytest_configure"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-to", metavar="PATH", default=None, help="write what each test reports to PATH")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--record-to")
    if path is not None and not hasattr(config, "workerinput"):  # xdist's controller hears everything
        recorder = Recorder(Path(path))
        config.pluginmanager.register(recorder)
        config.add_cleanup(recorder.close)


class Recorder:
    """Writes each event when it happens: what a run that dies has told is told."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("w", encoding="utf-8", errors="backslashreplace")
        self._pid = os.getpid()

    def close(self) -> None:
        self._file.close()

    def _write(self, kind: str, **fields: Any) -> None:
        if os.getpid() != self._pid:  # a test's own fork, or the child of an isolated test
            return
        self._file.write(json.dumps({"kind": kind, **fields}, default=repr, skipkeys=True) + "\n")
        self._file.flush()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write("start", nodeid=nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._write("finish", nodeid=nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        subtest = getattr(report, "context", None)  # pytest 9's SubtestReport
        self._write(
            "report",
            nodeid=report.nodeid,
            type=type(report).__name__,
            subtest=None if subtest is None else repr(subtest),
            when=report.when,
            outcome=report.outcome,
            wasxfail=getattr(report, "wasxfail", None),
            longrepr=report.longreprtext if report.longrepr is not None else None,
            sections=list(report.sections),
            properties=[[str(name), repr(value)] for name, value in report.user_properties],
            keywords=sorted(map(str, report.keywords)),
            location=list(report.location),
        )

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> Generator[None, Any, Any]:
        """Only as the terminal asks for it: asking counts, in plugins such as subtests."""
        status = yield
        if isinstance(report, pytest.TestReport):
            self._write("status", nodeid=report.nodeid, when=report.when, status=_plain(status))
        return status

    @pytest.hookimpl(trylast=True)
    def pytest_warning_recorded(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        self._write(
            "warning",
            nodeid=nodeid,
            when=when,
            category=warning_message.category.__qualname__,
            text=str(warning_message.message),
            place=f"{warning_message.filename}:{warning_message.lineno}",
            location=None if location is None else list(location),
        )

    @pytest.hookimpl(trylast=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._write("collect", nodeid=report.nodeid, outcome=report.outcome, longrepr=report.longreprtext)

    def pytest_internalerror(self, excrepr: object) -> None:
        self._write("internal error", text=str(excrepr))

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self._write("interrupt", text=repr(excinfo.value))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        self._write(
            "end",
            exit=int(exitstatus),
            collected=session.testscollected,
            failed=session.testsfailed,
            stop=[str(session.shouldstop or ""), str(session.shouldfail or "")],
        )


def _plain(status: Any) -> Any:
    """(category, letter, word): the letter and word may be (text, markup)."""
    return [part[0] if isinstance(part, tuple) else part for part in status] if status else status

"""Reports: see test_pytest_private.py."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_isolate.runner import pytest_private as private

from .conftest import MARKED, Inner, report_of

pytestmark = pytest.mark.usefixtures("cure")
HAS_SUBTESTS = pytest.version_tuple >= (9, 0)


@pytest.mark.parametrize("run_xfail", [False, True])
def test_xfail_reason(inner: Inner, run_xfail: bool) -> None:
    """_pytest/skipping.py, ``evaluate_xfail_marks`` (since 6.0): a crash that an xfail mark expects would fail."""

    def look(item: pytest.Item) -> object:
        return item.name.removeprefix("test_"), private.xfail_reason(item)

    seen = inner(MARKED, *["--runxfail"] * run_xfail, pytest_runtest_protocol=look)
    found = {name: reason for name, reason in seen.values if reason is not None}
    assert found == ({} if run_xfail else {"xfail": "known", "xfail_not_run": "known"})


def through_json(
    config: pytest.Config, report: pytest.TestReport
) -> tuple[pytest.TestReport, dict[str, Any]]:
    """As reports of children and of xdist travel."""
    data = config.hook.pytest_report_to_serializable(config=config, report=report)
    sent = json.loads(json.dumps(data))
    restored = config.hook.pytest_report_from_serializable(config=config, data=dict(sent))
    assert isinstance(restored, pytest.TestReport)
    return restored, sent


class Reporting:
    """Hooks that put a failure text into the report of a test."""

    def __init__(self, longrepr: Any) -> None:
        self._longrepr = longrepr

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            report.outcome, report.longrepr = "failed", self._longrepr


def test_long_repr(inner: Inner) -> None:
    """_pytest/_code/code.py, ``ReprExceptionInfo``, ``ReprTraceback``, ``ReprEntryNative``, ``ReprFileLocation``:
    crashes and timeouts would have no text, and no line in the short summary."""
    longrepr = private.long_repr("some/file.py", 3, "killed by SIGKILL", "first line\nsecond line")
    seen = inner("def test(): pass", **hooks_of(Reporting(longrepr)))
    assert "first line\nsecond line" in seen.out
    assert "FAILED test_it.py::test - killed by SIGKILL" in seen.out


def hooks_of(plugin: Reporting) -> dict[str, Callable[..., object]]:
    return {"pytest_runtest_logreport": plugin.pytest_runtest_logreport}


def test_LongRepr(inner: Inner, pytestconfig: pytest.Config) -> None:
    """_pytest/_code/code.py, ``ReprExceptionInfo``, and _pytest/reports.py, ``_report_to_json``: crash reports would
    not pass pytest-xdist."""
    longrepr: private.LongRepr = private.long_repr("some/file.py", 3, "killed", "text")
    restored, _ = through_json(pytestconfig, report_of("failed", longrepr))
    assert isinstance(restored.longrepr, private.LongRepr)
    assert restored.longrepr.reprcrash is not None
    assert restored.longrepr.reprcrash.message == "killed"
    assert restored.longreprtext == "text"


SUBTEST = """
    def test(subtests):
        with subtests.test(value="x"):
            assert 0
"""


def test_failed_subtests(inner: Inner) -> None:
    """_pytest/subtests.py, ``failed_subtests_key`` (since 9.0): a test with a failed subtest would pass."""
    counts: list[int] = []

    def look(item: pytest.Item) -> None:
        report = pytest.TestReport.from_item_and_call(item, pytest.CallInfo.from_call(lambda: None, "call"))
        counts.append(private.failed_subtests(item.config, report))

    seen = inner(SUBTEST if HAS_SUBTESTS else "def test(): pass", pytest_runtest_teardown=look)
    assert counts == ([1] if HAS_SUBTESTS else [0])
    assert seen.outcomes == ({"failed": 2} if HAS_SUBTESTS else {"passed": 1})


def test_set_failed_subtests(inner: Inner) -> None:
    """_pytest/subtests.py, ``failed_subtests_key`` (since 9.0): a test with a failed subtest would pass."""

    def set_them(item: pytest.Item) -> None:
        report = pytest.TestReport.from_item_and_call(item, pytest.CallInfo.from_call(lambda: None, "call"))
        private.set_failed_subtests(item.config, report, 2)
        assert private.failed_subtests(item.config, report) == (2 if HAS_SUBTESTS else 0)

    seen = inner("def test(): pass", pytest_runtest_call=set_them)
    assert seen.outcomes == ({"failed": 1} if HAS_SUBTESTS else {"passed": 1})
    assert ("contains 2 failed subtests" in seen.out) is HAS_SUBTESTS


def test_restore_subtest(inner: Inner, pytestconfig: pytest.Config) -> None:
    """_pytest/subtests.py, ``SubtestContext.kwargs`` (since 9.0): parameters would gain quotes on their way."""
    seen: list[tuple[str, str]] = []

    def look(report: pytest.TestReport) -> None:
        if report.when == "call":
            restored, data = through_json(pytestconfig, report)
            private.restore_subtest(restored, data)
            seen.append((restored.head_line or "", report.head_line or ""))

    inner(SUBTEST if HAS_SUBTESTS else "def test(): pass", pytest_runtest_logreport=look)
    assert all(restored == original for restored, original in seen)
    assert [original for _, original in seen] == (["test (value='x')", "test"] if HAS_SUBTESTS else ["test"])


def test_fix_native_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """threading.py, ``Thread._set_native_id`` of CPython: pytest-timeout and debuggers would name a thread that
    is none."""
    monkeypatch.setattr(threading.current_thread(), "_native_id", 1)
    private.fix_native_id()
    assert threading.current_thread().native_id == threading.get_native_id()


def test_is_opaque(inner: Inner) -> None:
    """_pytest/reports.py, ``_report_to_json``: failures of doctests would be in the summary twice, or not at all."""
    source = '''
        def test():
            """
            >>> 1
            2
            """
            assert 0
    '''

    def look(report: pytest.TestReport) -> object:
        return private.is_opaque(report.longrepr) if report.when == "call" else None

    seen = inner(source, "--doctest-modules", pytest_runtest_logreport=look)
    assert [value for value in seen.values if value is not None] == [True, False]
    assert not private.is_opaque("text")


def test_opaque_repr(inner: Inner, pytestconfig: pytest.Config) -> None:
    """_pytest/_code/code.py, ``TerminalRepr``, and _pytest/_io/terminalwriter.py, ``TerminalWriter.line``: failures
    of doctests would not be shown."""
    longrepr = private.opaque_repr("only text")
    assert private.is_opaque(longrepr)
    seen = inner("def test(): pass", **hooks_of(Reporting(longrepr)))
    assert "\nonly text\n" in seen.out
    assert re.search(r"^FAILED test_it.py::test$", seen.out, re.MULTILINE)


# ---- JUnit ------------------------------------------------------------------------------------------

WITH_PROPERTIES = """
    def test(record_testsuite_property, record_xml_attribute):
        record_testsuite_property("suite", "1 < 2")
        record_xml_attribute("attribute", "value")
"""
XML = ("--junitxml=out.xml", "-Wignore::pytest.PytestWarning", "-ojunit_family=xunit1")


def test_junit_suite_properties(inner: Inner) -> None:
    """_pytest/junitxml.py, ``LogXML.global_properties`` (since 4.5): ``record_testsuite_property`` would be lost."""

    def look(item: pytest.Item) -> object:
        return private.junit_suite_properties(item.config)

    assert inner(WITH_PROPERTIES, *XML, pytest_runtest_teardown=look).value == [("suite", "1 < 2")]
    assert inner("def test(): pass", pytest_runtest_teardown=look).value == []


def test_junit_attributes(inner: Inner) -> None:
    """_pytest/junitxml.py, ``LogXML.node_reporter`` and ``_NodeReporter.attrs``: ``record_xml_attribute`` would be
    lost."""

    def look(item: pytest.Item) -> object:
        return private.junit_attributes(item)

    assert inner(WITH_PROPERTIES, *XML, pytest_runtest_teardown=look).value["attribute"] == "value"
    assert inner("def test(): pass", pytest_runtest_teardown=look).value == {}


def test_add_to_junit(inner: Inner, pytester: pytest.Pytester) -> None:
    """_pytest/junitxml.py, ``LogXML.node_reporter`` and ``.global_properties``: what children have recorded would not
    be in the file."""

    def add(item: pytest.Item) -> None:
        private.add_to_junit(item, [("suite", "1 < 2")], {"attribute": "value"})

    inner("def test(): pass", pytest_runtest_call=add)
    inner("def test(): pass", *XML, pytest_runtest_call=add)
    text = Path(pytester.path, "out.xml").read_text()
    assert '<property name="suite" value="1 &lt; 2"' in text
    assert re.search(r"<testcase [^>]*attribute=\"value\"", text)

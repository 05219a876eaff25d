"""Reports of a process that nobody trusts: those that reporters could stumble over are none."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from typing import Any

import pytest

from pytest_isolate.errors import ChannelError
from pytest_isolate.outcome import Completed
from pytest_isolate.runner import checks, current_test, deeds, properties, replay, violations
from pytest_isolate.runner.pytest_private import long_repr
from pytest_isolate.runner.run import TestRun
from pytest_isolate.runner.transcript import Transcript
from pytest_isolate.sandbox.messages import Interrupted, Observed, Report, WarningRecorded
from pytest_isolate.violation import MOST_VIOLATIONS

Rebuild = Callable[..., pytest.TestReport]


@pytest.fixture
def item(request: pytest.FixtureRequest) -> pytest.Item:
    assert isinstance(request.node, pytest.Item)
    return request.node


@pytest.fixture
def rebuild(item: pytest.Item) -> Rebuild:
    """A report of this test, of which a child has changed something."""

    def rebuild(changes: dict[str, Any], longrepr: Any = None) -> pytest.TestReport:
        report = pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={"x": 1},
            outcome="failed" if longrepr is not None else "passed",
            longrepr=longrepr,
            when="call",
        )
        data = item.config.hook.pytest_report_to_serializable(config=item.config, report=report)
        return replay.rebuild(item, Report(copy.deepcopy(data) | changes, False, 0))

    return rebuild


SKIPPED: dict[str, Any] = {"outcome": "skipped"}


@pytest.mark.parametrize(
    "changes",
    [
        {"when": [1]},
        {"when": None},
        {"when": "afterwards"},
        {"outcome": "weird"},
        {"outcome": ["passed"]},
        {"outcome": None},
        {"duration": "abc"},
        {"duration": 10**400},
        {"duration": math.inf},
        {"duration": math.nan},
        {"duration": True},
        {"duration": None},
        {"start": "abc"},
        {"stop": math.nan},
        {"location": None},
        {"location": ["a", 1]},
        {"location": ["a", "b", "c"]},
        {"location": [1, 2, 3]},
        {"keywords": [1]},
        {"sections": [["a"]]},
        {"sections": 1},
        {"sections": None},
        {"user_properties": [1]},
        {"user_properties": [["a", 1]]},
        {"user_properties": [["list", [1]]]},
        {"user_properties": [["tuple", [1, 2, 3]]]},
        {"user_properties": 1},
        {"nodeid": 5},
        {"nodeid": "test_other.py::test_innocent"},
        {"toterminal": "x"},
        {"get_sections": 1},
        {"_get_verbose_word_with_markup": None},
        {"passed": True, "outcome": "weird"},
        {"rerun": "x"},
        {"$report_type": "Decoy"},
        {"$report_type": "CollectReport", "result": None},
        SKIPPED | {"longrepr": [1]},
        SKIPPED | {"longrepr": ["a", 1, None]},
        SKIPPED | {"longrepr": ["a", "b", "c"]},
        {
            "outcome": "failed",
            "longrepr": {"reprcrash": 1, "reprtraceback": 2, "sections": 3, "chain": [[1]]},
        },
        {"outcome": "failed", "longrepr": {"reprcrash": None, "reprtraceback": None, "sections": []}},
    ],
    ids=str,
)
def test_no_reports(rebuild: Rebuild, changes: dict[str, Any]) -> None:
    with pytest.raises((ChannelError, ValueError, TypeError, KeyError, AttributeError)):
        rebuild(changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [("message", 1), ("lineno", "x")],
)
def test_no_crash(rebuild: Rebuild, name: str, value: object) -> None:
    """The short summary and JUnit XML look into it."""
    good = rebuild({}, long_repr("a.py", 1, "boo", "boo"))
    assert good.longreprtext == "boo"
    data = good._to_json()["longrepr"]
    data["reprcrash"][name] = value
    with pytest.raises((ChannelError, ValueError, TypeError, AttributeError)):
        rebuild({"outcome": "failed", "longrepr": data})


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"duration": 1}, "duration", 1.0),
        ({"duration": -0.5}, "duration", 0.0),  # a test has set a clock
        ({"sections": [[1, 2]]}, "sections", [("1", "2")]),  # plain pytest minds only if it prints it
        ({"wasxfail": 5}, "wasxfail", "5"),
        ({"outcome": "failed"}, "longrepr", ""),  # by a plugin that says no more
        (SKIPPED | {"longrepr": ["a", 1, "Skipped: x"]}, "longrepr", ("a", 1, "Skipped: x")),
        (SKIPPED | {"longrepr": ["a", None, "x"]}, "longrepr", ("a", None, "x")),
        ({"outcome": "failed", "longrepr": [1]}, "longrepr", (1,)),
        ({"extra": {"of": ["a", "plugin"]}}, "extra", {"of": ["a", "plugin"]}),
        ({"user_properties": [properties.pack(("a", (1, "b")))]}, "user_properties", [("a", (1, "b"))]),
        ({"user_properties": [properties.pack((1, math.inf))]}, "user_properties", [(1, math.inf)]),
        ({"user_properties": [properties.pack(("isolate.schema", 1))]}, "user_properties", []),
    ],
    ids=str,
)
def test_what_a_plugin_may_have_made(
    rebuild: Rebuild, changes: dict[str, Any], name: str, value: Any
) -> None:
    assert getattr(rebuild(changes), name) == value


def test_a_failure_that_a_plugin_made_a_skip(rebuild: Rebuild, item: pytest.Item) -> None:
    report = rebuild(SKIPPED | {"longrepr": "boo"})
    assert report.longrepr == (item.location[0], (item.location[1] or 0) + 1, "boo")


def test_the_words_of_plugins_are_known(rebuild: Rebuild, item: pytest.Item) -> None:
    class Retry:
        def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
            return ("retried", "R", "RETRY") if report.outcome == "retried" else None

    plugin = Retry()
    item.config.pluginmanager.register(plugin)
    try:
        assert vars(rebuild({"outcome": "retried"}))["outcome"] == "retried"
    finally:
        item.config.pluginmanager.unregister(plugin)
    with pytest.raises(ChannelError, match="the outcome 'retried'"):
        rebuild({"outcome": "retried"})


def test_an_error_of_a_plugin_is_named_after_its_hook(rebuild: Rebuild, item: pytest.Item) -> None:
    class Buggy:
        def pytest_report_from_serializable(self) -> None:
            raise RuntimeError("a bug of mine")

    plugin = Buggy()
    item.config.pluginmanager.register(plugin)
    try:
        with pytest.raises(ChannelError, match=r"pytest_report_from_serializable raised .*a bug of mine"):
            rebuild({})
    finally:
        item.config.pluginmanager.unregister(plugin)


# ---- all of a test ----------------------------------------------------------------------------------


def told(*words: str) -> list[Report]:
    """'setup', 'call:failed'."""
    pairs = [word.partition(":") for word in words]
    return [Report({"when": when, "outcome": outcome or "passed"}, False, 0) for when, _, outcome in pairs]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("setup call teardown", True),
        ("setup call:failed teardown:failed", True),
        ("setup call call call teardown", True),  # subtests
        ("setup:skipped teardown", True),
        ("setup:failed teardown", True),
        ("setup:rerun setup call:rerun setup call teardown", True),
        ("setup call teardown teardown", True),
        ("", False),
        ("setup", False),
        ("setup teardown", False),
        ("setup call", False),
        ("call teardown", False),
        ("teardown", False),
        ("setup call teardown setup", False),
        ("setup call:rerun setup teardown", False),
    ],
)
def test_a_test_reports_each_phase(item: pytest.Item, words: str, expected: bool) -> None:
    assert checks.is_complete(item, told(*words.split())) is expected


# ---- other messages ---------------------------------------------------------------------------------


def test_the_room_for_violations_is_bounded_here() -> None:
    violation = {"kind": "threads", "what": "x"}
    few = Observed([{**violation, "what": str(number)} for number in range(60)], 60, {}, {})
    many = Observed([{**violation, "what": f"more {number}"} for number in range(20_000)], 1, {}, {})
    assert len(violations.told([few, many, many])) == MOST_VIOLATIONS


@pytest.mark.parametrize("count", [0, 10**40, 1.0, True])
def test_no_count(count: object) -> None:
    with pytest.raises(ValueError, match="not a violation"):
        violations.told([Observed([{"kind": "threads", "what": "x", "count": count}], 1, {}, {})])


@pytest.mark.parametrize("pids", [5, [1.0], ["1"], {"1": 2}, None])
def test_no_pids(pids: object) -> None:
    with pytest.raises(ChannelError, match="no process ids"):
        violations.told_pids(Observed([], 0, {}, {"pids": pids}))
    assert violations.told_pids(Observed([], 0, {}, {"pids": [1, 2]})) == {1, 2}
    assert violations.told_pids(Observed([], 0, {}, {})) == set()


def test_no_sleep(item: pytest.Item) -> None:
    run = TestRun(item=item, nextitem=None)
    run.outcome = Completed()
    for slept_s in (1.5, 1.7e308, 1.7e308, math.nan, math.inf, -3.0, "x", 2.0):
        run.transcript.take(Observed([], 0, {}, {"slept_s": slept_s}))
    for reads in (3, -1, True, 2**64, 1.0, "x"):
        run.transcript.take(Observed([], 0, {}, {"clock_reads": reads}))
    assert deeds.clock_of(run) == (3.5, 3)


@pytest.mark.parametrize("name", ["f\0", "\ud800"])
def test_no_filename(name: str) -> None:
    with pytest.raises(ChannelError, match="no name of a file"):
        Transcript().take(Interrupted("x", name, 1))


def test_a_phase_that_is_none_shows_nowhere(item: pytest.Item) -> None:
    before = os.environ.get(current_test.VARIABLE)
    phases: list[object] = [[1], {}, None, "x"]
    for phase in phases:
        current_test.show_after(item, phase)
    assert os.environ.get(current_test.VARIABLE) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"when": "nowhen"},
        {"location": [1]},
        {"location": [1, 2, 3]},
        {"category": "a.b\0"},
        {"category": "a.\ud800"},
    ],
    ids=ascii,
)
def test_no_warnings(item: pytest.Item, changes: dict[str, Any]) -> None:
    fields: dict[str, Any] = {
        "text": "x", "args": [], "category": "builtins.UserWarning", "filename": "f", "lineno": 1,
        "when": "runtest", "nodeid": "", "location": None, "has_source": False,
    }  # fmt: skip
    with pytest.warns(pytest.PytestWarning, match="a warning of this test is lost"):
        replay.record_warning(item, WarningRecorded(**(fields | changes)))


@pytest.mark.parametrize("name", ["/dev/zero", "f\0", "\ud800"])
def test_the_line_of_a_warning_is_not_read_from_a_device(item: pytest.Item, name: str) -> None:
    message = WarningRecorded("x", [], "builtins.UserWarning", name, 1, "runtest", "", None, False)
    with pytest.warns(UserWarning, match="^x$") as caught:
        replay.record_warning(item, message)
    assert (caught[0].line == "") is (name == "/dev/zero")

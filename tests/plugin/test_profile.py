"""``--isolate-profile`` says where the time of an isolated test goes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]
SOURCE = """
    import pytest, time

    @pytest.fixture(scope="module")
    def wide(): time.sleep(0.2)

    @pytest.mark.parametrize("i", range(3))
    def test_it(wide, i): time.sleep(0.5)
"""


def test_stages_are_in_the_record_and_add_up(run: Runner) -> None:
    inner = run(SOURCE, "--isolate-profile")
    first, second, third = (record["stages"] for record in inner.records)
    assert first["prepare"] >= 0.2 > second["prepare"]
    # What the fixture said may be in pytest's capture still, when the second could be made ahead.
    assert (first["held"], second["held"], third["held"]) == (False, False, True)
    for record in inner.records:
        stages = record["stages"]
        assert [*stages] == [
            "held", "prepare", "sandbox", "fork", "enter", "set-up", "wait", "test", "report", "reap", "log",
        ]  # fmt: skip
        assert 0.1 <= stages["test"] <= record["wall_s"] + 0.01
    assert third["wait"] > second["wait"]  # until the second had ended
    assert "where the time of a test goes" in inner.out
    assert "  * of 1 of 3 tests while the one before it ran" in inner.out


def test_nothing_is_said_without_the_option(run: Runner) -> None:
    inner = run(SOURCE)
    assert [record["stages"] for record in inner.records] == [None] * 3
    assert "where the time" not in inner.out


def test_who_asks_is_answered_under_quiet_too(run: Runner) -> None:
    assert "where the time of a test goes" in run(SOURCE, "--isolate-profile", "-q").out


@pytest.mark.parametrize("option", ["-v", "-q", "-n2"])
def test_that_there_is_nothing_to_tell_is_told(pytester: pytest.Pytester, option: str) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess("--isolate-profile", option)
    result.assert_outcomes(passed=1)
    said = "--isolate-profile: no test was isolated; see --isolate-all"
    assert result.outlines.count(said) == 1
    assert said not in pytester.runpytest_subprocess("--isolate-profile", "--isolate-all").outlines


@pytest.mark.parametrize("option", ["--isolate-jobs=2", "-n2", "--isolate-start=spawn"])
def test_stages_are_told_however_tests_run(run: Runner, option: str) -> None:
    inner = run(SOURCE, "--isolate-profile", option)
    assert inner.outcomes == {"passed": 3}
    assert len(inner.records) == 3
    assert all(record["stages"]["test"] >= 0.1 for record in inner.records)
    assert "where the time of a test goes" in inner.out


def test_tests_of_one_sandbox_have_what_is_theirs(run: Runner) -> None:
    inner = run(SOURCE, "--isolate-profile", "--isolate-scope=module")
    first, *others = (record["stages"] for record in inner.records)
    assert "fork" in first
    assert all("fork" not in stages and stages["test"] >= 0.1 for stages in others)


def test_a_test_that_dies_has_the_stages_it_came_to(run: Runner) -> None:
    inner = run("import os, time\ndef test_it(): time.sleep(0.5); os.abort()", "--isolate-profile")
    (record,) = inner.records
    assert record["reason"] == "signal"
    assert {"prepare", "sandbox", "fork"} <= {*record["stages"]}
    assert "report" not in record["stages"]
    assert record["stages"]["test"] >= 0.5 > record["stages"]["set-up"]

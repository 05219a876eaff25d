"""Violations from the process that sees them to where users look."""

from __future__ import annotations

import json
import sys

import pytest

pytestmark = pytest.mark.needs("user namespace")

SUITE = """
    import threading, time
    def test_left():
        threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
    def test_kept(): pass
"""
SAID = "threads: left a thread that runs sleep"


def test_reported(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=SUITE)
    result = pytester.runpytest_subprocess("--isolate-all", "--isolate-json=out.json")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["1 test not hermetic, 1 violation:", "*test_left", f"*{SAID}*"])
    records = [json.loads(line) for line in (pytester.path / "out.json").read_text().splitlines()]
    found = {record["nodeid"].partition("::")[2]: record["violations"] for record in records}
    assert found["test_kept"] == []
    assert [violation["kind"] for violation in found["test_left"]] == ["threads"]


@pytest.mark.parametrize("more", [[], ["--isolate-jobs=2"], ["--isolate-start=spawn"]])
def test_failed(pytester: pytest.Pytester, more: list[str]) -> None:
    pytester.makepyfile(test_it=SUITE)
    result = pytester.runpytest_subprocess("--isolate-all", "--isolate-watch=fail", *more)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["not hermetic: a violation", f"{SAID}*"])


@pytest.mark.parametrize("arg", ["--isolate-allow=threads", "--isolate-watch=off"])
def test_allowed(pytester: pytest.Pytester, arg: str) -> None:
    pytester.makepyfile(test_it=SUITE)
    result = pytester.runpytest_subprocess("--isolate-all", "-o", "isolate_watch=fail", arg)
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*not hermetic*")


def test_a_test_that_failed_by_itself_says_both(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=SUITE.replace("    def test_kept(): pass", "        assert 0, 'own'"))
    result = pytester.runpytest_subprocess("--isolate-all", "--isolate-watch=fail")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: own*", "*isolate: violations*", f"{SAID}*"])


NOT_PASSED = """
    import pytest, unittest
    def leave(): open("/var/tmp/left", "w").write("x")
    def test_skips(): leave(); pytest.skip("no database")
    @pytest.mark.xfail(reason="known bug")
    def test_expected(): leave(); assert 0
    @pytest.mark.xfail(reason="known bug")
    def test_unexpected(): leave()
    @pytest.fixture
    def broken(): leave(); pytest.skip("no database")
    def test_skips_early(broken): pass
    class TestUnit(unittest.TestCase):
        def test_skips(self): leave(); self.skipTest("no database")
    @pytest.mark.skip
    def test_never(): leave()
    @pytest.mark.xfail
    def test_clean(): assert 0
"""


@pytest.mark.parametrize("arg", ["--isolate-strict", "--isolate-watch=fail", "--isolate-watch=report"])
def test_one_that_skips_or_is_expected_to_fail(pytester: pytest.Pytester, arg: str) -> None:
    pytester.makepyfile(test_it=NOT_PASSED)
    result = pytester.runpytest_subprocess("--isolate-all", arg, "-rA", "--junitxml=out.xml")
    if arg == "--isolate-watch=report":
        result.assert_outcomes(skipped=4, xfailed=2, xpassed=1)
        return
    result.assert_outcomes(failed=4, errors=1, skipped=1, xfailed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_skips - not hermetic: a violation: files: *"])
    junit = (pytester.path / "out.xml").read_text()
    assert 'errors="1" failures="4" skipped="2"' in junit


def test_a_new_violation_that_failed_no_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=SUITE)
    pytester.makeconftest(
        """
        import dataclasses
        from pytest_isolate.spec import Watch
        def pytest_isolate_modify_spec(item, spec): return dataclasses.replace(spec, watch=Watch.REPORT)
        """
    )
    result = pytester.runpytest_subprocess("--isolate-strict")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["strict: not signed off: 1 new violation"])


def test_told_to_hooks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=SUITE)
    pytester.makeconftest(
        "def pytest_isolate_violation(item, violation): print('HEARD', item.name, violation.kind.value)"
    )
    result = pytester.runpytest_subprocess("--isolate-all", "-s")
    result.stdout.fnmatch_lines(["*HEARD test_left threads*"])


def test_what_a_test_makes_up_is_its_own_trouble(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from pytest_isolate.runner.isolation import current_isolation
        from pytest_isolate.sandbox.messages import Observed
        def test_lie(): current_isolation()._channel.send(Observed([{"kind": "none"}], 1, {}, {}))
        def test_kept(): pass
        """
    )
    result = pytester.runpytest_subprocess("--isolate-all", "-p", "no:randomly")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*the report channel broke: *"])


def test_what_differs_in_a_pid_alone_is_told_once(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
        import subprocess
        def test_many():
            for _ in range(5): subprocess.Popen(["sleep", "60"])
        """
    )
    result = pytester.runpytest_subprocess("--isolate-all", "--isolate-watch=fail", "--isolate-json=out.json")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["not hermetic: 5 violations", "*sleep 60 (5 times), *", "1 test not hermetic, 5 violations:"]
    )
    assert result.stdout.str().count("sleep 60 (5 times)") == 2  # the failure, and the list
    (record,) = [json.loads(line) for line in (pytester.path / "out.json").read_text().splitlines()]
    assert len(record["violations"]) == 5


def test_the_place_is_the_line_of_def_and_not_of_a_decorator(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
        import threading, time, pytest

        def mark(*lines): return lambda function: function

        @mark(
            "def test_a(): pass",
        )
        @pytest.mark.parametrize("x", [1])
        def test_a(x):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

        def test_b():
            @mark()
            def target(): time.sleep(60)
            threading.Thread(target=target, daemon=True).start()
        """
    )
    pytester.runpytest_subprocess("--isolate-all", "--isolate-json=out.json").assert_outcomes(passed=2)
    records = [json.loads(line) for line in (pytester.path / "out.json").read_text().splitlines()]
    wheres = [violation["where"] for record in records for violation in record["violations"]]
    if sys.version_info >= (3, 12):  # which tells where a thread was started
        assert wheres == ["test_it.py:10 (test_a)", "test_it.py:15 (test_b)"]
    else:
        assert wheres == ["test_it.py:9 (test_a), thread Thread-1 (sleep)", "test_it.py:14 (target)"]

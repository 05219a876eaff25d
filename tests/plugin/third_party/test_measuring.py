"""Plugins that measure: pytest-cov and coverage.py, pytest-benchmark, and Hypothesis' statistics."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from ..conftest import Both, Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

COVERED = """
    import pytest

    def branches(x):
        if x == 1:
            return "one"
        if x == 2:
            return "two"
        return "more"

    @pytest.fixture(scope="module")
    def shared():
        yield branches(1)
        branches(1)

    def test_one(shared): assert branches(1) == "one"
    def test_two(shared): assert branches(2) == "two"
"""


def percentage(out: str) -> str:
    (found,) = re.findall(r"^test_it\.py +\d.*?(\d+%)", out, re.MULTILINE)
    return str(found)


@pytest.mark.knows("pytest_cov")
@pytest.mark.parametrize("args", [[], ["--cov-branch"], ["--cov-context=test"], ["-n2"]], ids=str)
def test_pytest_cov(both: Both, args: list[str]) -> None:
    pytest.importorskip("pytest_cov")
    plain, isolated = both(COVERED, "--cov=.", *args)
    assert isolated.outcomes == plain.outcomes == {"passed": 2}
    assert percentage(isolated.out) == percentage(plain.out) != "100%"


@pytest.mark.parametrize("branch", [False, True], ids=["lines", "branches"])
def test_coverage_run(pytester: pytest.Pytester, branch: bool) -> None:
    coverage = pytest.importorskip("coverage")
    pytester.makepyfile(test_it=COVERED)
    measured = []
    for mode in ("--isolate-off", "--isolate-all"):
        command = [sys.executable, "-m", "coverage", "run", "--source=.", *(["--branch"] if branch else [])]
        subprocess.run([*command, "-m", "pytest", "-q", mode], check=True, capture_output=True)
        data = coverage.CoverageData()
        data.read()
        (file,) = data.measured_files()
        measured.append((data.has_arcs(), sorted(data.arcs(file) or data.lines(file))))
    assert measured[0] == measured[1]
    assert measured[0][0] == branch


@pytest.mark.knows("pytest_cov")
def test_contexts_name_the_test(pytester: pytest.Pytester, both: Both) -> None:
    coverage = pytest.importorskip("coverage")
    found = []
    for mode in (0, 1):
        both(COVERED, "--cov=.", "--cov-context=test")[mode]
        data = coverage.CoverageData()
        data.read()
        found.append(data.contexts_by_lineno(*data.measured_files()))
    assert found[0] == found[1]
    assert any("test_two" in context for contexts in found[0].values() for context in contexts)


def test_benchmark(run: Runner, pytester: pytest.Pytester) -> None:
    pytest.importorskip("pytest_benchmark")
    inner = run(
        """
        def test_it(benchmark):
            benchmark.extra_info["size"] = 3
            assert benchmark(sum, [1, 2, 3]) == 6
            assert benchmark.stats["rounds"] > 0

        def test_pedantic(benchmark): benchmark.pedantic(sum, ([1],), rounds=3, iterations=2)
        """,
        *("-p", "benchmark", "--benchmark-json=out.json", "--benchmark-max-time=0.01"),
        *("--benchmark-cprofile=tottime",),
    )
    assert inner.outcomes == {"passed": 2}
    inner.result.stdout.fnmatch_lines(["*benchmark: 2 tests*", "test_it *", "test_pedantic *", "*cProfile*"])
    found = {b["name"]: b for b in json.loads((pytester.path / "out.json").read_text())["benchmarks"]}
    assert found["test_it"]["extra_info"] == {"size": 3}
    pedantic = found["test_pedantic"]["stats"]
    assert (pedantic["rounds"], pedantic["iterations"], len(pedantic["data"])) == (3, 2, 3)
    assert min(pedantic["data"]) == pedantic["min"] > 0


def test_benchmark_of_a_failed_test_counts_as_in_plain_pytest(both: Both) -> None:
    pytest.importorskip("pytest_benchmark")
    plain, isolated = both(
        "def test_it(benchmark):\n    benchmark.pedantic(sum, ([1],), rounds=2)\n    assert 0",
        "-p",
        "benchmark",
    )
    assert plain.outcomes == isolated.outcomes == {"failed": 1}
    assert ("benchmark: 1 tests" in plain.out) == ("benchmark: 1 tests" in isolated.out)


HYPOTHESIS = """
    from hypothesis import event, given, settings, strategies as st

    @settings(derandomize=False, deadline=None)
    @given(st.integers())
    def test_it(x):
        event("seen")
        assert x < 1_000_000
"""


@pytest.mark.knows("hypothesispytest")
def test_hypothesis_statistics(run: Runner) -> None:
    pytest.importorskip("hypothesis")
    inner = run(HYPOTHESIS.replace("< 1_000_000", "== x"), "--hypothesis-show-statistics")
    assert inner.outcomes == {"passed": 1}
    assert "100 passing" in inner.out
    assert "seen" in inner.out


@pytest.mark.knows("hypothesispytest")
def test_hypothesis_replays_a_failing_example_in_the_next_run(run: Runner, pytester: pytest.Pytester) -> None:
    pytest.importorskip("hypothesis")
    options = ["--hypothesis-profile=default", "-p", "no:xdist"]  # the profile of CI has no database
    assert run(HYPOTHESIS, *options).outcomes == {"failed": 1}
    saved = [*(pytester.path / ".hypothesis" / "examples").rglob("*")]
    assert len([path for path in saved if path.is_file()]) > 1
    replayed = run(HYPOTHESIS, "--hypothesis-show-statistics", *options)
    assert replayed.outcomes == {"failed": 1}
    assert "during reuse phase" in replayed.out
    assert run(HYPOTHESIS.replace("< 1_000_000", "== x")).outcomes == {"passed": 1}

"""With the plugins that suites have: each against the real one, where it is installed (extra ``test``)."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from .conftest import Run

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

    def test_one(): assert branches(1) == "one"
    def test_two(): assert branches(2) == "two"
"""


def percentage(run: Run) -> str:
    (found,) = re.findall(r"^test_it\.py +\d.*?(\d+%)", run.out, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("args", [[], ["--cov-branch"], ["--cov-context=test"], ["-n2"]], ids=str)
def test_coverage_is_what_it_is_without_isolation(run: Runner, args: list[str]) -> None:
    pytest.importorskip("pytest_cov")
    args = ["--cov=.", *args]
    plain, isolated = run(COVERED, "--isolate-off", *args), run(COVERED, *args)
    assert isolated.outcomes == plain.outcomes == {"passed": 2}
    assert percentage(isolated) == percentage(plain) != "100%"


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_pytest_timeout(run: Runner, method: str) -> None:
    pytest.importorskip("pytest_timeout")
    inner = run(
        f"""
        import pytest, time

        @pytest.mark.timeout(0.5, method={method!r})
        def test_slow(): time.sleep(30)

        def test_next(): pass
        """
    )
    assert inner.outcomes == {"failed": 1, "passed": 1}
    assert "Timeout" in inner.out


def test_rerunfailures(run: Runner) -> None:
    pytest.importorskip("pytest_rerunfailures")
    inner = run(
        """
        import pytest
        attempts = []

        @pytest.mark.flaky(reruns=2)
        def test_it():
            attempts.append(1)
            assert len(attempts) == 2
        """
    )
    assert inner.outcomes == {"passed": 1, "rerun": 1}


def test_hypothesis(run: Runner) -> None:
    pytest.importorskip("hypothesis")
    inner = run(
        """
        from hypothesis import given, strategies as st

        @given(st.integers())
        def test_it(x): assert x == x
        """,
        "--hypothesis-show-statistics",
    )
    assert inner.outcomes == {"passed": 1}
    assert "100 passing" in inner.out

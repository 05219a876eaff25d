"""Plugins that end, repeat or reorder tests: pytest-timeout, pytest-rerunfailures, pytest-randomly."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from ..comparing import comparable
from ..conftest import Both, Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

SLOW = """
    import pytest, time

    @pytest.fixture
    def slow_setup(): time.sleep(30)

    def test_call(): time.sleep(30)
    def test_setup(slow_setup): pass
    def test_next(): pass
"""


@pytest.mark.knows("timeout")
@pytest.mark.parametrize("method", ["signal", "thread"])
def test_timeout_by_mark(run: Runner, method: str) -> None:
    pytest.importorskip("pytest_timeout")
    inner = run(
        f"""
        import pytest, time

        @pytest.mark.timeout(2, method={method!r})
        def test_slow(): time.sleep(30)

        def test_next(): pass
        """
    )
    assert inner.outcomes == {"failed": 1, "passed": 1}
    assert "Timeout" in inner.out


@pytest.mark.knows("timeout")
def test_timeout_for_the_session(both: Both) -> None:
    pytest.importorskip("pytest_timeout")
    plain, isolated = both(SLOW, "-o", "timeout=2", "-o", "timeout_method=signal")
    assert plain.outcomes == isolated.outcomes == {"failed": 1, "errors": 1, "passed": 1}
    assert "Failed: Timeout" in isolated.out


@pytest.mark.knows("rerunfailures")
def test_rerun_of_failures(both: Both) -> None:
    pytest.importorskip("pytest_rerunfailures")
    plain, isolated = both(
        """
        import pytest
        attempts = []

        @pytest.fixture
        def unstable_fixture():
            attempts.append("fixture")
            assert attempts.count("fixture") == 2
            yield

        @pytest.mark.flaky(reruns=2)
        def test_it():
            attempts.append("it")
            assert attempts.count("it") == 2

        @pytest.mark.flaky(reruns=2)
        def test_fixture(unstable_fixture): pass

        @pytest.mark.flaky(reruns=2)
        def test_never(): assert 0
        """,
        *("-v", "-rR"),
    )
    assert plain.outcomes == isolated.outcomes == {"passed": 2, "failed": 1, "rerun": 4}
    assert comparable(plain.out) == comparable(isolated.out)
    assert [record["outcome"] for record in isolated.records] == ["passed", "passed", "failed"]


CRASHING = """
    import os, pathlib, pytest, signal

    state = pathlib.Path(__file__).parent / "state"

    def attempt(name):
        count = len(list(state.glob(f"{name}-*")))
        (state / f"{name}-{count}").touch()
        return count

    @pytest.mark.flaky(reruns=3)
    def test_exit():
        if attempt("exit") < 2: os._exit(3)

    @pytest.mark.flaky(reruns=3)
    def test_mixed():
        number = attempt("mixed")
        assert number != 0
        if number == 1: os.kill(os.getpid(), signal.SIGSEGV)
        assert number != 2

    @pytest.mark.flaky(reruns=1)
    def test_always():
        attempt("always")
        os.abort()

    @pytest.mark.flaky(reruns=2, only_rerun="SIGKILL")
    def test_filtered():
        attempt("filtered")
        os.abort()

    def test_not_flaky():
        attempt("not")
        os._exit(1)
"""


@pytest.mark.knows("rerunfailures")
@pytest.mark.parametrize("args", [["-p", "no:xdist"], [], ["-n2"]], ids=["alone", "xdist-unused", "xdist"])
def test_rerun_of_crashes(run: Runner, pytester: pytest.Pytester, args: list[str]) -> None:
    pytest.importorskip("pytest_rerunfailures")
    state = pytester.mkdir("state")
    inner = run(CRASHING, f"--isolate-binds={state}:{state}", "-v", *args)
    assert inner.outcomes == {"passed": 2, "failed": 3, "rerun": 6}
    made = {path.name.split("-")[0] for path in state.iterdir()}
    attempts = {name: len([*state.glob(f"{name}-*")]) for name in made}
    assert attempts == {"exit": 3, "mixed": 4, "always": 2, "filtered": 1, "not": 1}
    assert len(inner.records) == 5
    assert inner.record("test_always")["reason"] == "signal"
    assert "ERROR" not in inner.out


@pytest.mark.knows("rerunfailures")
def test_rerun_limits_of_the_session(run: Runner) -> None:
    plugin = pytest.importorskip("pytest_rerunfailures")
    if not hasattr(plugin.StatusDB, "try_increment_suite_reruns"):
        pytest.skip("this release of pytest-rerunfailures has no --max-suite-reruns")
    inner = run("def test_a(): assert 0\ndef test_b(): assert 0", "--reruns=2", "--max-suite-reruns=3")
    assert inner.outcomes == {"failed": 2, "rerun": 3}


@pytest.mark.knows("rerunfailures")
def test_flaky_tests_fail_the_run_if_asked(both: Both) -> None:
    plugin = pytest.importorskip("pytest_rerunfailures")
    if not hasattr(plugin, "pytest_sessionfinish"):
        pytest.skip("this release of pytest-rerunfailures has no --fail-on-flaky")
    plain, isolated = both(
        "attempts = []\n\ndef test_it():\n    attempts.append(1)\n    assert len(attempts) == 2",
        *("--reruns=1", "--fail-on-flaky"),
    )
    assert plain.result.ret == isolated.result.ret == 7


RANDOM = """
    import random, pytest

    at_import = random.random()

    @pytest.fixture(scope="module")
    def shared():
        print("drawn", random.random())
        return random.random()

    @pytest.mark.parametrize("i", range(6))
    def test_it(i, shared): print("drawn", i, shared, random.random())

    class TestClass:
        def test_a(self): print("drawn", random.random())
        def test_b(self): print("drawn", random.random())
"""


def drawn(run: Run) -> list[str]:
    return re.findall(r"drawn.*", run.out)


def test_randomly(both: Both) -> None:
    pytest.importorskip("pytest_randomly")
    plain, isolated = both(RANDOM, "-p", "randomly", "--randomly-seed=7", "-s", "-v")
    assert drawn(plain) == drawn(isolated) != []
    assert comparable(plain.out) == comparable(isolated.out)


def test_randomly_with_xdist(both: Both) -> None:
    pytest.importorskip("pytest_randomly")
    pytest.importorskip("xdist")
    plain, isolated = both(RANDOM, "-p", "randomly", "--randomly-seed=7", "-n2", "-rP", "--dist=loadfile")
    assert isolated.outcomes == {"passed": 8}
    assert sorted(drawn(plain)) == sorted(drawn(isolated)) != []


def test_a_suite_that_seeds_once_draws_what_it_counts_on(run: Runner) -> None:
    inner = run(
        "import random\n\nrandom.seed(42)\n\ndef test_it(): assert random.random() == 0.6394267984578837"
    )
    assert inner.outcomes == {"passed": 1}

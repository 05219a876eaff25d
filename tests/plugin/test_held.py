"""The next test's process is made while one runs, and held: never to be noticed but by the clock."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

#: Says when a child was forked and when its test began.
FORKED = """
    import os, time
    FORKED = [time.monotonic()]
    os.register_at_fork(after_in_child=lambda: FORKED.append(time.monotonic()))
"""


def dedented(*sources: str) -> str:
    return "\n".join(map(textwrap.dedent, sources))


@pytest.mark.vm
def test_the_next_process_is_there_before_its_test_begins(run: Runner) -> None:
    inner = run(
        dedented(
            FORKED,
            """
            import pytest
            @pytest.mark.parametrize("i", range(4))
            def test_it(i):
                waited = time.monotonic() - FORKED[-1]
                assert waited > 0.1 if i else waited < 10
                time.sleep(0.3)
            """,
        )
    )
    assert inner.outcomes["passed"] == 4
    # What was spent at the gate is nobody's time.
    assert all(0.3 <= record["wall_s"] < 0.6 for record in inner.records)


def test_one_test_at_a_time_runs(run: Runner, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    inner = run(
        f"""
        import pytest, time
        @pytest.fixture(autouse=True)
        def around():
            with open({str(log)!r}, "a") as file:
                print("begin", file=file, flush=True)
                yield
                time.sleep(0.05)
                print("end", file=file)
        @pytest.mark.parametrize("i", range(5))
        def test_it(i): pass
        """,
        f"--isolate-binds={tmp_path}:{tmp_path}",
    )
    assert inner.outcomes == {"passed": 5}
    assert log.read_text().split() == ["begin", "end"] * 5


@pytest.mark.parametrize("options", [["-x"], ["--maxfail=1"]])
def test_what_follows_a_failure_under_x_never_runs(run: Runner, tmp_path: Path, options: list[str]) -> None:
    log = tmp_path / "log"
    log.touch()
    inner = run(
        f"""
        import pytest, time
        @pytest.mark.parametrize("i", range(5))
        def test_it(i):
            with open({str(log)!r}, "a") as file: print(i, file=file)
            time.sleep(0.05)
            assert i != 1
        """,
        *options,
        f"--isolate-binds={tmp_path}:{tmp_path}",
    )
    assert inner.outcomes == {"passed": 1, "failed": 1}
    assert log.read_text().split() == ["0", "1"]


def test_what_a_test_leaves_in_pytest_is_there_for_the_next(run: Runner) -> None:
    inner = run(
        """
        import random, time
        DRAWN = random.getstate()
        def test_draws(): time.sleep(0.1); random.random()
        def test_goes_on(): assert random.getstate() != DRAWN; time.sleep(0.1)
        def test_sets(pytestconfig): pytestconfig.cache.set("isolate/it", 1); time.sleep(0.1)
        def test_gets(pytestconfig): assert pytestconfig.cache.get("isolate/it", 0) == 1
        """,
        "-p",
        "cacheprovider",
    )
    assert inner.outcomes["passed"] == 4


def test_a_failure_is_counted_when_the_next_begins(run: Runner) -> None:
    inner = run(
        """
        import time
        def test_fails(): time.sleep(0.1); assert 0
        def test_sees(request): assert request.session.testsfailed == 1
        """
    )
    assert inner.outcomes == {"failed": 1, "passed": 1}


@pytest.mark.parametrize(
    "hook", ["pytest_runtest_logreport(report)", "pytest_isolate_finished(item, outcome, usage)"]
)
def test_hooks_of_the_suite_come_before_the_next_process(
    run: Runner, pytester: pytest.Pytester, hook: str
) -> None:
    pytester.makeconftest(f"COUNT = []\ndef {hook}: COUNT.append(1)\n")
    inner = run(
        """
        import conftest, time
        def test_1(): assert not conftest.COUNT; time.sleep(0.1)
        def test_2(): assert conftest.COUNT; time.sleep(0.1)
        def test_3(): assert conftest.COUNT
        """
    )
    assert inner.outcomes == {"passed": 3}


def test_fixtures_are_set_up_and_torn_down_in_their_order(run: Runner, tmp_path: Path) -> None:
    log = tmp_path / "log"
    inner = run(
        f"""
        import pytest, time
        def say(*words):
            with open({str(log)!r}, "a") as file: print(*words, file=file)
        @pytest.fixture(scope="module", params=["x", "y"])
        def wide(request): say("up", request.param); yield request.param; say("down", request.param)
        @pytest.fixture(scope="module")
        def late(): say("late"); return 1
        @pytest.mark.parametrize("i", range(2))
        def test_it(wide, i): time.sleep(0.05)
        def test_late(late): time.sleep(0.05)
        def test_after(late): pass
        """
    )
    assert inner.outcomes == {"passed": 6}
    assert log.read_text().split("\n")[:-1] == ["up x", "down x", "up y", "late", "down y"] or (
        log.read_text().split("\n")[:-1] == ["up x", "down x", "up y", "down y", "late"]
    )


def test_a_held_process_that_dies_is_made_again(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import os, signal, threading, time

        def kill_last_child():
            time.sleep(0.3)
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                last = max(map(int, file.read().split()))
            KILLED.append(last)
            os.kill(last, signal.SIGKILL)

        KILLED = []
        def pytest_collection_finish(session):
            threading.Thread(target=kill_last_child, daemon=True).start()
        def pytest_sessionfinish():
            assert len(KILLED) == 1
        """
    )
    inner = run("import time\ndef test_first(): time.sleep(1)\ndef test_second(): pass")
    assert inner.outcomes == {"passed": 2}


def test_output_stays_with_its_test(run: Runner) -> None:
    inner = run(
        """
        import pytest, time
        @pytest.mark.parametrize("i", range(6))
        def test_it(i):
            print("said", i)
            time.sleep(0.02)
            assert i % 2
        """,
        "-rA",
    )
    assert inner.outcomes == {"passed": 3, "failed": 3}
    text = inner.out
    for i in range(6):
        assert text.count(f"said {i}\n") == 1, text


def test_without_capture_the_letter_comes_before_the_next_output(run: Runner) -> None:
    inner = run(
        """
        import pytest, time
        @pytest.mark.parametrize("i", range(4))
        def test_it(i): print(f"<{i}>", flush=True); time.sleep(0.05)
        """,
        "-s",
        "-q",
    )
    assert "<0>\n.<1>\n.<2>\n.<3>\n." in inner.out


def test_records_of_held_tests_are_of_their_own_time(run: Runner) -> None:
    inner = run("import time\ndef test_1(): time.sleep(0.5)\ndef test_2(): pass\ndef test_3(): pass")
    first, second, _ = inner.records
    assert second["start_ts"] - first["start_ts"] >= 0.5
    assert second["wall_s"] < 0.3
    assert second["overhead_s"] < 0.4, json.dumps(second)

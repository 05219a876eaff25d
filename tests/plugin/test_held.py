"""The next test's process is made while one runs, and held: never to be noticed but by the clock."""

from __future__ import annotations

import itertools
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


def together(*sources: str) -> str:
    return "\n".join(map(textwrap.dedent, sources))


@pytest.mark.vm
def test_the_next_process_is_there_before_its_test_begins(run: Runner) -> None:
    inner = run(
        together(
            FORKED,
            """
            import pytest
            @pytest.mark.parametrize("i", range(3))
            def test_it(i):
                waited = time.monotonic() - FORKED[-1]
                assert waited > 0.1 if i else waited < 10
                time.sleep(1.5)
            """,
        )
    )
    assert inner.outcomes["passed"] == 3
    assert all(record["wall_s"] >= 1.5 for record in inner.records)
    # What was spent at the gate is nobody's time.
    for one, following in itertools.pairwise(inner.records):
        assert one["start_ts"] + one["wall_s"] <= following["start_ts"] + 0.05


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


WHILE_ANOTHER_RUNS = """
        def pytest_collection_finish(session):
            said = session.config._tmp_path_factory.getbasetemp() / "test_first0" / "namespace"
            threading.Thread(target=kill_the_held, args=[said], daemon=True).start()
"""
#: After pytest's last look, and before it tells that process to begin.
AT_THE_LAST_MOMENT = """
        from pytest_isolate.runner.fleet import Fleet
        begin_held = Fleet._begin_held

        def kill_first(fleet, voyage):
            for pid, _ in in_sandboxes():
                os.kill(pid, signal.SIGKILL)
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                KILLED.append(pid)
            return begin_held(fleet, voyage)

        Fleet._begin_held = kill_first
"""


@pytest.mark.parametrize("killer", [WHILE_ANOTHER_RUNS, AT_THE_LAST_MOMENT], ids=["early", "late"])
def test_a_held_process_that_dies_is_made_again(run: Runner, pytester: pytest.Pytester, killer: str) -> None:
    pytester.makeconftest(
        """
        import os, signal, threading, time

        def pid_namespace(pid):
            return str(os.stat(f"/proc/{pid}/ns/pid").st_ino)

        def in_sandboxes():
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                for pid in file.read().split():
                    try:
                        if pid_namespace(pid) != pid_namespace("self"):
                            yield int(pid), pid_namespace(pid)
                    except OSError:
                        continue

        def kill_the_held(said):
            while not said.exists() or not said.read_text():
                time.sleep(0.002)
            while not KILLED:
                for pid, namespace in in_sandboxes():
                    if namespace != said.read_text():
                        os.kill(pid, signal.SIGKILL)
                        KILLED.append(pid)
                time.sleep(0.002)

        KILLED = []
        def pytest_sessionfinish():
            assert len(KILLED) == 1
        """
        + killer
    )
    inner = run(
        """
        import os, time
        def test_that_needs_the_session_s_fixture_first(tmp_path): pass
        def test_first(tmp_path):
            (tmp_path / "namespace").write_text(str(os.stat("/proc/self/ns/pid").st_ino))
            time.sleep(2)
        def test_second(): pass
        """
    )
    assert inner.outcomes == {"passed": 3}


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
    inner = run("import time\ndef test_1(): time.sleep(4)\ndef test_2(): pass\ndef test_3(): pass")
    first, second, third = inner.records
    assert second["start_ts"] - first["start_ts"] >= 4
    assert second["start_ts"] + second["wall_s"] <= third["start_ts"] + 0.05
    assert second["overhead_s"] < 3.8, json.dumps(second)


def test_what_a_thread_of_a_fixture_does_is_there(run: Runner) -> None:
    inner = run(
        """
        import pytest, threading, time

        @pytest.fixture(scope="module")
        def clock():
            now, stop = [time.monotonic()], threading.Event()
            def tick():
                while not stop.wait(0.005): now[0] = time.monotonic()
            thread = threading.Thread(target=tick)
            thread.start()
            yield now
            stop.set()
            thread.join()

        @pytest.mark.parametrize("i", range(4))
        def test_it(clock, i):
            assert time.monotonic() - clock[0] < 1.2
            time.sleep(1.5)
        """
    )
    assert inner.outcomes == {"passed": 4}


# ---- and many of them are made by a template ------------------------------------------------------------

MANY = "@pytest.mark.parametrize('i', range(12))"


@pytest.mark.vm
def test_pytest_itself_forks_for_few_of_many_tests(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import os
        FORKS = []
        os.register_at_fork(after_in_parent=lambda: FORKS.append(os.getpid()))
        def pytest_terminal_summary(terminalreporter):
            terminalreporter.write_line(f"forks: {FORKS.count(os.getpid())}")
        """
    )
    inner = run(f"import os, pytest\n{MANY}\ndef test_it(i): assert os.getppid() == 0")
    assert inner.outcomes == {"passed": 12}
    (forks,) = (int(line.split()[1]) for line in inner.out.splitlines() if line.startswith("forks: "))
    assert forks <= 4


def test_each_is_what_a_fork_of_pytest_is(run: Runner) -> None:
    inner = run(
        f"""
        import os, pytest, random, signal, subprocess, threading, time

        STATE = random.getstate()
        {MANY}
        def test_it(i, isolation, tmp_path):
            assert STATE == random.getstate()
            assert isolation and isolation.usage().pids_peak != 0
            name = isolation.cgroup_paths[0].rpartition("/")[2] if isolation.cgroup_paths else ""
            with open("/proc/self/cgroup") as file:
                assert name in file.read() or "cgroup" in os.readlink("/proc/self/ns/cgroup")
            assert threading.get_native_id() == threading.main_thread().native_id == os.getpid()
            assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            assert subprocess.run(["true"]).returncode == 0
            thread = threading.Thread(target=time.sleep, args=(0.001,))
            thread.start()
            thread.join()
            (tmp_path / "file").write_text("x")
            pid = os.fork()
            if pid == 0:
                os._exit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        """
    )
    assert inner.outcomes == {"passed": 12}
    assert len({record["sandbox"] for record in inner.records}) == 12


def test_a_template_that_dies_is_noticed_by_nobody(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import os, signal, threading, time
        KILLED = []

        def kill_templates():
            while True:
                time.sleep(0.1)
                with open(f"/proc/self/task/{os.getpid()}/children") as file:
                    children = list(map(int, file.read().split()))
                for pid in children:
                    try:
                        with open(f"/proc/{pid}/stat") as file:
                            state = file.read().rpartition(")")[2].split()[0]
                        exe = os.readlink(f"/proc/{pid}/exe")
                        same = os.stat(f"/proc/{pid}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino
                    except OSError:
                        continue
                    if "python" in exe and same and state == "S":
                        KILLED.append(pid)
                        os.kill(pid, signal.SIGKILL)

        def pytest_collection_finish(session):
            threading.Thread(target=kill_templates, daemon=True).start()

        def pytest_sessionfinish():
            assert KILLED
        """
    )
    inner = run(f"import pytest, time\n{MANY}\ndef test_it(i): time.sleep(0.05)")
    assert inner.outcomes == {"passed": 12}


def test_what_pytest_closes_is_closed(run: Runner) -> None:
    inner = run(
        f"""
        import pytest, subprocess

        @pytest.fixture(scope="module")
        def cat():
            with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
                yield process
                process.stdin.close()
                assert process.wait(10) == 0  # unless somebody else has the pipe open

        {MANY}
        def test_it(cat, i): pass

        def test_last(): pass
        """
    )
    assert inner.outcomes == {"passed": 13}


def test_a_timeout_shows_the_stack(run: Runner) -> None:
    inner = run(
        f"""
        import pytest, time
        {MANY}
        def test_it(i):
            if i == 9: time.sleep(60)
        """,
        "--isolate-timeout=3s",
    )
    assert inner.outcomes == {"passed": 11, "failed": 1}
    assert "timeout 3.0 s" in inner.out
    assert "time.sleep(60)" in inner.out or "in test_it" in inner.out


def test_kinds_of_tests_side_by_side(run: Runner) -> None:
    inner = run(
        f"""
        import pytest
        {MANY}
        def test_small(i): pass
        {MANY}
        @pytest.mark.isolated(hostname="other")
        def test_other(i):
            import socket
            assert socket.gethostname() == "other"
        class TestIt:
            {MANY}
            def test_it(self, i): assert i != 5
        {MANY}
        @pytest.mark.not_isolated(reason="plain")
        def test_plain(i): pass
        """
    )
    assert inner.outcomes == {"passed": 47, "failed": 1}


def test_items_may_change_their_places_as_the_session_goes_on(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_protocol(item, nextitem):
            items = item.session.items
            if items.index(item) == 5:
                items[6:] = reversed(items[6:])
        """
    )
    inner = run(f"import pytest\n{MANY}\ndef test_it(i, record_property): record_property('i', i)", "-rA")
    assert inner.outcomes == {"passed": 12}
    assert len({record["nodeid"] for record in inner.records}) == 12

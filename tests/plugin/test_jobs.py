"""``--isolate-jobs``: several at a time, and what users see is as if it had been one."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import TIME_SCALE, Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

JOBS = "--isolate-jobs=3"

#: A test waits until as many as it wants run at the same time; the directory is outside of the sandboxes.
MEETING = f"""
    import os, pathlib, time, pytest

    WAIT_S = {10 * TIME_SCALE}
    here = pathlib.Path(os.environ["MEETING"])

    def meet(count):
        (here / str(time.monotonic_ns())).touch()
        end = time.monotonic() + WAIT_S
        while len(os.listdir(here)) < count:
            assert time.monotonic() < end, "the others have not come"
            time.sleep(0.005)

    def running():
        return [path.name for path in here.iterdir()]
"""


@pytest.fixture
def meeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "meeting"
    directory.mkdir()
    monkeypatch.setenv("MEETING", str(directory))
    return directory


def overlaps(records: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Pairs of tests that ran at the same time."""
    spans = {r["nodeid"].rpartition("::")[2]: (r["start_ts"], r["start_ts"] + r["wall_s"]) for r in records}
    return {
        (a, b) for a, (start, _) in spans.items() for b, (first, end) in spans.items() if first < start < end
    }


@pytest.mark.vm
def test_tests_run_at_the_same_time(run: Runner, meeting: Path) -> None:
    source = (
        MEETING
        + "    @pytest.mark.parametrize('i', range(6))\n    def test_it(i): meet(min(i // 3 * 3 + 3, 6))\n"
    )
    inner = run(source, JOBS, f"--isolate-binds={meeting}:{meeting}", "-v")
    assert inner.outcomes == {"passed": 6}
    assert "up to 3 at a time (--isolate-jobs)" in inner.out
    assert re.findall(r"test_it\[(\d)\] PASSED", inner.out) == [*"012345"]
    assert [r["nodeid"][-2] for r in inner.records] == [*"012345"]


def test_one_at_a_time_is_the_default(run: Runner) -> None:
    inner = run("import time\ndef test_1(): time.sleep(.05)\ndef test_2(): time.sleep(.05)")
    assert overlaps(inner.records) == set()


def test_an_exclusive_test_runs_alone(run: Runner) -> None:
    inner = run(
        """
        import pytest, time
        @pytest.mark.parametrize("i", range(3))
        def test_a(i): time.sleep(0.3)
        @pytest.mark.isolated(exclusive=True)
        def test_alone(): time.sleep(0.3)
        @pytest.mark.parametrize("i", range(3))
        def test_b(i): time.sleep(0.3)
        """,
        JOBS,
    )
    assert inner.outcomes == {"passed": 7}
    found = overlaps(inner.records)
    assert found
    assert not any("test_alone" in pair for pair in found)


@pytest.mark.needs("cgroup memory limit")
def test_declared_memory_is_not_given_twice(run: Runner) -> None:
    inner = run(
        """
        import pytest, time
        @pytest.mark.parametrize("i", range(3))
        @pytest.mark.isolated(memory="60M")
        def test_large(i): time.sleep(0.1)
        @pytest.mark.parametrize("i", range(2))
        @pytest.mark.isolated(memory="40M")
        def test_small(i): time.sleep(0.1)
        """,
        JOBS,
        "--isolate-jobs-memory=100M",
    )
    assert inner.outcomes == {"passed": 5}
    assert all({a[5:10], b[5:10]} != {"large"} for a, b in overlaps(inner.records))


def test_shared_fixtures_are_set_up_once_and_torn_down_after_the_last(run: Runner, tmp_path: Path) -> None:
    log = tmp_path / "log"
    inner = run(
        f"""
        import pytest, time
        def say(text):
            with open({str(log)!r}, "a") as file: print(text, file=file)
        @pytest.fixture(scope="session")
        def session():
            say("session up"); yield; say("session down")
        @pytest.fixture(scope="class")
        def wide(session):
            say("class up"); yield; say("class down")
        class TestA:
            @pytest.mark.parametrize("i", range(3))
            def test_it(self, wide, i):
                time.sleep((3 - i) * 0.2); say(f"A{{i}}")
        class TestB:
            @pytest.mark.parametrize("i", range(3))
            def test_it(self, wide, i):
                time.sleep((3 - i) * 0.2); say(f"B{{i}}")
        """,
        JOBS,
        f"--isolate-binds={tmp_path}:{tmp_path}",
    )
    assert inner.outcomes == {"passed": 6}
    lines = log.read_text().split("\n")[:-1]
    assert lines[:2] == ["session up", "class up"]
    assert lines[5:7] == ["class down", "class up"]
    assert lines[10:] == ["class down", "session down"]
    assert {*lines[2:5]} == {"A0", "A1", "A2"}
    assert lines[2:5] != sorted(lines[2:5])  # the last began while the first slept


def test_a_parameter_of_a_shared_fixture_changes_when_the_last_that_needs_it_has_ended(run: Runner) -> None:
    inner = run(
        """
        import os, pytest, time
        @pytest.fixture(scope="module", params=["a", "b"])
        def server(request, tmp_path_factory):
            path = tmp_path_factory.mktemp("server") / request.param
            path.touch()
            yield path
            path.unlink()
        @pytest.mark.parametrize("i", range(3))
        def test_it(server, i):
            time.sleep((3 - i) * 0.05)
            assert server.exists()
        """,
        JOBS,
        "-v",
    )
    assert inner.outcomes == {"passed": 6}
    assert re.findall(r"test_it\[(\S+)\]", inner.out)[:6] == ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2"]


def test_output_log_and_warnings_are_those_of_each_test(run: Runner) -> None:
    inner = run(
        """
        import logging, os, pytest, time, warnings
        @pytest.mark.parametrize("i", range(4))
        def test_it(i):
            for n in range(3):
                print(f"out {i}{n}"); os.write(2, f"err {i}{n}\\n".encode())
                logging.warning("log %s", f"{i}{n}")
                time.sleep(0.02)
            warnings.warn(f"warned {i}")
            assert i == 9
        """,
        JOBS,
    )
    assert inner.outcomes == {"failed": 4, "warnings": 4}
    for word in ("out", "err"):
        lines = [f"{word} {i}{n}" for i in range(4) for n in range(3)]
        assert re.findall(rf"^{word} \d\d$", inner.out, re.MULTILINE) == lines
    assert re.findall(r"UserWarning: warned (\d)", inner.out) == [*"0123"]


@pytest.mark.parametrize("capture", ["fd", "sys"])
def test_output_before_a_crash_is_shown(run: Runner, capture: str) -> None:
    source = (
        "import os, time, pytest\n"
        "@pytest.mark.parametrize('i', range(3))\n"
        "def test_it(i): print('said', i, flush=True); time.sleep(0.1); os.abort()\n"
    )
    inner = run(source, JOBS, f"--capture={capture}")
    assert inner.outcomes == {"failed": 3}
    found = re.findall(r"^said (\d)$", inner.out, re.MULTILINE)
    assert found == ([*"012"] if capture == "fd" else [])


def test_without_capture_output_comes_test_by_test(run: Runner) -> None:
    inner = run(
        """
        import pytest, sys, time
        @pytest.mark.parametrize("i", range(4))
        def test_it(i):
            for n in range(3):
                print(f"out {i}{n}", file=(sys.stdout, sys.stderr)[n % 2], flush=True); time.sleep(0.02)
        """,
        JOBS,
        "-s",
    )
    lines = [f"out {i}{n}" for i in range(4) for n in (0, 2)]
    assert re.findall(r"out \d\d", inner.result.stdout.str()) == lines
    assert re.findall(r"out \d\d", inner.result.stderr.str()) == [f"out {i}1" for i in range(4)]


def test_after_a_failure_under_x_nothing_else_is_reported(run: Runner) -> None:
    source = """
        import pytest, time
        @pytest.fixture(scope="module")
        def wide():
            yield
            print("torn down")
        @pytest.mark.parametrize("i", range(9))
        def test_it(i, wide): time.sleep(i * 0.02); assert i != 1
    """
    inner = run(source, JOBS, "-x")
    assert inner.outcomes == {"passed": 1, "failed": 1}
    assert len(inner.records) == 2
    assert "torn down" in inner.out


@pytest.mark.parametrize("pool", [True, False])
def test_tests_that_have_hardly_begun_are_ended(run: Runner, pytester: pytest.Pytester, pool: bool) -> None:
    if not pool:  # each has to wait for its sandbox
        pytester.makeconftest(
            "from pytest_isolate.sandbox.launch import Launcher\nLauncher.prepare = lambda *args: None\n"
        )
    source = "import pytest\n@pytest.mark.parametrize('i', range(20))\ndef test_it(i): assert i\n"
    for _ in range(3):
        inner = run(source, "--isolate-jobs=8", "-x")
        assert inner.outcomes == {"failed": 1}


def test_errors_of_starting_are_reported_in_turn_and_leave_nothing(run: Runner) -> None:
    source = """
        import os, pytest, time
        def count(): return len(os.listdir("/proc/self/fd"))
        def pytest_generate_tests(metafunc): metafunc.parametrize("i", range(40))
        @pytest.mark.isolated
        def test_first(i): time.sleep(0.01)
        @pytest.mark.isolated(binds={"/no/such/place": "/x"})
        def test_it(i): pass
        def test_last(i): assert count() < 100  # each error leaves none
    """
    inner = run(source, JOBS, all_tests=False)
    assert inner.outcomes == {"passed": 80, "errors": 40}


def test_what_ends_the_session_ends_it_in_turn(run: Runner) -> None:
    inner = run(
        """
        import pytest, time
        def test_first(): time.sleep(0.2)
        @pytest.fixture(scope="session")
        def leaving(): pytest.exit("enough", returncode=7)
        def test_exit(leaving): pass
        def test_never(): pass
        """,
        JOBS,
    )
    assert inner.outcomes == {"passed": 1}
    assert inner.result.ret == 7
    assert "enough" in inner.out


def test_plain_tests_in_between_run_alone(run: Runner) -> None:
    inner = run(
        """
        import pytest, time
        state = []
        @pytest.mark.isolated
        @pytest.mark.parametrize("i", range(2))
        def test_a(i): time.sleep(0.05); assert state == []
        def test_plain(): state.append(1)
        @pytest.mark.isolated
        @pytest.mark.parametrize("i", range(2))
        def test_b(i): assert state == [1]
        """,
        JOBS,
        all_tests=False,
    )
    assert inner.outcomes == {"passed": 5}


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """As ``ulimit -n 256``, for what is started meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_descriptors")
def test_no_more_than_there_are_descriptors_for(run: Runner) -> None:
    source = """
        import pytest, time
        @pytest.mark.parametrize("i", range(30))
        def test_sleeps(i): time.sleep(0.3)
        def test_holds_up_the_log(): time.sleep(2)
        @pytest.mark.parametrize("i", range(100))
        def test_waits_to_be_logged(i): print("x")
    """
    inner = run(source, "--isolate-jobs=40")
    assert inner.outcomes == {"passed": 131}, inner.out
    assert overlaps(inner.records)


@pytest.mark.usefixtures("few_descriptors")
def test_without_descriptors_a_test_is_an_error_with_the_cure(run: Runner) -> None:
    source = """
        import os, pytest
        @pytest.fixture(scope="module")
        def hog():
            held = []
            try:
                while True:
                    held.append(os.dup(0))
            except OSError:
                for _ in range(4):
                    os.close(held.pop())
            yield
            for fd in held:
                os.close(fd)
        def test_before(): pass
        @pytest.mark.parametrize("i", range(3))
        def test_in_need(hog, i): pass
        def test_after(): pass
    """
    inner = run(source, "--isolate-jobs=2")
    assert inner.outcomes == {"errors": 5}, inner.out
    assert "create the namespaces: Too many open files" in inner.out
    assert "run: ulimit -n 65536" in inner.out


def test_random_numbers_differ_and_repeat(run: Runner) -> None:
    source = (
        "import random, pytest\nrandom.seed(1)\n"
        "@pytest.mark.parametrize('i', range(4))\n"
        "def test_it(i): print('drew', random.random()); assert 0\n"
    )
    drawn = [re.findall(r"drew (\S+)", run(source, JOBS).out) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len({*drawn[0]}) == 4


def test_fixtures_of_filters_of_warnings_of_another_test_do_not_count(run: Runner) -> None:
    inner = run(
        """
        import pytest, time, warnings
        @pytest.fixture(scope="session")
        def shared(): warnings.warn("in the fixture")
        @pytest.mark.filterwarnings("ignore::UserWarning")
        def test_ignores(): time.sleep(0.1)
        def test_warns(shared): warnings.warn("in the test")
        """,
        JOBS,
    )
    assert inner.outcomes == {"passed": 2, "warnings": 2}
    assert inner.out.count("test_it.py::test_warns\n") == 2


@pytest.mark.parametrize("option", ["--pdb", "--trace", "--setup-show"])
def test_what_needs_one_at_a_time_gets_it(run: Runner, option: str) -> None:
    inner = run("def test_it(): pass", JOBS, option)
    assert f"one at a time, for {option} (--isolate-jobs)" in inner.out


@pytest.mark.knows("rerunfailures")
def test_reruns_after_a_crash(run: Runner, tmp_path: Path) -> None:
    pytest.importorskip("pytest_rerunfailures")
    inner = run(
        f"""
        import os, pathlib, pytest, time
        @pytest.mark.parametrize("i", range(4))
        def test_it(i):
            tried = pathlib.Path({str(tmp_path)!r}, str(i))
            if i == 1 and not tried.exists():
                tried.touch(); os.abort()
            time.sleep(0.05)
        """,
        JOBS,
        "--reruns=1",
        f"--isolate-binds={tmp_path}:{tmp_path}",
        "-v",
    )
    assert inner.outcomes == {"passed": 4, "rerun": 1}
    assert re.findall(r"test_it\[(\d)\] (\w+)", inner.out)[:5] == [
        ("0", "PASSED"), ("1", "RERUN"), ("1", "PASSED"), ("2", "PASSED"), ("3", "PASSED"),
    ]  # fmt: skip


def test_workers_of_xdist_share_the_jobs(run: Runner) -> None:
    pytest.importorskip("xdist")
    source = """
        import pytest, time
        @pytest.mark.parametrize("i", range(8))
        def test_it(i): time.sleep(0.3)
    """
    inner = run(source, "--isolate-jobs=4", "-n2")
    assert inner.outcomes == {"passed": 8}
    of_worker = {w: overlaps([r for r in inner.records if r["worker"] == w]) for w in ("gw0", "gw1")}
    assert all(of_worker.values())  # two at a time in each


def interrupt_when(is_time: Callable[[], bool], directory: Path, *args: str) -> tuple[int, str]:
    """Run pytest there, and press Ctrl-C: its exit status, and what it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--isolate-all", *args, "-p", "no:cacheprovider"],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = time.monotonic() + 10 * TIME_SCALE
    while not is_time() and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30 * TIME_SCALE)
    return process.returncode, out


def test_interrupt_ends_all(pytester: pytest.Pytester, meeting: Path) -> None:
    pytester.makepyfile(
        MEETING + "    @pytest.mark.parametrize('i', range(6))\n"
        "    def test_it(i): meet(3); (here / f'all {i}').touch(); time.sleep(600)\n"
    )
    bind = f"--isolate-binds={meeting}:{meeting}"
    status, out = interrupt_when(lambda: len([*meeting.glob("all *")]) == 3, pytester.path, JOBS, bind)
    assert status == pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt" in out
    assert len([*meeting.glob("all *")]) == 3


def test_an_interrupt_ends_a_fixture_that_others_wait_for(pytester: pytest.Pytester, meeting: Path) -> None:
    """pytest sets it up while a test runs."""
    pytester.makepyfile(
        MEETING
        + """
    @pytest.fixture(scope="module")
    def database():
        (here / "begun").touch()
        time.sleep(600)
    def test_first(): time.sleep(600)
    def test_second(database): pass
    """
    )
    status, out = interrupt_when((meeting / "begun").exists, pytester.path, "--isolate-jobs=2")
    assert status == pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt" in out
    assert "Traceback" not in out


def test_a_hook_that_fails_is_the_error_of_its_own_test(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        def pytest_isolate_sandbox_ready(item, sandbox):
            if item.name == "test_it[3]":
                raise OSError(28, "No space left on device")
        """
    )
    inner = run(
        "import pytest, time\n@pytest.mark.parametrize('i', range(6))\ndef test_it(i): time.sleep(0.2 * (i == 1))",
        JOBS,
        "-rEp",
    )
    assert inner.outcomes == {"passed": 5, "errors": 1}
    assert re.findall(r"ERROR test_it.py::(\S+)", inner.out) == ["test_it[3]"]


@pytest.mark.needs("cgroup memory limit")
@pytest.mark.parametrize("jobs", ["1", "3"])
def test_a_cgroup_that_is_busy_is_nobody_s_error(run: Runner, pytester: pytest.Pytester, jobs: str) -> None:
    """As when a process of it does not die; the end of the session removes it."""
    pytester.makeconftest(
        """
        import errno
        from pytest_isolate.kernel.cgroups import v1, v2

        KEPT = []
        def pytest_unconfigure(): assert KEPT == ["t3"]

        def keep_third(remove):
            def kept(cgroup, *, kill=False):
                if cgroup.name == "t3" and not KEPT:
                    KEPT.append(cgroup.name)
                    raise OSError(errno.EBUSY, "Device or resource busy")
                remove(cgroup, kill=kill)
            return kept

        for kind in (v1.V1Cgroup, v2.V2Cgroup):
            kind.remove = keep_third(kind.remove)
        """
    )
    source = """
        import pytest, time
        @pytest.mark.parametrize("i", range(6))
        def test_it(i): time.sleep(0.1)
    """
    inner = run(source, f"--isolate-jobs={jobs}")
    assert inner.outcomes == {"passed": 6}
    assert inner.result.ret == 0


def test_an_interrupt_does_not_lose_what_has_ended(pytester: pytest.Pytester, meeting: Path) -> None:
    """Plain pytest would have told of them, though not in this order: that of the first was not yet known."""
    pytester.makepyfile(
        MEETING
        + """
    @pytest.fixture(scope="session")
    def shared():
        yield
        print("torn down")
    def test_slow(): time.sleep(600)
    @pytest.mark.parametrize("i", range(4))
    def test_quick(i, shared): assert i != 2
    def test_last(): (here / "last").touch(); time.sleep(600)
    """
    )
    arguments = ["--isolate-jobs=2", f"--isolate-binds={meeting}:{meeting}", "-v", "-s"]
    status, out = interrupt_when((meeting / "last").exists, pytester.path, *arguments)
    assert status == pytest.ExitCode.INTERRUPTED
    told = re.findall(r"::(test_\S+) (?:PASSED|FAILED|ERROR)", out)
    assert told == [f"test_quick[{i}]" for i in range(4)]
    assert "1 failed, 3 passed" in out
    assert out.count("torn down") == 1


def test_a_terminal_shows_what_runs(pytester: pytest.Pytester) -> None:
    pexpect = pytest.importorskip("pexpect")
    pytester.makepyfile(
        test_it=f"import time, pytest\n@pytest.mark.parametrize('i', range(2))\n"
        f"def test_it(i): time.sleep({2.5 * TIME_SCALE})\n"
    )
    arguments = ["-m", "pytest", "--isolate-all", JOBS, "-p", "no:cacheprovider"]
    env = {**os.environ, "TERM": "xterm", "PY_COLORS": "1"}
    child = pexpect.spawn(sys.executable, arguments, cwd=str(pytester.path), dimensions=(24, 100), env=env)
    child.expect(
        r"running: test_it.py::test_it\[0\] \d+ s, test_it.py::test_it\[1\] \d+ s", timeout=20 * TIME_SCALE
    )
    child.expect(r"2 passed", timeout=20 * TIME_SCALE)
    child.close()

"""Tests that share a sandbox (scope="class", scope="module"), and each still with an end of its own."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from .conftest import TIME_SCALE, Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

COUNTED = """
    import os, pytest, signal, time

    made = []

    @pytest.fixture(scope="module")
    def here():
        made.append(1)
        yield made
"""


def test_tests_of_a_module_share_a_sandbox(run: Runner) -> None:
    inner = run(
        """
        import pathlib, pytest, socket

        @pytest.fixture(scope="module")
        def server():
            with socket.create_server(("127.0.0.1", 4321)) as server:
                yield server

        def test_write(server, isolation):
            assert isolation
            pathlib.Path("/var/tmp/left").write_text("x")

        def test_read(server, isolation):
            assert pathlib.Path("/var/tmp/left").exists()
            with socket.create_connection(("127.0.0.1", 4321)): pass
            assert bool(isolation.usage().pids_peak) == bool(isolation.cgroup_paths)

        class TestMore:
            def test_in_class(self, server): assert pathlib.Path("/var/tmp/left").exists()
        """,
        "--isolate-scope=module",
    )
    assert inner.outcomes == {"passed": 3}
    assert len({r["sandbox"] for r in inner.records}) == 1
    assert [r["written_files"] for r in inner.records] == [1, 0, 0]


@pytest.mark.needs("cgroup memory limit")
def test_one_sandbox_for_each_class(run: Runner) -> None:
    inner = run(
        """
        import pytest
        pytestmark = pytest.mark.isolated(scope="class")
        seen = []
        class TestA:
            def test_1(self): seen.append(1)
            def test_2(self): assert seen == [1]
            @pytest.mark.isolated(memory="200M")
            def test_other_options(self): assert seen == []
        class TestB:
            def test_3(self): assert seen == []; seen.append(3)
            def test_4(self): assert seen == [3]
        def test_5(): assert seen == []; seen.append(5)
        def test_6(): assert seen == []
        """,
        all_tests=False,
    )
    assert inner.outcomes == {"passed": 7}
    assert [r["sandbox"] for r in inner.records] == ["t1", "t1", "t2", "t3", "t3", "t4", "t5"]


def test_after_a_crash_the_others_share_a_new_one(run: Runner) -> None:
    inner = run(
        COUNTED
        + f"""
    def test_1(here): here.append("1")
    def test_crash(here):
        assert here == [1, "1"]
        print("said before", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    def test_3(here): assert here == [1]; here.append("3")
    def test_slow(here):
        assert here == [1, "3"]
        time.sleep({30 * TIME_SCALE})
    def test_5(here): assert here == [1]
    def test_fail(here): assert 0
    def test_7(here): assert here == [1]
    """,
        "--isolate-scope=module",
        f"--isolate-timeout={5 * TIME_SCALE}s",
    )
    assert inner.outcomes == {"passed": 4, "failed": 3}
    reasons = ["passed", "signal", "passed", "timeout", "passed", "failed", "passed"]
    assert [r["reason"] for r in inner.records] == reasons
    assert [r["sandbox"] for r in inner.records] == ["t1", "t1", "t2", "t2", "t3", "t3", "t3"]
    assert "said before" in inner.out


def test_time_is_counted_per_test(run: Runner) -> None:
    inner = run(
        f"""
        import pytest, time
        @pytest.mark.parametrize("i", range(4))
        def test_it(i): time.sleep({0.8 * TIME_SCALE})
        """,
        "--isolate-scope=module",
        f"--isolate-timeout={2.8 * TIME_SCALE}s",
    )
    assert inner.outcomes == {"passed": 4}
    assert all(0.75 * TIME_SCALE < r["wall_s"] < 2.8 * TIME_SCALE for r in inner.records)


@pytest.mark.needs("cgroup")
def test_usage_is_each_tests_own(run: Runner) -> None:
    inner = run(
        """
        import time

        def burn(seconds):
            end = time.process_time() + seconds
            while time.process_time() < end: pass

        def test_idle(): pass
        def test_busy(): burn(0.3)
        def test_idle_too(): pass
        def test_last(): burn(0.1)
        """,
        "--isolate-scope=module",
    )
    used = [r["cpu_user_s"] + r["cpu_system_s"] for r in inner.records]
    assert 0.3 <= used[1] < 0.45
    assert used[2] < 0.1 <= used[3] < 0.25
    # rusage tells of a process that has ended, and of all that it ever did.
    assert [r["minor_faults"] for r in inner.records] == [None] * 4


def test_death_between_two_tests_is_told(run: Runner, pytester: pytest.Pytester) -> None:
    base = pytester.path / "base"
    pytester.makeconftest(
        f"""
        import fcntl, pathlib, time

        def pytest_runtest_logfinish(nodeid):
            if nodeid.endswith("test_1"):
                pathlib.Path({str(base)!r}, "told").touch()
                with open({str(base / "lives")!r}) as lives:
                    fcntl.flock(lives, fcntl.LOCK_EX)
                time.sleep({0.1 * TIME_SCALE})
        """
    )
    inner = run(
        f"""
        import fcntl, os, pathlib, threading, time

        def die():
            while not pathlib.Path({str(base)!r}, "told").exists():
                time.sleep(0.01)
            os._exit(3)
        def test_1():
            global lives
            lives = open({str(base / "lives")!r}, "w")
            fcntl.flock(lives, fcntl.LOCK_EX)  # as long as this process lives
            threading.Thread(target=die).start()
        def test_2(): assert os.getpid() == 2
        """,
        "--isolate-scope=module",
        f"--basetemp={base}",
    )
    assert inner.outcomes == {"passed": 2, "warnings": 1}
    inner.result.stdout.fnmatch_lines(["*ended before it*exit status 3*it runs in a new one*"])


@pytest.mark.parametrize("args", [["-x"], ["--maxfail=1", "-v"]], ids=str)
def test_stopping_among_the_tests_of_a_module(run: Runner, args: list[str]) -> None:
    source = """
        import pytest

        @pytest.fixture(scope="module")
        def m():
            yield
            raise RuntimeError("m is broken")

        def test_1(m): pass
        def test_2(m): assert 0
        def test_3(m): pass
    """
    plain = run(source, "--isolate-off", "-rA", *args)
    isolated = run(source, "--isolate-scope=module", "-rA", *args)
    assert isolated.outcomes == plain.outcomes == {"passed": 1, "failed": 1, "errors": 1}
    assert isolated.out.count("m is broken") == plain.out.count("m is broken")


def test_stop_by_a_plugin_among_the_tests_of_a_module(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest

        @pytest.hookimpl(trylast=True)
        def pytest_runtest_logreport(report):
            if report.when == "call" and "test_2" in report.nodeid:
                stop(report)

        def pytest_collection_finish(session):
            global stop
            def stop(report): session.shouldstop = "enough"
        """
    )
    source = """
        import pytest

        @pytest.fixture(scope="module")
        def m():
            yield
            raise RuntimeError("m is broken")

        def test_1(m): pass
        def test_2(m): pass
        def test_3(m): pass
    """
    plain = run(source, "--isolate-off", "-rA")
    isolated = run(source, "--isolate-scope=module", "-rA")
    assert isolated.outcomes == plain.outcomes == {"passed": 2, "errors": 1}
    assert "m is broken" in isolated.out


@pytest.mark.parametrize("scope", ["function", "module"])
def test_exit_and_interrupt_tear_down(run: Runner, pytester: pytest.Pytester, scope: str) -> None:
    log = pytester.path / "log"
    log.touch()
    for how in ("pytest.exit('enough', 7)", "raise KeyboardInterrupt"):
        source = f"""
            import pytest

            def log(text):
                with open({str(log)!r}, "a") as file: file.write(text + ";")

            @pytest.fixture(scope="module")
            def m(): yield; log("m down")
            @pytest.fixture
            def f(): yield; log("f down")

            def test_1(m): pass
            def test_2(m, f): {how}
            def test_3(m): pass
        """
        log.write_text("")
        plain = run(source, "--isolate-off")
        expected = log.read_text()
        log.write_text("")
        isolated = run(source, f"--isolate-scope={scope}", f"--isolate-binds={log}:{log}:rw")
        assert log.read_text() == expected == "f down;m down;"
        assert isolated.result.ret == plain.result.ret
        assert isolated.outcomes == plain.outcomes


@pytest.mark.parametrize("dist", ["load", "loadscope", "worksteal"])
def test_xdist(run: Runner, dist: str) -> None:
    pytest.importorskip("xdist")
    inner = run(
        """
        import os, pytest

        @pytest.fixture(scope="session", params=[1, 2])
        def s(request): return request.param

        @pytest.fixture(scope="class")
        def c(request): request.cls.made = [*getattr(request.cls, "made", []), 1]; return request.cls.made

        class TestA:
            @pytest.mark.parametrize("i", range(6))
            def test_it(self, c, i): assert c == [1] and os.getpid() == 2
            def test_s(self, c, s): assert c == [1]
        class TestB(TestA): pass
        """,
        "-n2",
        f"--dist={dist}",
        "--isolate-scope=class",
    )
    assert inner.outcomes == {"passed": 16}
    shared = {(r["worker"], r["sandbox"]) for r in inner.records}
    assert 2 <= len(shared) < 16
    if dist == "loadscope":
        unparametrized = [r for r in inner.records if "test_it[" in r["nodeid"]]
        assert len({(r["worker"], r["sandbox"]) for r in unparametrized}) == 2


@pytest.mark.knows("pytest_cov")
def test_coverage_of_a_crash_is_all_but_its_own(run: Runner) -> None:
    pytest.importorskip("pytest_cov")
    inner = run(
        """
        import os
        def one():
            return 1
        def two():
            return 2
        def test_1(): one()
        def test_2(): two(); os._exit(1)
        def test_3(): pass
        """,
        "--isolate-scope=module",
        "--cov=.",
        "--cov-report=term-missing",
    )
    assert inner.outcomes == {"passed": 2, "failed": 1}
    (missing,) = re.findall(r"^test_it\.py .*%\s+(.*)$", inner.out, re.MULTILINE)
    assert missing == "5"  # what test_2 alone had reached


@pytest.mark.knows("rerunfailures")
def test_reruns_in_a_shared_sandbox(run: Runner) -> None:
    pytest.importorskip("pytest_rerunfailures")
    inner = run(
        """
        import pytest
        attempts = []
        @pytest.fixture(scope="module")
        def m(): yield
        def test_1(m): pass
        @pytest.mark.flaky(reruns=2)
        def test_2(m): attempts.append(1); assert len(attempts) == 2
        def test_3(m): assert len(attempts) == 2
        """,
        "--isolate-scope=module",
    )
    assert inner.outcomes == {"passed": 3, "rerun": 1}

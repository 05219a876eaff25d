"""However a test ends: one clear failure, the session goes on, and nothing hangs."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from .conftest import TIME_SCALE, Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

NEXT = "\n\ndef test_next(): pass\n"


def endings(body: str) -> str:
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    return f"import os, signal, sys, time\n\ndef test_it():\n    print('so far', flush=True)\n{lines}{NEXT}"


@pytest.mark.parametrize(
    ("body", "reason", "text"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal", "killed by SIGSEGV"),
        ("os.abort()", "signal", "killed by SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal", "killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "signal", "killed by SIGTERM"),
        ("os._exit(0)", "exited", "exit status 0 before the test did"),
        ("os._exit(7)", "exited", "exit status 7 before the test did"),
        ("os.execv('/bin/true', ['true'])", "exited", "exit status 0 before the test did"),
        ("os.execv('/bin/sleep', ['sleep', '1000'])", "channel", "closed its report channel and went on"),
        ("os.closerange(3, 1000)\nos._exit(0)", "exited", "exit status 0"),
    ],
    ids=["segv", "abort", "kill", "term", "exit0", "exit7", "exec", "exec-sleep", "closed-exit"],
)
def test_crash(run: Runner, body: str, reason: str, text: str) -> None:
    inner = run(endings(body))
    assert inner.outcomes == {"failed": 1, "passed": 1}
    assert text in inner.out
    assert "so far" in inner.out
    assert inner.record("test_it")["reason"] == reason
    assert inner.record("test_it")["outcome"] == "failed"
    assert inner.record("test_next")["outcome"] == "passed"
    assert "INTERNALERROR" not in inner.out


@pytest.mark.vm
def test_faulthandler_trace_names_the_line(run: Runner) -> None:
    inner = run(endings("os.kill(os.getpid(), signal.SIGSEGV)"))
    inner.result.stdout.fnmatch_lines(
        ["*Captured faulthandler*", "*Segmentation fault*", "*line 5 in test_it*"]
    )
    assert "runner/worker.py" not in inner.out


def test_sys_exit_is_a_failure_as_in_plain_pytest(run: Runner) -> None:
    inner = run(endings("sys.exit(3)"))
    assert inner.outcomes == {"failed": 1, "passed": 1}
    assert "SystemExit: 3" in inner.out
    assert inner.record("test_it")["reason"] == "failed"


def test_closed_descriptors_are_a_failure(run: Runner) -> None:
    inner = run(endings("os.closerange(3, 1000)"))
    assert inner.outcomes == {"failed": 1, "passed": 1}


def test_forked_copy_that_comes_back_does_not_report(run: Runner) -> None:
    inner = run(endings("if os.fork() == 0:\n    raise RuntimeError('in the copy')\nos.wait()"))
    assert inner.outcomes == {"passed": 2}
    assert "in the copy" not in inner.out


def test_garbage_on_the_channel(run: Runner) -> None:
    body = """
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
            os.write(fd, b"x" * 4096)
    except OSError:
        pass
time.sleep(1000)
"""
    inner = run(endings(body))
    assert inner.outcomes == {"failed": 1, "passed": 1}
    assert "report channel broke" in inner.out
    assert inner.record("test_it")["reason"] == "channel"


@pytest.mark.parametrize(
    ("message", "outcomes"),
    [
        ('["Report", {"$report_type": "Decoy", "location": 3}]', {"failed": 1, "passed": 1}),
        ('["InternalFailure", "made up"]', {"errors": 1, "passed": 2}),
        ('["Coverage", "x", false, {"decoy": "nothing"}]', {"passed": 2}),
        ('["Entered", {}, 1.0]', {"failed": 1, "passed": 1}),
        ("[" * 100_000, {"failed": 1, "passed": 1}),
    ],
    ids=["report", "internal", "coverage", "entered", "nested"],
)
def test_forged_messages_do_not_end_the_session(run: Runner, message: str, outcomes: dict[str, int]) -> None:
    body = f"""
import json, struct
MESSAGE = {message!r} if len({message!r}) < 1000 else "[" * 100_000
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        if os.readlink(f"/proc/self/fd/{{fd}}").startswith("socket:"):
            data = MESSAGE.encode()
            os.write(fd, struct.pack("!I", len(data)) + data)
    except OSError:
        pass
"""
    inner = run(endings(body))
    assert {k: v for k, v in inner.outcomes.items() if k != "warnings"} == outcomes
    assert "INTERNALERROR" not in inner.out


@pytest.mark.parametrize(("where", "phase"), [("setup", "setup"), ("teardown", "teardown")])
def test_crash_in_a_fixture_is_an_error_of_its_phase(run: Runner, where: str, phase: str) -> None:
    before, after = ("os._exit(1)", "pass") if where == "setup" else ("pass", "os._exit(1)")
    inner = run(
        f"import os, pytest\n\n@pytest.fixture\ndef bad():\n    {before}\n    yield\n    {after}\n\n"
        f"def test_it(bad): pass{NEXT}"
    )
    assert inner.outcomes.get("errors") == 1
    inner.result.stdout.fnmatch_lines([f"*ERROR at {phase} of test_it*"])
    assert inner.record("test_it")["outcome"] == "error"


@pytest.mark.parametrize(
    "block",
    [
        pytest.param("pass", id="plain"),
        pytest.param(
            "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))", id="all-blocked", marks=pytest.mark.vm
        ),
        pytest.param("signal.signal(signal.SIGTERM, signal.SIG_IGN)", id="term-ignored"),
    ],
)
def test_timeout_ends_with_stacks(run: Runner, block: str) -> None:
    timeout_s = 3.0 * max(1.0, TIME_SCALE / 5)
    started = time.monotonic()
    inner = run(endings(f"{block}\ntime.sleep(1000)"), f"--isolate-timeout={timeout_s}")
    assert time.monotonic() - started < 60 * TIME_SCALE
    assert inner.outcomes == {"failed": 1, "passed": 1}
    assert f"timeout {timeout_s} s" in inner.out
    inner.result.stdout.fnmatch_lines(["*Captured faulthandler*", "*line 6 in test_it*"])
    assert "so far" in inner.out
    assert inner.record("test_it")["reason"] == "timeout"


def test_a_test_that_has_ended_in_time_has_not_timed_out(run: Runner, pytester: pytest.Pytester) -> None:
    """pytest was busy elsewhere when it told so; and it has more to tell than a socket holds."""
    timeout_s = 1.0 * TIME_SCALE
    pytester.makeconftest(
        f"""
        import pytest, time

        @pytest.hookimpl
        def pytest_runtest_logreport(report):
            if report.nodeid.endswith("test_first") and report.when == "call":
                time.sleep({timeout_s + 1})
        """
    )
    inner = run(
        f"""
        import pytest, time
        def test_first(): time.sleep(0.3)
        @pytest.mark.isolated(timeout={timeout_s})
        def test_it(): print("x" * 2_000_000)
        """,
        "--isolate-jobs=2",
    )
    assert inner.outcomes == {"passed": 2}


def test_a_child_that_never_comes_to_its_sandbox(run: Runner, pytester: pytest.Pytester) -> None:
    """It waits for a lock that a thread of pytest had, in a handler that a library has registered."""
    pytester.makeconftest("import os, time; os.register_at_fork(after_in_child=lambda: time.sleep(600))")
    inner = run("def test_it(): pass", f"--isolate-timeout={TIME_SCALE}")
    assert inner.outcomes == {"errors": 1}
    assert "timeout" in inner.out
    assert inner.record("test_it")["reason"] == "timeout"


def test_timeout_shows_every_thread(run: Runner) -> None:
    body = "import threading\nthreading.Thread(target=time.sleep, args=(1000,), name='other').start()\ntime.sleep(1000)"
    inner = run(endings(body), f"--isolate-timeout={3 * max(1.0, TIME_SCALE / 5)}")
    inner.result.stdout.fnmatch_lines(["*Thread 0x*", "*line 7 in test_it*"])


@pytest.mark.vm
def test_cpu_time(run: Runner) -> None:
    inner = run(endings("while True: pass"), "--isolate-cpu-time=300ms")
    assert inner.outcomes == {"failed": 1, "passed": 1}
    assert "cpu time limit" in inner.out
    assert inner.record("test_it")["reason"] == "cpu_time"


def test_xfail_covers_a_crash(run: Runner) -> None:
    inner = run(
        "import os, pytest\n\n@pytest.mark.xfail(reason='known')\ndef test_it(): os._exit(1)\n\n"
        "@pytest.mark.xfail(raises=ValueError)\ndef test_raises(): os._exit(1)\n"
    )
    assert inner.outcomes == {"xfailed": 1, "failed": 1}


def test_crash_with_a_broken_xfail_condition_does_not_end_the_session(
    run: Runner, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(
        """
        import os, pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_setup(item):
            if item.name == "test_crash":
                os.abort()
        """
    )
    inner = run(
        """
        import pytest

        @pytest.mark.xfail("no such name")
        def test_crash(): pass

        def test_after(): pass
        """
    )
    assert inner.outcomes == {"errors": 1, "passed": 1}
    assert "killed by SIGABRT" in inner.out


def test_pytest_exit_ends_the_session_with_its_code(run: Runner) -> None:
    inner = run("import pytest\n\ndef test_it(): pytest.exit('enough', returncode=9)" + NEXT)
    assert inner.result.ret == 9
    assert "enough" in inner.out
    assert "test_next" not in {r["nodeid"] for r in inner.records}


def test_keyboard_interrupt_of_a_test_ends_the_session(run: Runner) -> None:
    inner = run("def test_it(): raise KeyboardInterrupt" + NEXT)
    assert inner.result.ret == pytest.ExitCode.INTERRUPTED


def test_wrong_options_fail_their_test_only(run: Runner) -> None:
    inner = run(
        "import pytest\n\n@pytest.mark.isolated(memroy='1G')\ndef test_typo(): pass\n\n"
        "@pytest.mark.isolated(memory='lots')\ndef test_value(): pass" + NEXT
    )
    assert inner.outcomes == {"errors": 2, "passed": 1}
    assert "did you mean memory?" in inner.out
    assert "@pytest.mark.isolated(memory=…)" in inner.out


def children_of(pid: int) -> set[int]:
    found: set[int] = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = pathlib.Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(stat[1]) in {pid, *found} and stat[0] != "Z":
                found.add(int(entry))
    return found


def alive(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start_and_wait_until_ready(pytester: pytest.Pytester) -> tuple[subprocess.Popen[bytes], set[int]]:
    """A pytest in the middle of an isolated test that has children, and all processes below that pytest."""
    pytester.makepyfile(
        """
        import os, pathlib, time

        def test_it(tmp_path_factory):
            for _ in range(3):
                if os.fork() == 0:
                    os.setsid()
                    time.sleep(1000)
            (tmp_path_factory.getbasetemp() / "ready").touch()
            time.sleep(1000)
        """
    )
    base = pytester.path / "base"
    pytest_process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--isolate-all", f"--basetemp={base}", "-p", "no:cacheprovider"],
        cwd=pytester.path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30 * TIME_SCALE
    while not (base / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return pytest_process, children_of(pytest_process.pid)


def wait_until_gone(family: set[int]) -> None:
    deadline = time.monotonic() + 2 * TIME_SCALE
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [pid for pid in family if alive(pid)]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, id="kill", marks=pytest.mark.vm),
        pytest.param(signal.SIGTERM, id="term"),
        pytest.param(signal.SIGINT, id="int"),
    ],
)
def test_nothing_outlives_pytest(pytester: pytest.Pytester, number: signal.Signals) -> None:
    pytest_process, family = start_and_wait_until_ready(pytester)
    assert len(family) >= 2
    pytest_process.send_signal(number)
    pytest_process.wait(timeout=30 * TIME_SCALE)
    wait_until_gone(family)


@pytest.mark.vm
def test_next_run_removes_what_a_killed_run_and_its_supervisor_left(
    pytester: pytest.Pytester, run: Runner
) -> None:
    pytest_process, family = start_and_wait_until_ready(pytester)
    (supervisor,) = (
        pid for pid in family if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "isolate-superv"
    )
    for pid in (pytest_process.pid, supervisor):
        os.kill(pid, signal.SIGKILL)
    pytest_process.wait(timeout=30 * TIME_SCALE)
    wait_until_gone(family)
    assert run("def test_it(): pass", "test_it.py").outcomes == {"passed": 1}
    # That no cgroup is left either is the check after every test here.


@pytest.mark.vm
def test_death_of_the_supervisor_is_an_error_and_no_hang(run: Runner) -> None:
    inner = run(
        """
        import os, pathlib, pytest, signal

        @pytest.fixture(scope="module")
        def supervisor():
            children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            return next(
                int(pid) for pid in children
                if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "isolate-superv"
            )

        def test_first(): pass

        @pytest.mark.not_isolated(reason="kills the supervisor of this very run")
        def test_kills(supervisor): os.kill(supervisor, signal.SIGKILL)

        def test_after(): pass

        def test_last(): pass
        """
    )
    assert "INTERNALERROR" not in inner.out
    assert inner.outcomes["passed"] >= 3
    assert inner.outcomes.get("errors", 0) <= 1

"""Debugging over a terminal: --pdb, --trace and breakpoint() in an isolated test. And Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from .comparing import comparable
from .conftest import TIME_SCALE

pytestmark = pytest.mark.needs("user namespace")
pexpect: Any = pytest.importorskip("pexpect")
PROMPT = r"\(Pdb\) "

SUITE = """
    def test_fail():
        value = 41 + 1
        assert value == 0

    def test_break():
        value = 7 * 6
        breakpoint()
        assert value == 42

    def test_next(): pass
"""


class Terminal:
    def __init__(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(test_it=SUITE)
        self._cwd = str(pytester.path)
        self.child: Any = None

    def start(self, *args: str) -> Any:
        command = ["-m", "pytest", "--isolate-all", "-p", "no:cacheprovider", *args]
        self.child = pexpect.spawn(
            sys.executable, command, cwd=self._cwd, encoding="utf-8", timeout=30 * TIME_SCALE
        )
        self.child.setecho(False)
        return self.child

    def say(self, line: str, answer: str = "") -> None:
        """At the prompt."""
        self.child.expect(PROMPT)
        self.child.sendline(line)
        if answer:
            self.child.expect(answer)

    def end(self) -> tuple[int, str]:
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus, self.child.before


@pytest.fixture
def terminal(pytester: pytest.Pytester) -> Iterator[Terminal]:
    terminal = Terminal(pytester)
    yield terminal
    if terminal.child is not None:
        terminal.child.close(force=True)


@pytest.mark.parametrize("args", [[], ["-s"]], ids=["captured", "not-captured"])
def test_pdb(terminal: Terminal, args: list[str]) -> None:
    terminal.start("--pdb", "-k", "fail or next", *args)
    terminal.say("p value", "42")
    terminal.say("c")
    status, out = terminal.end()
    assert status == 1, out
    assert "1 passed" in out
    assert "1 failed" in out


def test_quitting_ends_the_session(terminal: Terminal) -> None:
    terminal.start("--pdb", "-k", "fail or next")
    terminal.say("q")
    status, out = terminal.end()
    assert status == pytest.ExitCode.INTERRUPTED
    assert "Quitting debugger" in out
    assert "passed" not in out


@pytest.mark.parametrize("args", [[], ["-s"]], ids=["captured", "not-captured"])
def test_breakpoint(terminal: Terminal, args: list[str]) -> None:
    terminal.start("-k", "break or next", *args)
    terminal.say("p value", "42")
    terminal.say("c")
    status, out = terminal.end()
    assert status == 0, out
    assert "2 passed" in out


@pytest.mark.parametrize("args", [[], ["-s"]], ids=["captured", "not-captured"])
def test_breakpoint_beside_other_tests(terminal: Terminal, args: list[str]) -> None:
    child = terminal.start("-k", "break or next", "--isolate-jobs=2", *args)
    child.expect("PDB set_trace")
    terminal.say("p value", "42")
    terminal.say("c")
    status, out = terminal.end()
    assert status == 0, out
    assert "2 passed" in out


def test_breakpoint_before_its_turn(terminal: Terminal, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it=f"""
        import time
        def test_slow(): time.sleep({2 * TIME_SCALE})
        def test_break(): breakpoint()
        """
    )
    child = terminal.start("--isolate-jobs=2", "-v")
    child.expect(PROMPT)
    time.sleep(3 * TIME_SCALE)  # the slow one ends, and is not told of
    child.sendline("p 6 * 7")
    assert child.expect(["PASSED", "42"]) == 1
    terminal.say("c")
    assert "2 passed" in terminal.end()[1]


def test_trace(terminal: Terminal) -> None:
    terminal.start("--trace", "-k", "next").expect("PDB runcall")
    terminal.say("c")
    assert terminal.end()[0] == 0


@pytest.mark.knows("timeout")
def test_nobody_who_debugs_is_timed_out(terminal: Terminal) -> None:
    pytest.importorskip("pytest_timeout")
    terminal.start("-k", "break", "--timeout=4", "--isolate-timeout=4s", "-o", "faulthandler_timeout=4")
    terminal.child.expect(PROMPT)
    time.sleep(5.5)
    terminal.child.sendline("p value")
    terminal.child.expect("42")
    terminal.say("c")
    status, out = terminal.end()
    assert status == 0, out
    assert "1 passed" in out


def test_interrupt_at_the_prompt_is_for_the_debugger(terminal: Terminal) -> None:
    terminal.start("-k", "break or next").expect(PROMPT)
    terminal.child.sendintr()
    terminal.child.expect("KeyboardInterrupt")
    terminal.say("p value", "42")
    terminal.say("c")
    status, out = terminal.end()
    assert status == 0, out
    assert "2 passed" in out


# ---- Ctrl-C ---------------------------------------------------------------------------------------------

SLEEPING = """
    import os, pytest, time

    @pytest.fixture(scope="module")
    def shared():
        yield
        print("shared down")

    @pytest.fixture
    def own():
        yield
        print("own down")

    def test_before(shared): pass

    def test_sleeps(shared, own, tmp_path_factory):
        ready = tmp_path_factory.getbasetemp() / "ready"
        os.close(os.open(ready, os.O_CREAT)); time.sleep(1000)  # whoever sees it finds nothing but this line
"""


def interrupted(pytester: pytest.Pytester, mode: str, *, group: bool, times: int = 1) -> tuple[int, str]:
    base = pytester.path / f"base{mode}{group}"
    command = [sys.executable, "-m", "pytest", "-sv", "-p", "no:cacheprovider", f"--basetemp={base}", mode]
    process = subprocess.Popen(
        command, cwd=pytester.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30 * TIME_SCALE
    while not (base / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for _ in range(times):
        (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
        time.sleep(0.1)
    out, _ = process.communicate(timeout=30 * TIME_SCALE)
    return process.returncode, out


@pytest.mark.parametrize("group", [True, False], ids=["ctrl-c", "kill"])
def test_interrupt(pytester: pytest.Pytester, group: bool) -> None:
    """Fixtures are torn down in order, and the place is named, as in plain pytest."""
    pytester.makepyfile(test_it=SLEEPING)
    plain, isolated = (
        interrupted(pytester, mode, group=group) for mode in ("--isolate-off", "--isolate-all")
    )
    assert plain[0] == isolated[0] == pytest.ExitCode.INTERRUPTED
    assert comparable(isolated[1]) == comparable(plain[1])
    assert "own down\nshared down" in isolated[1]
    assert "test_it.py:17: KeyboardInterrupt" in isolated[1]


def test_a_test_that_ignores_the_interrupt_does_not_keep_pytest(pytester: pytest.Pytester) -> None:
    ignoring = SLEEPING.replace("os.close(", "import signal; signal.pthread_sigmask(0, {2}); os.close(")
    pytester.makepyfile(test_it=ignoring)
    started = time.monotonic()
    assert interrupted(pytester, "--isolate-all", group=True)[0] == pytest.ExitCode.INTERRUPTED
    assert time.monotonic() - started < 20 * TIME_SCALE

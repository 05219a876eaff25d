"""Processes that a test has left: which of them live, and what they are called."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pytest_isolate.kernel import leftover
from pytest_isolate.kernel.leftover import (
    BUSY_GRACE_S,
    GRACE_S,
    MOST_COMMANDS,
    are_ending,
    commands_of,
    living,
    look_at,
)


@contextmanager
def nameless(count: int) -> Iterator[list[int]]:
    """Processes that have zeroed their command lines (proc_pid_stat(5), arg_start and arg_end)."""
    pids = []
    told, tell = os.pipe()
    for _ in range(count):
        if (pid := os.fork()) == 0:
            with open("/proc/self/stat") as file:
                start, end = map(int, file.read().rpartition(") ")[2].split()[45:47])
            ctypes.memset(start, 0, end - start)
            os.write(tell, b"x")
            signal.pause()
        pids.append(pid)
    try:
        for _ in range(count):
            os.read(told, 1)
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(told)
        os.close(tell)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr("pytest_isolate.kernel.leftover.time.sleep", slept.append)
    return slept


def test_a_zombie_has_ended() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert commands_of([pid]) == {}
    os.waitpid(pid, 0)
    (command,) = commands_of([os.getpid(), pid]).values()
    assert command.startswith(sys.orig_argv[0])


def test_one_that_is_about_to_end_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has given its memory back, and is no zombie yet."""
    flags = {1: 0x400040, 2: 0x400044}

    def read(path: str) -> bytes:
        *_, pid, name = path.split("/")
        return f"{pid} (a) b) R 1 1 1 0 -1 {flags[int(pid)]} 0".encode() if name == "stat" else b""

    monkeypatch.setattr(leftover, "_read", read)
    assert [*living([1, 2])] == [(1, "a) b")]
    assert commands_of([1, 2]) == {1: "a) b"}


@pytest.mark.parametrize(
    ("state", "flags", "long"),
    [("R", 0, True), ("D", 0, True), ("S", 0, False), ("S", 4, True), ("T", 0, False), ("Z", 0, None)],
)
def test_who_needs_a_processor_is_waited_for_longer(
    state: str, flags: int, long: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftover, "_read", lambda _: f"1 (a) b) {state} 1 1 1 0 -1 {flags} 0".encode())
    assert are_ending([1], 0) is (long is not None)
    assert are_ending([1], GRACE_S) is bool(long)
    assert not are_ending([1], BUSY_GRACE_S)


def test_who_has_no_command_line_is_waited_for_once(sleeps: list[float]) -> None:
    """By all together: pytest does nothing else meanwhile."""
    with nameless(20) as pids:
        found = look_at([*pids, os.getpid()])
    assert len(sleeps) == 1
    assert sleeps[0] < 0.01
    assert {left.pid for left in found} == {*pids, os.getpid()}
    commands = {left.command for left in found if left.pid != os.getpid()}
    assert len(commands) == 1
    assert commands.pop() in sys.executable


def test_of_very_many_only_some_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def read(path: str) -> bytes:
        *_, pid, name = path.split("/")
        if name == "cmdline":
            asked.append(pid)
            return b"a\0b\0"
        return f"{pid} (a) S 1 1 1 0 -1 0".encode()

    monkeypatch.setattr(leftover, "_read", read)
    commands = commands_of(range(1, 1001))
    assert len(asked) == MOST_COMMANDS
    assert len(commands) == 1000
    assert {*commands.values()} == {"a b", "a"}


def test_whether_any_lives_takes_one_look(sleeps: list[float]) -> None:
    with nameless(2) as pids:
        assert next(living(pids), None) is not None
    assert sleeps == []

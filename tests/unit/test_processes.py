from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from pytest_isolate.kernel import leftover
from pytest_isolate.kernel.leftover import GRACE_S
from pytest_isolate.runner.observe import audit, processes

TRACKER = "python3 -c from multiprocessing.resource_tracker import main;main(15)"
PID = 7


def commands(monkeypatch: pytest.MonkeyPatch, seen: Iterator[str]) -> None:
    """Of one process: what it is called, each time that somebody looks, until it has ended."""

    def commands_of(pids: Iterable[int]) -> dict[int, str]:
        command = next(seen, "") if PID in pids else ""
        return {PID: command} if command else {}

    monkeypatch.setattr(processes, "commands_of", commands_of)
    monkeypatch.setattr(leftover, "are_ending", lambda pids, waited_s: waited_s < GRACE_S)
    monkeypatch.setattr(processes, "_present", lambda: {PID})
    monkeypatch.setattr(audit, "_handlers", {})


def test_a_helper_that_gets_its_command_line_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a process that was just started may be in exec for some milliseconds."""
    commands(monkeypatch, iter(["python3", "python3", *[TRACKER] * 1000]))
    observer = processes.Processes()
    assert [*observer.found()] == []
    assert observer.settled() == []


def test_what_was_started_is_told_by_its_last_name(monkeypatch: pytest.MonkeyPatch) -> None:
    commands(monkeypatch, iter(["sh -c daemon", *["daemon"] * 1000]))
    observer = processes.Processes()
    assert [violation.what for violation in observer.found()] == ["left a process: daemon"]
    assert observer.settled() == [PID]


def test_what_ends_in_a_moment_was_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    commands(monkeypatch, iter(["sleep 0"] * 3))
    observer = processes.Processes()
    assert [*observer.found()] == []

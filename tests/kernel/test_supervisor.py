"""A supervisor that does not answer: pytest does not wait for ever."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator

import pytest

from pytest_isolate.errors import SupervisorError
from pytest_isolate.kernel import supervisor as module
from pytest_isolate.kernel.supervisor import Ready, Supervisor
from pytest_isolate.syscalls.program import Program


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr(module, "ANSWER_S", 0.2)
    supervisor = Supervisor()
    os.kill(supervisor.pid, signal.SIGSTOP)
    yield supervisor
    supervisor.close()


def is_dead(supervisor: Supervisor) -> bool:
    return os.waitid(os.P_PID, supervisor.pid, os.WEXITED | os.WNOWAIT) is not None


def test_counts(stopped: Supervisor) -> None:
    stopped.ask_counts(1)
    begun = time.monotonic()
    with pytest.raises(SupervisorError, match="did not answer within"):
        stopped.look_ahead(1, until_counts=True)
    assert time.monotonic() - begun < 10
    assert is_dead(stopped)


def test_requests(stopped: Supervisor) -> None:
    def fill() -> None:
        for _ in range(100_000):
            stopped.ask_counts(1)

    with pytest.raises(SupervisorError, match="did not answer within"):
        fill()
    assert is_dead(stopped)


def test_one_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 10.0)
    supervisor = Supervisor()
    supervisor.ask_counts(1)
    (counts,) = supervisor.look_ahead(1, until_counts=True)
    assert counts.sandbox_id == 1
    supervisor.close()


def test_an_answer_that_pytest_has_not_read_counts() -> None:
    """It was busy elsewhere, as with a fixture that takes minutes."""
    supervisor = Supervisor()
    sandbox_id = supervisor.create(0, Program())
    poll = select.poll()
    poll.register(supervisor, select.POLLIN)
    assert poll.poll(10_000)
    supervisor.expect(sandbox_id)
    reply = supervisor.receive()
    assert isinstance(reply, Ready)
    assert reply.sandbox_id == sandbox_id
    supervisor.close()

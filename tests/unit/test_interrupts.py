"""Ctrl-C that waits until it can lose nothing."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from pytest_isolate.kernel import interrupts, process


def test_it_is_kept_until_somebody_waits() -> None:
    done = []
    with interrupts.deferred():
        signal.raise_signal(signal.SIGINT)
        done.append("work")
        with pytest.raises(KeyboardInterrupt), interrupts.waiting():
            done.append("waited")
        with interrupts.waiting():
            done.append("waited again")
    assert done == ["work", "waited again"]


def test_it_raises_while_somebody_waits() -> None:
    with interrupts.deferred(), pytest.raises(KeyboardInterrupt), interrupts.waiting():
        signal.raise_signal(signal.SIGINT)


def test_it_raises_at_the_end_at_last() -> None:
    done = []

    def work() -> None:
        with interrupts.deferred():
            signal.raise_signal(signal.SIGINT)
            done.append("work")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["work"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_work_is_not_hidden() -> None:
    def fail() -> None:
        with interrupts.deferred():
            signal.raise_signal(signal.SIGINT)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail()
    with interrupts.deferred():
        pass  # nothing of it is left


def test_the_handler_of_somebody_else_stays() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        with interrupts.deferred():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]


def test_only_the_main_thread_hears_signals() -> None:
    handlers: list[object] = []

    def work() -> None:
        with interrupts.deferred():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


def test_a_forked_child_has_the_handler_from_before() -> None:
    with interrupts.deferred():
        pid = process.fork()
        if pid == 0:
            os._exit(signal.getsignal(signal.SIGINT) is not signal.default_int_handler)
        status = os.waitpid(pid, 0)[1]
    assert status == 0

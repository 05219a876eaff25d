"""What a process has around it, as C sees it."""

from __future__ import annotations

import fcntl
import locale
import os
import resource
import signal
import subprocess
import sys

import pytest

from pytest_isolate.kernel.look import State, open_descriptors, process_state


@pytest.mark.parametrize("number", [100, 127, 128, 700, 1023])
def test_descriptors_with_high_numbers_are_seen(number: int) -> None:
    before = open_descriptors()
    opened = fcntl.fcntl(1, fcntl.F_DUPFD, number)  # or the next that is free
    try:
        now = open_descriptors()
    finally:
        os.close(opened)
    assert [fd for fd in range(len(now)) if now[fd] != before[fd]] == [opened]
    assert open_descriptors() == before


def test_descriptors_beyond_a_limit_that_came_later_are_seen() -> None:
    code = (
        "import os, resource; from pytest_isolate.kernel.look import open_descriptors;"
        "os.dup2(1, 200); resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50));"
        "print([fd for fd, is_open in enumerate(open_descriptors()) if is_open])"
    )
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 200
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[0, 1, 2, 200]\n"


def test_process_state_has_umask_signals_and_locale() -> None:
    then = State.of(process_state())
    mask = os.umask(0o057)
    kept = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    name = locale.setlocale(locale.LC_ALL)
    locale.setlocale(locale.LC_ALL, "C" if name != "C" else "C.UTF-8")
    try:
        now = State.of(process_state())
    finally:
        os.umask(mask)
        signal.signal(signal.SIGUSR2, kept)
        locale.setlocale(locale.LC_ALL, name)
    assert (then.umask, now.umask) == (mask, 0o057)
    assert then.locale != now.locale
    changed = [n for n, (old, new) in enumerate(zip(then.signals, now.signals, strict=True), 1) if old != new]
    assert changed == [signal.SIGUSR2]
    assert now.signals[signal.SIGUSR2 - 1] == 1
    assert State.of(process_state()) == then

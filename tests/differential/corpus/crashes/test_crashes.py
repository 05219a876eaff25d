import ctypes
import os
import signal
import sys

import pytest


def test_segfault():
    print("before")
    ctypes.string_at(0)


def test_abort():
    os.abort()


def test_exit():
    os._exit(3)


def test_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def test_exec():
    os.execl(sys.executable, sys.executable, "-c", "pass")


@pytest.fixture
def crashing():
    os.kill(os.getpid(), signal.SIGBUS)


def test_setup(crashing):
    pass


@pytest.fixture
def crashing_late():
    yield
    os.kill(os.getpid(), signal.SIGILL)


def test_teardown(crashing_late):
    pass


@pytest.mark.xfail(reason="it crashes")
def test_xfail():
    os.abort()


@pytest.mark.isolated(timeout="500ms")
def test_hangs():
    import time

    time.sleep(60)


@pytest.mark.isolated(memory="32M")
def test_out_of_memory():
    return bytearray(64 * 2**20)


def test_afterwards():
    pass

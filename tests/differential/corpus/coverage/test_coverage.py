import threading

import measured
import pytest


@pytest.mark.parametrize("n", [-1, 0, 1])
def test_sign(n):
    assert measured.sign(n) == n


def test_thread():
    thread = threading.Thread(target=measured.in_thread)
    thread.start()
    thread.join()


def test_failing():
    measured.failing()


def test_lazy():
    import lazy

    assert lazy.value(True) == 1

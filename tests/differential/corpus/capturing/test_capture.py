import os
import subprocess
import sys

import pytest


@pytest.fixture
def noisy():
    print("set-up out")
    sys.stderr.write("set-up err\n")
    yield
    print("teardown out")
    sys.stderr.write("teardown err\n")


def test_failing(noisy):
    print("call out")
    sys.stderr.write("call err\n")
    assert 0


def test_passing(noisy):
    print("call out")


def test_descriptors():
    os.write(1, b"by descriptor 1\n")
    os.write(2, b"by descriptor 2\n")
    assert 0


def test_subprocess():
    subprocess.run([sys.executable, "-c", "import sys; print('child out'); print('child err', file=sys.stderr)"], check=True)
    assert 0


def test_capsys(capsys):
    print("hello")
    print("world", file=sys.stderr)
    assert capsys.readouterr() == ("hello\n", "world\n")
    with capsys.disabled():
        print("disabled")


def test_capfd(capfd):
    os.write(1, b"hello\n")
    assert capfd.readouterr().out == "hello\n"
    print("afterwards")


def test_capsysbinary(capsysbinary):
    sys.stdout.buffer.write(b"\xff\xfe")
    assert capsysbinary.readouterr().out == b"\xff\xfe"


def test_capfd_failing(capfd):
    print("left in capfd")
    assert 0


def test_no_newline():
    sys.stdout.write("no newline")
    sys.stderr.write("no newline either")
    assert 0


def test_not_utf8():
    os.write(1, b"\xff\xfe\n")
    assert 0


def test_stdin():
    with pytest.raises((OSError, EOFError)):
        input()


def test_much():
    print("x" * 300_000)
    assert 0


def test_is_a_terminal():
    assert not sys.stdout.isatty()

"""The names of pytest that a fresh interpreter needs (``runner/pytest_private.py``, last section).

A test that fails here says what a release of pytest has moved: put it right in that one file.
"""

from __future__ import annotations

import pytest

HEAD = """
    import logging, os, pathlib
    from pytest_isolate.runner import pytest_private
"""


def passes(pytester: pytest.Pytester, source: str, *args: str) -> None:
    pytester.makepyfile(f"{HEAD}\n{source}")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)
    assert result.parseoutcomes() == {"passed": 1}


def test_basetemp(pytester: pytest.Pytester) -> None:
    passes(
        pytester,
        """
    def test_it(pytestconfig, tmp_path_factory, tmp_path):
        assert pytest_private.basetemp(pytestconfig) == str(tmp_path_factory.getbasetemp())
        pytest_private.adopt_basetemp(pytestconfig, tmp_path)
        assert tmp_path_factory.getbasetemp() == tmp_path
        """,
    )


def test_capture(pytester: pytest.Pytester) -> None:
    passes(
        pytester,
        """
    def test_it(pytestconfig, tmp_path):
        assert os.path.samestat(os.fstat(pytest_private.capture_fds(pytestconfig)[0]), os.fstat(1))
        assert os.path.samestat(os.fstat(pytest_private.capture_fds(pytestconfig)[1]), os.fstat(2))
        assert not os.path.samestat(os.fstat(pytest_private.stdin_fd(pytestconfig)), os.fstat(0))
        files = [open(tmp_path / name, "w+b") for name in ("out", "err")]
        pytest_private.share_capture(pytestconfig, [os.dup(file.fileno()) for file in files])
        manager = pytest_private.capture_manager(pytestconfig)
        manager.suspend_global_capture()
        manager.resume_global_capture()
        os.write(1, b"to out")
        os.write(2, b"to err")
        assert [(tmp_path / name).read_text() for name in ("out", "err")] == ["to out", "to err"]
        assert pytest_private.read_capture(pytestconfig) == ("to out", "to err")
        """,
    )


@pytest.mark.parametrize("method", ["no", "sys", "tee-sys"])
def test_no_capture_of_descriptors(pytester: pytest.Pytester, method: str) -> None:
    passes(
        pytester,
        """
    def test_it(pytestconfig):
        assert pytest_private.capture_fds(pytestconfig) == []
        assert pytest_private.stdin_fd(pytestconfig) is None
        pytest_private.share_capture(pytestconfig, [])
        """,
        f"--capture={method}",
    )


@pytest.mark.parametrize("color", ["yes", "no"])
def test_color(pytester: pytest.Pytester, color: str) -> None:
    passes(
        pytester,
        f"""
    def test_it(pytestconfig):
        assert pytest_private.has_color(pytestconfig) is {color == "yes"}
        """,
        f"--color={color}",
    )


def test_log_file(pytester: pytest.Pytester) -> None:
    passes(
        pytester,
        """
    def test_it(pytestconfig, tmp_path):
        logging.getLogger().error("one")
        fd = pytest_private.log_file_fd(pytestconfig)
        assert os.path.samestat(os.fstat(fd), os.stat("out.log"))
        pytest_private.adopt_log_file(pytestconfig, os.open("other.log", os.O_WRONLY | os.O_CREAT))
        logging.getLogger().error("two")
        assert "one" in pathlib.Path("out.log").read_text()
        assert "two" in pathlib.Path("other.log").read_text()
        """,
        "--log-file=out.log",
    )


def test_no_log_file(pytester: pytest.Pytester) -> None:
    passes(
        pytester,
        """
    def test_it(pytestconfig):
        assert pytest_private.log_file_fd(pytestconfig) is None
        """,
    )

"""What a fresh interpreter takes over from its session: see test_pytest_private.py."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from pytest_isolate.runner import pytest_private as private

from .conftest import Inner

pytestmark = pytest.mark.usefixtures("cure")

SOURCE = "def test(tmp_path_factory): pass"


def is_same_file(fd: int, other: int | Path) -> bool:
    return os.path.samestat(os.fstat(fd), os.stat(other))


def test_directory() -> None:
    """_pytest/__init__.py, ``__file__``: what pytest opens for a test would be a package's own."""
    assert Path(private.directory(), "_py", "path.py").exists()


def test_basetemp(inner: Inner) -> None:
    """_pytest/tmpdir.py, ``Config._tmp_path_factory`` (since 3.9): ``tmp_path`` would be nowhere to be found."""

    def look(item: pytest.Item) -> object:
        base: Path = item.funcargs["tmp_path_factory"].getbasetemp()  # type: ignore[attr-defined]
        return private.basetemp(item.config) == str(base)

    assert inner(SOURCE, pytest_runtest_call=look).value is True


def test_adopt_basetemp(inner: Inner, tmp_path: Path) -> None:
    """_pytest/tmpdir.py, ``TempPathFactory._basetemp`` (since 3.9): ``tmp_path`` of a fresh interpreter would be
    another, and pytest would delete older ones."""

    def look(item: pytest.Item) -> object:
        private.adopt_basetemp(item.config, tmp_path)
        return item.funcargs["tmp_path_factory"].getbasetemp()  # type: ignore[attr-defined]

    assert inner(SOURCE, pytest_runtest_call=look).value == tmp_path


METHODS = ["fd", "sys", "tee-sys", "no"]


@pytest.mark.parametrize("method", METHODS)
def test_capture_fds(inner: Inner, method: str) -> None:
    """_pytest/capture.py, ``CaptureManager._global_capturing``, ``MultiCapture.out`` and ``.err``,
    ``FDCapture.tmpfile``: output of a fresh interpreter would be lost."""

    def look(item: pytest.Item) -> object:
        return [
            is_same_file(fd, own) for fd, own in zip(private.capture_fds(item.config), (1, 2), strict=False)
        ]

    expected = [True, True] if method == "fd" else []
    assert inner(SOURCE, f"--capture={method}", pytest_runtest_call=look).value == expected


def test_share_capture(inner: Inner, tmp_path: Path) -> None:
    """_pytest/capture.py, ``FDCapture.tmpfile``: what a fresh interpreter says before it crashes would be lost."""
    paths = [tmp_path / "out", tmp_path / "err"]

    def look(item: pytest.Item) -> object:
        private.share_capture(item.config, [os.open(path, os.O_RDWR | os.O_CREAT) for path in paths])
        manager = private.capture_manager(item.config)
        assert manager is not None
        manager.suspend_global_capture()
        manager.resume_global_capture()
        os.write(1, b"to out")
        os.write(2, b"to err")
        return [path.read_text() for path in paths], private.read_capture(item.config)

    seen = inner(SOURCE, "--capture=fd", pytest_runtest_call=look)
    assert seen.value == (["to out", "to err"], ("to out", "to err"))


@pytest.mark.parametrize("method", METHODS)
def test_uncaptured_fd(inner: Inner, method: str) -> None:
    """_pytest/capture.py, ``MultiCapture.in_`` and ``FDCapture.targetfd_save``: a debugger in a fresh interpreter
    would have no keyboard."""
    outer = os.fstat(0)

    def look(item: pytest.Item) -> object:
        fd = private.uncaptured_fd(item.config, 0)
        return fd if fd is None else os.path.samestat(os.fstat(fd), outer)

    expected = True if method == "fd" else None
    assert inner(SOURCE, f"--capture={method}", pytest_runtest_call=look).value is expected


@pytest.mark.parametrize("color", ["yes", "no"])
def test_has_color(inner: Inner, color: str) -> None:
    """_pytest/terminal.py, ``TerminalReporter.hasmarkup``: failures in a fresh interpreter would lack colours."""

    def look(item: pytest.Item) -> object:
        return private.has_color(item.config)

    assert inner(SOURCE, f"--color={color}", pytest_runtest_call=look).value is (color == "yes")


def test_log_file_fd(inner: Inner, tmp_path: Path) -> None:
    """_pytest/logging.py, ``LoggingPlugin.log_file_handler`` (since 3.4): logs of a fresh interpreter would not be
    in the file of ``--log-file``."""
    path = tmp_path / "out.log"

    def look(item: pytest.Item) -> object:
        fd = private.log_file_fd(item.config)
        return fd if fd is None else is_same_file(fd, path)

    assert inner(SOURCE, f"--log-file={path}", pytest_runtest_call=look).value is True
    assert inner(SOURCE, pytest_runtest_call=look).value is None


def test_adopt_log_file(inner: Inner, tmp_path: Path) -> None:
    """_pytest/logging.py, ``LoggingPlugin.log_file_handler`` (since 3.4), a ``FileHandler``: logs of a fresh
    interpreter would not be in the file of ``--log-file``."""

    def look(item: pytest.Item) -> None:
        logging.getLogger().error("one")
        private.adopt_log_file(item.config, os.open(tmp_path / "other.log", os.O_WRONLY | os.O_CREAT))
        logging.getLogger().error("two")

    inner(SOURCE, f"--log-file={tmp_path / 'out.log'}", pytest_runtest_call=look)
    assert "one" in (tmp_path / "out.log").read_text()
    assert "two" in (tmp_path / "other.log").read_text()

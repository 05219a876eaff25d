"""Hooks, output and logs: see test_pytest_private.py."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from pytest_isolate.runner import pytest_private as private

from .conftest import Inner, record, report_of

pytestmark = pytest.mark.usefixtures("cure")


def test_divert_hooks(inner: Inner) -> None:
    """pluggy/_hooks.py, ``HookRelay``, and _pytest/main.py, ``Session.gethookproxy``: a child would report to the
    terminal, beside the parent."""
    caught: list[object] = []

    def relay(report: pytest.TestReport) -> None:
        caught.append(report.when)

    def warning(warning_message: warnings.WarningMessage, **_: object) -> None:
        caught.append(str(warning_message.message))

    def divert(session: pytest.Session) -> None:
        private.divert_hooks(session, {"pytest_runtest_logreport": relay, "pytest_warning_recorded": warning})
        session.config.hook.pytest_runtest_logreport(report=report_of("failed", None))

    source = """
        import warnings
        def test(): warnings.warn("said")
    """
    seen = inner(source, "-Wdefault", pytest_collection_finish=divert)
    assert caught == ["call", "setup", "call", "teardown", "said"]
    assert seen.outcomes == {}


def test_capture_manager(inner: Inner) -> None:
    """_pytest/capture.py, ``CaptureManager``: the parent's fixtures would print to the terminal."""

    def look(item: pytest.Item) -> object:
        manager = private.capture_manager(item.config)
        assert manager is not None
        manager.resume_global_capture()
        sys.stdout.write("kept")
        manager.suspend_global_capture(in_=False)
        return manager.is_globally_capturing(), manager.read_global_capture().out

    seen = inner("def test(): pass", pytest_runtest_protocol=look)
    assert seen.value == (True, "kept")
    assert "kept" not in seen.out


@pytest.mark.parametrize("method", ["fd", "sys", "tee-sys", "no"])
def test_read_capture(inner: Inner, method: str) -> None:
    """_pytest/capture.py, ``CaptureManager.read_global_capture``: what a crashed test printed would be lost."""

    def look(item: pytest.Item) -> object:
        sys.stdout.write("to out")
        sys.stderr.write("to err")
        return private.read_capture(item.config), private.read_capture(item.config)

    seen = inner("def test(): pass", f"--capture={method}", pytest_runtest_call=look)
    assert seen.value == (("", "") if method == "no" else ("to out", "to err"), ("", ""))


def test_catch_log(inner: Inner) -> None:
    """_pytest/logging.py, ``LoggingPlugin.log_level`` and ``.log_cli_handler``, ``catching_logs``,
    ``LogCaptureHandler`` (since 6.0): logs of the parent's fixtures would be in no report."""

    def look(item: pytest.Item) -> object:
        with private.catch_log(item.config, "setup") as records:
            logging.getLogger("x").warning("said")
            logging.getLogger("x").info("not said")
        return [record.getMessage() for record in records]

    seen = inner(
        "def test(): pass", "--log-cli-level=WARNING", "--log-level=WARNING", pytest_runtest_protocol=look
    )
    assert seen.value == ["said"]
    assert "live log setup" in seen.out
    assert inner("def test(): pass", "-pno:logging", pytest_runtest_protocol=look).value == []


def test_format_log(inner: Inner) -> None:
    """_pytest/logging.py, ``LoggingPlugin.formatter`` (since 3.3): logs would look another way than pytest's."""

    def look(item: pytest.Item) -> object:
        records = [record("one"), record("two")]
        return private.format_log(item.config, records), private.format_log(item.config, [])

    seen = inner("def test(): pass", "--log-format=%(message)s!", pytest_runtest_call=look)
    assert seen.value == ("one!\ntwo!", "")


def test_replay_log(inner: Inner) -> None:
    """_pytest/logging.py, ``LogCaptureHandler`` and ``_LiveLoggingStreamHandler._section_name_shown``: ``caplog`` and
    reports would miss what the parent's fixtures logged, or live logs show it twice."""
    source = """
        import logging
        def test(caplog):
            logging.getLogger().warning("its own")
            assert caplog.messages == ["replayed", "its own"]
            assert 0
    """

    def replay(item: pytest.Item) -> None:
        private.replay_log(item.config, [record("replayed")])

    live, _, report = inner(source, "--log-cli-level=WARNING", pytest_runtest_call=replay).out.partition(
        "=== FAIL"
    )
    assert "its own" in live
    assert "replayed" not in live
    assert "live log call" not in live
    assert "replayed" in report
    assert "assert 0" in report
    assert "live log call" in inner(source, "--log-cli-level=WARNING").out


def test_move_faulthandler(inner: Inner, tmp_path: Path) -> None:
    """_pytest/faulthandler.py, ``fault_handler_stderr_fd_key`` (since 7.3): traces of a child would go to the
    terminal, in between."""
    path = tmp_path / "trace"

    def move(session: pytest.Session) -> None:
        private.move_faulthandler(session.config, os.open(path, os.O_WRONLY | os.O_CREAT))  # pytest closes it

    def wait(item: pytest.Item) -> None:
        deadline = time.monotonic() + 30
        while "most recent call first" not in path.read_text() and time.monotonic() < deadline:
            time.sleep(1)  # the trace comes meanwhile: of frames that change, faulthandler can crash

    options = ["-o", "faulthandler_timeout=0.3"]
    seen = inner("def test(): pass", *options, pytest_collection_finish=move, pytest_runtest_call=wait)
    assert "most recent call first" in path.read_text()
    assert seen.outcomes == {"passed": 1}
    inner(
        "def test(): pass",
        "-pno:faulthandler",
        pytest_collection_finish=lambda session: private.move_faulthandler(session.config, 0),
    )


def test_catch_warnings(inner: Inner) -> None:
    """_pytest/warnings.py, ``catch_warnings_for_item`` (since 3.8): warnings of fixtures that are set up early
    would be another test's."""

    def look(item: pytest.Item) -> object:
        caught: list[dict[str, Any]] = []
        warnings.simplefilter("error")  # of the test that runs meanwhile
        with private.catch_warnings(item, [], caught):
            warnings.warn("ignored by the mark", stacklevel=1)
            warnings.warn("said", stacklevel=1)
        with pytest.raises(UserWarning):
            warnings.warn("raised", stacklevel=1)
        return [(each["nodeid"], str(each["warning_message"].message), each["when"]) for each in caught]

    source = "import pytest\n@pytest.mark.filterwarnings('ignore:ignored')\ndef test(): pass"
    assert inner(source, pytest_runtest_call=look).value == [("test_it.py::test", "said", "runtest")]


def test_terminal(inner: Inner) -> None:
    """_pytest/terminal.py, ``TerminalReporter._tw``; _pytest/_io/terminalwriter.py, ``TerminalWriter._file`` and
    ``.width_of_current_line`` (since 5.4): nobody would see what runs while a slow test does."""

    def look(item: pytest.Item) -> object:
        assert private.terminal(item.config) is None  # a file
        reporter: Any = item.config.pluginmanager.getplugin("terminalreporter")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reporter, "isatty", True)
            patch.setattr(reporter._tw, "_file", io.StringIO())
            patch.setattr(reporter._tw, "fullwidth", 10)
            terminal = private.terminal(item.config)
            assert terminal is not None
            reporter._tw.write("twelve wide.")
            terminal.write("x")
            return terminal.column, terminal.width, reporter._tw._file.getvalue()[-13:]

    seen = inner("def test(): pass", "--color=yes", pytest_runtest_protocol=look)
    assert seen.value == (2, 10, "twelve wide.x")

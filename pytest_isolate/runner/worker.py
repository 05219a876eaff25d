"""The child's side: run one item's whole protocol, and tell the parent what any plugin would be told."""

from __future__ import annotations

import faulthandler
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from pytest_isolate.kernel.readback import read_back
from pytest_isolate.runner import coverage_data, pytest_private
from pytest_isolate.runner.isolation import Isolation, enter_isolation
from pytest_isolate.sandbox.channel import ChildEnd
from pytest_isolate.sandbox.flight import STACKS_SIGNAL, Child
from pytest_isolate.sandbox.messages import (
    End,
    Entered,
    ExitRequested,
    InternalFailure,
    Interrupted,
    Message,
    Report,
    StopRequested,
    WarningRecorded,
)

__all__ = ["in_child", "run"]

_in_child = False


def in_child() -> bool:
    """Whether this process is the child of an isolated test."""
    return _in_child


def run(
    item: pytest.Item, child: Child, isolation: Callable[[ChildEnd], Isolation], host: dict[str, int]
) -> NoReturn:
    """Everything from the entered sandbox to the end of the process."""
    global _in_child  # noqa: PLW0603  one process, one answer
    _in_child = True
    channel = child.channel
    session = item.session
    channel.send(Entered(read_back(host), time.monotonic()))
    enter_isolation(isolation(channel))
    _prepare(item, child)
    before = (session.shouldstop, session.shouldfail)
    for message in _protocol(item):
        channel.send(message)
    if (session.shouldstop, session.shouldfail) != before:
        reason = session.shouldfail or session.shouldstop
        channel.send(StopRequested(str(reason), bool(session.shouldfail)))
    for message in coverage_data.collect():
        channel.send(message)
    _wind_down()
    channel.send(End(time.monotonic()))
    os._exit(0)


def _prepare(item: pytest.Item, child: Child) -> None:
    fd = child.faulthandler_fd
    if faulthandler.is_enabled():
        faulthandler.enable(file=fd)
    faulthandler.register(STACKS_SIGNAL, file=fd, all_threads=True, chain=True)  # to the default: the end
    pytest_private.move_faulthandler(item.config, fd)
    pytest_private.fix_native_id()
    pytest_private.disown_set_up(item)
    relay = _Reporter(item.config, child.channel)
    pytest_private.divert_hooks(
        item.session,
        {
            "pytest_runtest_logstart": _ignore,
            "pytest_runtest_logfinish": _ignore,
            "pytest_runtest_logreport": relay.report,
            "pytest_warning_recorded": relay.warning,
        },
    )


def _ignore(**_: object) -> None:
    """The parent has called this hook, or will."""


def _protocol(item: pytest.Item) -> list[Message]:
    """Run the protocol with every plugin's part in it; give what it ended with."""
    try:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    except pytest.exit.Exception as ending:
        return [ExitRequested(str(ending.msg), _int_or_none(ending.returncode))]
    except KeyboardInterrupt:
        return [Interrupted()]
    except BaseException:
        return [InternalFailure(traceback.format_exc())]
    return []


def _int_or_none(value: object) -> int | None:
    return int(value) if isinstance(value, int) else None


class _Reporter:
    """Turns hook calls into messages."""

    def __init__(self, config: pytest.Config, channel: ChildEnd) -> None:
        self._config = config
        self._channel = channel

    def _send(self, message: Message) -> None:
        if not self._channel.is_mine():
            os._exit(1)  # a process that the test forked has come back as if it were the test
        self._channel.send(message)

    def report(self, report: pytest.TestReport, **_: object) -> None:
        hook = self._config.hook
        if report.when == "call" and report.passed:
            # A test with failed subtests becomes a failed one here (subtests.py), from a count that only
            # this process has.
            hook.pytest_report_teststatus(report=report, config=self._config)
        data = hook.pytest_report_to_serializable(config=self._config, report=report)
        self._send(Report(data))

    def warning(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None = None,
        **_: object,
    ) -> None:
        category = warning_message.category
        self._send(
            WarningRecorded(
                text=str(warning_message.message),
                category=f"{category.__module__}.{category.__qualname__}",
                filename=warning_message.filename,
                lineno=warning_message.lineno,
                when=when,
                nodeid=str(nodeid),
                location=list(location) if location is not None else None,
            )
        )


def _wind_down() -> None:
    """What ``os._exit`` would skip and a test may count on."""
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._exit_function()  # as multiprocessing's own children do: joins and terminates theirs
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # closed by the test

"""Replaying in pytest what happened in a child: its reports and warnings, and the parent's own teardown."""

from __future__ import annotations

import os
import stat
import sys
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from pytest_isolate.errors import ChannelError
from pytest_isolate.runner import properties, pytest_private
from pytest_isolate.runner.checks import check
from pytest_isolate.runner.transcript import Transcript
from pytest_isolate.sandbox.messages import Report, WarningRecorded

__all__ = ["Capturing", "merge_teardown", "raise_at", "rebuild_all", "record_warning", "tear_down", "warn"]

#: compile() reads them all; the number comes from the child.
MAX_LINES = 10**6


def rebuild_all(item: pytest.Item, transcript: Transcript, *, start: int = 0) -> Iterator[pytest.TestReport]:
    """The reports that a child sent, from a position on."""
    for message in transcript.replay[start:]:
        if isinstance(message, Report):
            yield rebuild(item, message)


def rebuild(item: pytest.Item, message: Report) -> pytest.TestReport:
    """The report that a child sent. Raises whatever comes to mind of Python for data that is none, and
    :class:`ChannelError` with what plugins raise."""
    config = item.config
    data = dict(message.data)
    data["sections"] = [tuple(pair) for pair in data.get("sections", ())]  # JSON knows no tuples
    data["user_properties"] = [properties.unpack(pair) for pair in data.get("user_properties", ())]
    location = tuple(data["location"])
    # pytest keeps every report; what the item has already need not be kept again with each.
    data["location"] = item.location if location == item.location else location
    data["keywords"] = {sys.intern(name): value for name, value in data.get("keywords", {}).items()}
    if isinstance(data.get("longrepr"), list):
        data["longrepr"] = tuple(data["longrepr"])
    try:
        report: pytest.TestReport = config.hook.pytest_report_from_serializable(config=config, data=data)
    except Exception as error:  # of pytest's own, or of a plugin that may have a bug
        raise ChannelError(f"pytest_report_from_serializable raised {error!r}") from error
    if not isinstance(report, pytest.TestReport) or report.nodeid != item.nodeid:
        raise TypeError(f"not a report of this test: {report!r}")
    if message.opaque and isinstance(report.longrepr, str):
        report.longrepr = pytest_private.opaque_repr(report.longrepr)
    pytest_private.restore_subtest(report, data)
    pytest_private.set_failed_subtests(config, report, message.failed_subtests)
    return check(report, item)


def tear_down(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    """Tear down what the parent has set up and ``nextitem`` does not share; a report if that fails or says
    something."""
    config = item.config
    with Capturing(config), pytest_private.catch_log(config, "teardown") as records:
        call = pytest.CallInfo.from_call(
            lambda: pytest_private.tear_down_to(item.session, nextitem),
            when="teardown",
            reraise=(pytest.exit.Exception, KeyboardInterrupt),
        )
    out, err = pytest_private.read_capture(config)
    log = pytest_private.format_log(config, records)
    if call.excinfo is None and not (out or err or log):
        return []
    # Not by the hook: its implementations expect the item's own protocol around them, which ran in the child.
    report = pytest.TestReport.from_item_and_call(item, call)
    for name, text in (("stdout", out), ("stderr", err), ("log", log)):
        if text:
            report.sections.append((f"Captured {name} teardown", text))
    return [report]


def merge_teardown(
    reports: list[pytest.TestReport], parents: list[pytest.TestReport]
) -> list[pytest.TestReport]:
    """Plain pytest reports one teardown: the child's, with what the parent's adds to it."""
    for parent in parents:
        child = reports[-1] if reports and reports[-1].when == "teardown" else None
        if child is None:
            reports = [*reports, parent]
            continue
        child.sections = _merged(child.sections, parent.sections)
        child.duration += parent.duration
        if parent.failed and child.failed:
            child.longrepr = _both(child.longrepr, parent.longreprtext)
        elif parent.failed:
            child.outcome, child.longrepr = parent.outcome, parent.longrepr
    return reports


def _merged(sections: list[tuple[str, str]], added: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Sections of one title are one, as what was captured in one phase is."""
    texts = dict(sections)
    for title, text in added:
        before = texts.get(title, "")
        if not before.endswith(text):  # the parent's report has a copy of what all reports of the item share
            newline = "\n" if before and not before.endswith("\n") else ""
            texts[title] = before + newline + text
    return [*texts.items()]


def _both(first: Any, second: str) -> Any:
    """Two failures as one report has them, where plain pytest has a group of exceptions."""
    if not hasattr(first, "addsection"):
        return f"{first}\n\n{second}"
    first.addsection("another error during teardown", second)
    return first


def record_warning(item: pytest.Item, message: WarningRecorded) -> None:
    try:
        warning_message, location = _warning_message(message)
    except Exception as error:  # a child may send anything
        warn(item, f"a warning of this test is lost: {error!r}")
        return
    if message.when == "runtest":
        # pytest records the warnings of this test and reports them at its end: there, in their order.
        warnings._showwarnmsg(warning_message)  # type: ignore[attr-defined]
        return
    item.ihook.pytest_warning_recorded.call_historic(
        kwargs={
            "warning_message": warning_message,
            "when": message.when,
            "nodeid": message.nodeid,
            "location": location,
        }
    )


def _warning_message(message: WarningRecorded) -> tuple[warnings.WarningMessage, Any]:
    """And where pytest was. Raises whatever comes to mind of Python for what is no warning."""
    if message.when not in ("config", "collect", "runtest"):
        raise ValueError(f"no time of a warning: {message.when!r}")
    if message.location is not None:
        path, lineno, name = message.location
        if not isinstance(path, str) or type(lineno) is not int or not isinstance(name, str):
            raise ValueError(f"no place: {message.location!r}")
    category = _warning_category(message.category)
    warning_message = warnings.WarningMessage(
        _warning(category, message),
        category,
        message.filename,
        message.lineno,
        line=None if _has_end(message.filename) else "",  # else the line is looked for in the file
        source=_SOURCE if message.has_source else None,
    )
    return warning_message, tuple(message.location) if message.location is not None else None


def _has_end(path: str) -> bool:
    """False for a device, say. What is no file may have lines that ``linecache`` knows."""
    return not os.path.exists(path) or stat.S_ISREG(os.stat(path).st_mode)


def warn(item: pytest.Item, text: str) -> None:
    """Say something of an item that is no failure of it, even where warnings are errors."""
    path, lineno, _ = item.location
    warnings._showwarnmsg(  # type: ignore[attr-defined]
        warnings.WarningMessage(pytest.PytestWarning(text), pytest.PytestWarning, path, (lineno or 0) + 1)
    )


#: Of what has a source, pytest says how to learn where that was made.
_SOURCE = object()


def _warning_category(name: str) -> type[Warning]:
    """A warning class that exists already: nothing is imported on a child's word. One that only the child
    has, such as a class of a function, becomes one of the same name."""
    for category in _subclasses(Warning):
        if f"{category.__module__}.{category.__qualname__}" == name:
            return category
    module, _, class_name = name.rpartition(".")
    return type(class_name, (UserWarning,), {"__module__": module})


def _subclasses(cls: type[Warning]) -> Iterator[type[Warning]]:
    yield cls
    for subclass in cls.__subclasses__():
        yield from _subclasses(subclass)


def _warning(category: type[Warning], message: WarningRecorded) -> Warning:
    """A warning that reads like the child's, without calling ``__init__``, which may want anything."""
    try:
        warning = Warning.__new__(category, *map(properties.unpack, message.args))
        # Its args are what xdist makes it again from.
        return warning if str(warning) == message.text else UserWarning(message.text)
    except Exception:  # of its own __str__, or of arguments that are none
        return UserWarning(message.text)


def raise_at(error: BaseException, filename: str, lineno: int) -> NoReturn:
    """Raise with the child's place as the last frame of the traceback, which is the one that pytest shows."""
    lines = "\n" * (min(max(lineno, 1), MAX_LINES) - 1)
    exec(compile(f"{lines}raise error", filename, "exec"), {"error": error})
    raise AssertionError("not reached")


class Capturing:
    """Global capture on, and what it catches left for the next who reads it."""

    def __init__(self, config: pytest.Config) -> None:
        self._manager = pytest_private.capture_manager(config)

    def __enter__(self) -> None:
        if self._manager is not None:
            self._manager.resume_global_capture()

    def __exit__(self, *_: object) -> None:
        if self._manager is not None:
            self._manager.suspend_global_capture(in_=False)

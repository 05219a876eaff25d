"""The only file that touches ``_pytest`` or an underscored attribute of pytest's objects.

Each function says what it relies on. tests/unit/test_pytest_private*.py have a test per name, so that a
release of pytest that moves one is met there and not in a user's suite.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, TextIO

import _pytest
import pytest
from _pytest._code.code import (
    ReprEntryNative,
    ReprExceptionInfo,
    ReprFileLocation,
    ReprTraceback,
    TerminalRepr,
)
from _pytest._io import TerminalWriter
from _pytest.capture import CaptureManager, FDCapture
from _pytest.compat import NOTSET
from _pytest.faulthandler import fault_handler_stderr_fd_key
from _pytest.fixtures import SubRequest, TopRequest
from _pytest.junitxml import xml_key
from _pytest.logging import LogCaptureHandler, catching_logs
from _pytest.skipping import evaluate_skip_marks, evaluate_xfail_marks
from _pytest.warnings import catch_warnings_for_item

__all__ = [
    "Held",
    "LongRepr",
    "add_to_junit",
    "adopt_basetemp",
    "adopt_log_file",
    "basetemp",
    "can_leave",
    "capture_fds",
    "capture_manager",
    "catch_log",
    "catch_warnings",
    "directory",
    "disown_fixture",
    "disown_nodes",
    "divert_hooks",
    "ensure_basetemp",
    "failed_subtests",
    "find_fixture",
    "finish_fixture",
    "fix_native_id",
    "format_log",
    "has_color",
    "has_fixtures",
    "held_fixtures",
    "is_cached",
    "is_opaque",
    "is_same_parameter",
    "is_skipped_by_mark",
    "junit_attributes",
    "junit_suite_properties",
    "log_file_fd",
    "long_repr",
    "move_faulthandler",
    "never_free",
    "opaque_repr",
    "read_capture",
    "remembers",
    "replay_log",
    "request_from",
    "request_of",
    "restore_subtest",
    "scope_of_parameter",
    "set_failed_subtests",
    "set_up_fixture",
    "set_up_nodes",
    "share_capture",
    "tear_down_to",
    "terminal",
    "uncaptured_fd",
    "xfail_reason",
]

LongRepr = ReprExceptionInfo


def ensure_basetemp(config: pytest.Config) -> Path | None:
    """Make tmp_path's base directory now, and say where it is; None without the tmpdir plugin.

    Later, every child would make one of its own, and pytest's retention would delete older ones.
    ``Config._tmp_path_factory`` (tmpdir.py, since pytest 3.9).
    """
    factory: pytest.TempPathFactory | None = getattr(config, "_tmp_path_factory", None)
    return factory.getbasetemp() if factory is not None else None


class Held(NamedTuple):
    """A fixture that is set up, and the node at whose end it is torn down."""

    definition: pytest.FixtureDef[Any]
    node: pytest.Item | pytest.Collector


def set_up_nodes(node: pytest.Item | pytest.Collector) -> bool:
    """Set up the collectors from the session down to ``node``; raises what one of them raises, or raised.

    Gives whether one that was not set up has a ``setup`` of its own.

    ``Session._setupstate`` (runner.py): ``stack`` maps each active node to (finalizers, exception).
    """
    state: Any = node.session._setupstate
    new = [each for each in node.listchain() if each not in state.stack]
    if new:
        state.setup(node)
    elif (failure := state.stack[node][1]) is not None:
        raise failure[0].with_traceback(failure[1])
    return any(type(each).setup is not pytest.Item.setup for each in new)


def has_set_up(node: pytest.Item | pytest.Collector) -> bool:
    """Whether ``node``, and so those above it, are set up and did not fail."""
    state: Any = node.session._setupstate
    return node in state.stack and all(failure is None for _, failure in state.stack.values())


def remembers(session: pytest.Session, error: BaseException) -> bool:
    """Whether pytest will raise ``error`` again, from a node or a fixture whose set-up has failed.

    ``FixtureDef.cached_result`` (fixtures.py) is (value, cache key, (exception, traceback) or None).
    """
    failures: list[Any] = [failure for _, failure in session._setupstate.stack.values()]
    failures += [d.cached_result[2] for d, _ in held_fixtures(session) if d.cached_result is not None]
    return any(failure is not None and failure[0] is error for failure in failures)


@contextlib.contextmanager
def request_of(item: pytest.Item) -> Iterator[Any]:
    """A request for fixtures of ``item``, which counts as active for as long as this lasts.

    Not the item's own, which remembers the definitions it has found: the child starts with that one.
    ``TopRequest`` (fixtures.py, since 8.0) wants its item on the stack since 9.1.
    """
    stack: Any = item.session._setupstate.stack
    added = [node for node in item.listchain() if node not in stack]
    for node in added:
        stack[node] = ([], None)
    try:
        yield TopRequest(item, _ispytest=True)  # type: ignore[arg-type]
    finally:
        for node in reversed(added):
            del stack[node]


def request_from(request: Any, definition: pytest.FixtureDef[Any]) -> Any:
    """The request that ``definition`` would get, for what it asks of others. ``SubRequest`` (fixtures.py)."""
    return SubRequest(request, definition._scope, NOTSET, 0, definition, _ispytest=True)


def set_up_fixture(request: Any, name: str) -> None:
    """``FixtureRequest._get_active_fixturedef`` (fixtures.py): as ``getfixturevalue``, without the value."""
    request._get_active_fixturedef(name)


def finish_fixture(request: Any, definition: pytest.FixtureDef[Any]) -> None:
    """Tear down a fixture and what depends on it. ``FixtureDef.finish`` (fixtures.py)."""
    definition.finish(request_from(request, definition))


def is_cached(item: pytest.Item, definition: pytest.FixtureDef[Any]) -> bool:
    """Whether a fixture is set up with the parameter that ``item`` has for it.

    ``FixtureDef.cache_key`` is the parameter or None (fixtures.py, since 8.0); numpy arrays refuse ``==``.
    """
    if definition.cached_result is None:
        return False
    params = getattr(getattr(item, "callspec", None), "params", {})
    return is_same_parameter(definition.cached_result[1], params.get(definition.argname))


def is_same_parameter(value: object, other: object) -> bool:
    """As ``FixtureDef.execute`` compares them."""
    try:
        return bool(value == other)
    except (ValueError, RuntimeError):
        return value is other


def has_fixtures(item: pytest.Item) -> bool:
    """Whether it is a Python test or a doctest, which have ``_request`` and ``_fixtureinfo``."""
    return hasattr(item, "_request") and hasattr(item, "_fixtureinfo")


def find_fixture(item: pytest.Item, name: str, level: int) -> pytest.FixtureDef[Any] | None:
    """What ``item`` gets by a fixture's name, or what that overrides, ``level`` times.

    ``FuncFixtureInfo.name2fixturedefs`` (fixtures.py): from the farthest to the closest.
    """
    definitions = item._fixtureinfo.name2fixturedefs.get(name, ())  # type: ignore[attr-defined]
    return definitions[-1 - level] if level < len(definitions) else None


def scope_of_parameter(item: pytest.Item, name: str) -> str | None:
    """The scope at which a fixture's parameter changes; None if it has none.

    It counts in place of the fixture's own (``FixtureRequest._get_active_fixturedef``).
    ``CallSpec._arg2scope`` (python.py, since 8.0).
    """
    callspec = getattr(item, "callspec", None)
    return callspec._arg2scope[name].value if callspec is not None and name in callspec.params else None


def held_fixtures(session: pytest.Session) -> list[Held]:
    """All fixtures that are set up, failed ones included, in that order.

    ``FixtureDef.execute`` leaves ``partial(self.finish, request)`` with its node (fixtures.py, since 3.5).
    """
    held = []
    for node, (finalizers, _) in session._setupstate.stack.items():
        for finalizer in finalizers:
            owner = getattr(getattr(finalizer, "func", None), "__self__", None)
            if isinstance(owner, pytest.FixtureDef) and owner.cached_result is not None:
                held.append(Held(owner, node))  # type: ignore[arg-type]
    return held


_never_freed: list[object] = []


def never_free(*objects: object) -> None:
    """In the child, for what the parent will finish: were it freed here, generators would run their
    ``finally``, and event loops would close what is the parent's too."""
    _never_freed.extend(objects)


def disown_nodes(session: pytest.Session, kept: Collection[Any]) -> None:
    """In the child: those set up by the parent are not torn down here; others than ``kept`` are as if not set
    up at all."""
    stack: Any = session._setupstate.stack
    for node, (finalizers, exception) in [*stack.items()]:
        never_free(finalizers)
        if node in kept:
            stack[node] = ([], exception)
        else:
            del stack[node]


def disown_fixture(definition: pytest.FixtureDef[Any], *, forget: bool) -> None:
    """In the child: the parent's fixture is not torn down here, and is set up again if it is to be forgotten.

    A FixtureDef keeps its own finalizers in ``_finalizers`` (fixtures.py).
    """
    never_free([*definition._finalizers], definition.cached_result)
    definition._finalizers.clear()
    if forget:
        definition.cached_result = None


def is_skipped_by_mark(item: pytest.Item) -> bool:
    """Whether pytest will not even set the item up. ``evaluate_skip_marks`` (skipping.py, since 6.0)."""
    try:
        if evaluate_skip_marks(item) is not None:
            return True
        xfail = evaluate_xfail_marks(item)
    except (Exception, pytest.fail.Exception):  # a broken condition: the child reports it
        return True
    return xfail is not None and not xfail.run and not item.config.getoption("runxfail", False)


def can_leave(session: pytest.Session, node: pytest.Item | pytest.Collector) -> bool:
    """Whether tearing down what ``node`` does not share would do nothing.

    So it is if no node there holds a fixture, has failed, or has a ``teardown`` of its own
    (``SetupState.stack``, runner.py).
    """
    needed = node.listchain()
    return all(
        each in needed
        or (len(finalizers) == 1 and failure is None and type(each).teardown is pytest.Item.teardown)
        for each, (finalizers, failure) in session._setupstate.stack.items()
    )


@contextlib.contextmanager
def catch_warnings(item: pytest.Item, filters: list[Any], caught: list[dict[str, Any]]) -> Iterator[None]:
    """Under the warning filters of ``item``, on top of ``filters`` alone; gives what
    ``pytest_warning_recorded`` is to be called with. ``catch_warnings_for_item`` (warnings.py, since 3.8)."""

    class Hook:
        @staticmethod
        def call_historic(kwargs: dict[str, Any]) -> None:
            caught.append(kwargs)

    ihook: Any = SimpleNamespace(pytest_warning_recorded=Hook)
    with warnings.catch_warnings():
        warnings.filters[:] = filters  # type: ignore[index]
        with catch_warnings_for_item(config=item.config, ihook=ihook, when="runtest", item=item):
            yield


def tear_down_to(session: pytest.Session, nextitem: pytest.Item | None) -> None:
    """Tear down what ``nextitem`` does not share. ``SetupState.teardown_exact`` (runner.py, since 6.2)."""
    session._setupstate.teardown_exact(nextitem)


class _Diverted:
    """Stands where a hook caller stood, with its two ways to be called (pluggy/_hooks.py).

    It is the old one for all else: the plugin manager asks each caller when plugins come and go.
    """

    def __init__(self, handler: Callable[..., None], original: object) -> None:
        self._handler = handler
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def __call__(self, **kwargs: object) -> list[object]:
        self._handler(**kwargs)
        return []

    def call_historic(self, result_callback: Callable[[Any], None] | None = None, kwargs: Any = None) -> None:
        self._handler(**(kwargs or {}))


class _Relay:
    """A hook relay with some of its callers replaced."""

    def __init__(self, relay: object, replaced: dict[str, _Diverted]) -> None:
        self._relay = relay
        self._replaced = replaced

    def __getattr__(self, name: str) -> Any:
        return self._replaced.get(name) or getattr(self._relay, name)


def divert_hooks(session: pytest.Session, handlers: dict[str, Callable[..., None]]) -> None:
    """In the child: calls of these hooks go to the handlers, and to no plugin.

    Terminal, junitxml, cache and xdist would otherwise report a second time. Both ways to a hook are
    covered: ``config.hook`` and ``Node.ihook``, which asks ``Session.gethookproxy`` (public, nodes.py).
    Nothing is registered: registering replays every earlier ``pytest_warning_recorded``.
    """
    hook = session.config.hook
    diverted = {name: _Diverted(handler, getattr(hook, name)) for name, handler in handlers.items()}
    for name, caller in diverted.items():
        setattr(hook, name, caller)
    original = session.gethookproxy
    session.gethookproxy = lambda fspath: _Relay(original(fspath), diverted)  # type: ignore[method-assign,assignment,return-value]


def capture_manager(config: pytest.Config) -> CaptureManager | None:
    manager: CaptureManager | None = config.pluginmanager.getplugin("capturemanager")
    return manager


def read_capture(config: pytest.Config) -> tuple[str, str]:
    """What global capture holds and nobody has read; (out, err). ``CaptureManager`` (capture.py)."""
    manager = capture_manager(config)
    if manager is None or not manager.is_globally_capturing():
        return "", ""
    captured = manager.read_global_capture()
    return captured.out, captured.err


@contextlib.contextmanager
def catch_log(config: pytest.Config, when: str) -> Iterator[list[logging.LogRecord]]:
    """The records that the report of a phase would show; gives the list, which fills. Live logs name the
    phase.

    ``LoggingPlugin.log_level`` and ``log_cli_handler``, ``catching_logs``, ``LogCaptureHandler`` (logging.py,
    since 6.0).
    """
    plugin: Any = config.pluginmanager.getplugin("logging-plugin")
    if plugin is None:
        yield []
        return
    plugin.log_cli_handler.set_when(when)
    with catching_logs(LogCaptureHandler(), level=plugin.log_level) as handler:
        yield handler.records


def format_log(config: pytest.Config, records: list[logging.LogRecord]) -> str:
    """As reports show it. ``LoggingPlugin.formatter`` (logging.py, since 3.3)."""
    plugin: Any = config.pluginmanager.getplugin("logging-plugin")
    return "\n".join(map(plugin.formatter.format, records)) if records else ""


def replay_log(config: pytest.Config, records: list[logging.LogRecord]) -> None:
    """In a phase of a test: as if it had been logged just now, for reports and ``caplog`` only.

    Live logs have shown it, and the phase: ``_LiveLoggingStreamHandler._section_name_shown`` (logging.py).
    """
    plugin: Any = config.pluginmanager.getplugin("logging-plugin")
    live: Any = plugin.log_cli_handler if plugin is not None else None
    if hasattr(live, "_section_name_shown") and any(record.levelno >= live.level for record in records):
        live._section_name_shown = True
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogCaptureHandler):
            for record in records:
                if record.levelno >= handler.level:
                    handler.handle(record)


def move_faulthandler(config: pytest.Config, fd: int) -> None:
    """In the child: traces go to ``fd`` and not to the terminal.

    ``fault_handler_stderr_fd_key`` (faulthandler.py, since 7.3) is what pytest's own timeout dumps go to.
    """
    if fault_handler_stderr_fd_key in config.stash:
        config.stash[fault_handler_stderr_fd_key] = fd


def xfail_reason(item: pytest.Item) -> str | None:
    """The reason of an xfail mark that covers a crash; None without one, or with ``raises``, which no crash
    can match. ``evaluate_xfail_marks`` (skipping.py, since 6.0)."""
    if item.config.getoption("runxfail", False):
        return None
    try:
        xfail = evaluate_xfail_marks(item)
    except (Exception, pytest.fail.Exception):  # a broken condition: the child has reported it, or would have
        return None
    return None if xfail is None or xfail.raises is not None else xfail.reason


def long_repr(path: str, lineno: int, message: str, text: str) -> LongRepr:
    """A failure text whose first line also shows in the short summary.

    The Repr classes survive ``pytest_report_to_serializable`` and so xdist (reports.py).
    """
    entry = ReprEntryNative([f"{line}\n" for line in text.splitlines()])
    return ReprExceptionInfo(
        reprtraceback=ReprTraceback([entry], extraline=None, style="native"),
        reprcrash=ReprFileLocation(os.fspath(path), lineno, message),
    )


def failed_subtests(config: pytest.Config, report: pytest.TestReport) -> int:
    """How many subtests of this test have failed, from which the terminal makes a failed test.

    ``failed_subtests_key`` (subtests.py, since 9.0), by nodeid, and by NodeId since 9.2.
    """
    counts = _failed_subtests(config)
    return int(counts.get(getattr(report, "id", report.nodeid), 0)) if counts is not None else 0


def set_failed_subtests(config: pytest.Config, report: pytest.TestReport, count: int) -> None:
    counts = _failed_subtests(config)
    if counts is not None and count:
        counts[getattr(report, "id", report.nodeid)] = count


def _failed_subtests(config: pytest.Config) -> dict[Any, int] | None:
    module = sys.modules.get("_pytest.subtests")
    return config.stash.get(module.failed_subtests_key, None) if module is not None else None


def restore_subtest(report: pytest.TestReport, data: dict[str, Any]) -> None:
    """The parameters of a subtest as they were: each trip through JSON adds a layer of quotes to them.

    ``SubtestContext.kwargs`` (subtests.py, since 9.0).
    """
    context, sent = getattr(report, "context", None), data.get("_subtest.context")
    if context is not None and isinstance(sent, dict) and isinstance(sent.get("kwargs"), dict):
        object.__setattr__(context, "kwargs", sent["kwargs"])  # a frozen dataclass


def fix_native_id() -> None:
    """After the hop: ``threading`` remembers the thread id of the process that was forked."""
    threading.current_thread()._set_native_id()  # type: ignore[attr-defined]


class _OpaqueRepr(TerminalRepr):
    """A failure that only prints itself, without the crash that the short summary would name."""

    def __init__(self, text: str) -> None:
        self._text = text

    def toterminal(self, tw: TerminalWriter) -> None:
        tw.line(self._text)


def is_opaque(longrepr: object) -> bool:
    """Whether ``pytest_report_to_serializable`` makes it a string: failures of doctests and custom items.

    ``_report_to_json`` (reports.py).
    """
    return hasattr(longrepr, "toterminal") and not (
        hasattr(longrepr, "reprtraceback") and hasattr(longrepr, "reprcrash")
    )


def opaque_repr(text: str) -> TerminalRepr:
    return _OpaqueRepr(text)


def junit_suite_properties(config: pytest.Config) -> list[tuple[str, str]]:
    """``LogXML.global_properties`` (junitxml.py, since 4.5)."""
    xml = config.stash.get(xml_key, None)
    return [*xml.global_properties] if xml is not None else []


def junit_attributes(item: pytest.Item) -> dict[str, str]:
    """What ``record_xml_attribute`` has added, in a child. ``_NodeReporter.attrs`` (junitxml.py)."""
    xml = item.config.stash.get(xml_key, None)
    return dict(xml.node_reporter(_junit_id(item)).attrs) if xml is not None else {}


def add_to_junit(item: pytest.Item, properties: list[tuple[str, str]], attributes: dict[str, str]) -> None:
    xml = item.config.stash.get(xml_key, None)
    if xml is not None:
        xml.global_properties.extend(properties)  # escaped already
        xml.node_reporter(_junit_id(item)).attrs.update(attributes)


def _junit_id(item: pytest.Item) -> Any:
    """What ``LogXML.node_reporter`` takes: ``Node.id`` since 9.2, else the nodeid."""
    return getattr(item, "id", item.nodeid)


# -- a fresh interpreter is to use what the session uses ------------------------------------------------


def directory() -> str:
    """Where pytest's own code is."""
    return os.path.dirname(_pytest.__file__)


def basetemp(config: pytest.Config) -> str | None:
    """tmp_path's base directory, which :func:`ensure_basetemp` has made."""
    path = ensure_basetemp(config)
    return None if path is None else str(path)


def adopt_basetemp(config: pytest.Config, path: Path) -> None:
    """``TempPathFactory._basetemp`` (tmpdir.py, since 3.9): once set, no directory is made or emptied."""
    factory: Any = getattr(config, "_tmp_path_factory", None)
    if factory is not None:
        factory._basetemp = path


def _captured_descriptors(config: pytest.Config) -> dict[str, FDCapture]:
    """Global capture of descriptors, by stream. ``MultiCapture.in_``, ``out``, ``err`` (capture.py)."""
    capturing = getattr(capture_manager(config), "_global_capturing", None)
    found = {name: getattr(capturing, name, None) for name in ("in_", "out", "err")}
    return {name: capture for name, capture in found.items() if isinstance(capture, FDCapture)}


def capture_fds(config: pytest.Config) -> list[int]:
    """The files in which stdout and stderr are captured; empty if they are not, or not as descriptors.
    ``FDCapture.tmpfile`` (capture.py)."""
    captures = _captured_descriptors(config)
    return [captures[name].tmpfile.fileno() for name in ("out", "err") if name in captures]


def share_capture(config: pytest.Config, fds: list[int]) -> None:
    """Capture to these files: what a test says before it crashes is read by the session."""
    for fd, own in zip(fds, capture_fds(config), strict=True):
        os.dup2(fd, own, inheritable=False)
        os.close(fd)


def uncaptured_fd(config: pytest.Config, number: int) -> int | None:
    """What was stdin, stdout or stderr (0, 1, 2) before capture; None if it is not captured as a descriptor.
    ``FDCapture.targetfd_save`` (capture.py)."""
    capture = _captured_descriptors(config).get(("in_", "out", "err")[number])
    return None if capture is None else capture.targetfd_save


class Terminal:
    """Where pytest shows its progress, if somebody looks at it."""

    def __init__(self, reporter: Any) -> None:
        self._writer = reporter._tw

    @property
    def column(self) -> int:
        return int(self._writer.width_of_current_line) % self.width

    @property
    def width(self) -> int:
        return int(self._writer.fullwidth)

    def write(self, text: str) -> None:
        """Without a change of what pytest takes for the column."""
        self._writer._file.write(text)
        self._writer._file.flush()


def terminal(config: pytest.Config) -> Terminal | None:
    """``TerminalReporter._tw`` (terminal.py), ``TerminalWriter._file`` and ``width_of_current_line``
    (_io/terminalwriter.py, since 5.4). None if it is a file, or has no use for control sequences."""
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None or not (reporter.isatty and reporter.hasmarkup):
        return None
    return Terminal(reporter)


def terminal_file(config: pytest.Config) -> TextIO | None:
    """Where the report goes; None in a worker of xdist. ``TerminalReporter._tw`` (terminal.py),
    ``TerminalWriter._file`` (_io/terminalwriter.py, since 5.4)."""
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    file: TextIO | None = None if reporter is None else reporter._tw._file
    return file


def has_color(config: pytest.Config) -> bool:
    """Whether the terminal has it: explanations of failed assertions are coloured where they are made.
    ``TerminalReporter.hasmarkup`` (terminal.py)."""
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    return reporter is not None and bool(reporter.hasmarkup)


def log_file_fd(config: pytest.Config) -> int | None:
    """Of ``--log-file``. ``LoggingPlugin.log_file_handler`` (logging.py, since 3.4), a FileHandler."""
    plugin: Any = config.pluginmanager.getplugin("logging-plugin")
    stream = None if plugin is None else plugin.log_file_handler.stream
    return None if stream is None or stream.name == os.devnull else stream.fileno()


def adopt_log_file(config: pytest.Config, fd: int) -> None:
    plugin: Any = config.pluginmanager.getplugin("logging-plugin")
    if plugin is not None:
        plugin.log_file_handler.setStream(os.fdopen(fd, "a", encoding="utf-8"))  # the handler closes it

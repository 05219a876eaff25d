"""The only file that touches ``_pytest`` or an underscored attribute of pytest's objects.

Each function says what it relies on. tests/unit/test_pytest_private.py has a test per name, so that a
release of pytest that moves one is met there and not in a user's suite.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _pytest._code.code import ReprEntryNative, ReprExceptionInfo, ReprFileLocation, ReprTraceback
from _pytest.capture import CaptureManager
from _pytest.faulthandler import fault_handler_stderr_fd_key
from _pytest.skipping import evaluate_xfail_marks

__all__ = [
    "LongRepr",
    "capture_manager",
    "disown_set_up",
    "divert_hooks",
    "ensure_basetemp",
    "fix_native_id",
    "long_repr",
    "move_faulthandler",
    "read_capture",
    "restore_subtest",
    "set_up_shared",
    "tear_down_to",
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


def set_up_shared(item: pytest.Item) -> None:
    """Set up, here and now, the collectors above ``item`` and its fixtures of higher scope than function.

    In the order of plain pytest: ``fixturenames`` is sorted by scope. What fails is remembered by the
    fixture or the collector, and is raised again where ``item`` meets it.
    ``Session._setupstate`` (runner.py), ``FixtureRequest._get_active_fixturedef``, ``FixtureDef._scope``
    and ``Function._fixtureinfo`` (fixtures.py), the same since pytest 8.1. A request wants its item to be
    active (since 9.1), so the item is on the stack for as long as this takes.
    """
    state: Any = item.session._setupstate
    shared = _shared_fixtures(item)
    try:
        assert item.parent is not None
        state.setup(item.parent)
        if not shared:
            return
        state.stack[item] = ([], None)
        try:
            for name in shared:
                item._request._get_active_fixturedef(name)  # type: ignore[attr-defined]
        finally:
            del state.stack[item]
    except (pytest.exit.Exception, KeyboardInterrupt):
        raise
    except (Exception, pytest.skip.Exception, pytest.fail.Exception):
        # Cached by pytest in the FixtureDef or the SetupState: the child meets it again, and reports it.
        return


def _shared_fixtures(item: pytest.Item) -> list[str]:
    info = getattr(item, "_fixtureinfo", None)
    if info is None or not hasattr(item, "_request"):
        return []  # not a Python test
    shared = []
    for name in info.names_closure:
        definitions = info.name2fixturedefs.get(name)
        if definitions and definitions[-1]._scope.value != "function":
            shared.append(name)
    return shared


def disown_set_up(item: pytest.Item) -> None:
    """In the child: what the parent has set up is the parent's to tear down.

    ``SetupState.stack`` maps each active node to (finalizers, exception) (runner.py); a FixtureDef keeps its
    own finalizers in ``_finalizers`` (fixtures.py).
    """
    stack = item.session._setupstate.stack
    for node, (_, exception) in [*stack.items()]:
        stack[node] = ([], exception)
    info = getattr(item, "_fixtureinfo", None)
    for definitions in info.name2fixturedefs.values() if info is not None else ():
        for definition in definitions:
            definition._finalizers.clear()


def tear_down_to(session: pytest.Session, nextitem: pytest.Item | None) -> None:
    """Tear down what ``nextitem`` does not share. ``SetupState.teardown_exact`` (runner.py, since 6.2)."""
    session._setupstate.teardown_exact(nextitem)


class _Diverted:
    """Stands where a hook caller stood, with its two ways to be called (pluggy/_hooks.py)."""

    def __init__(self, handler: Callable[..., None]) -> None:
        self._handler = handler

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
    diverted = {name: _Diverted(handler) for name, handler in handlers.items()}
    for name, caller in diverted.items():
        setattr(session.config.hook, name, caller)
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
    except Exception:  # a broken condition: the child has reported it, or would have
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

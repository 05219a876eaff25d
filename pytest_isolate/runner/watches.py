"""Plugins that tell the parent what goes on in a child and is in no report.

They are registered in pytest, before the forks, and silent there: to register a plugin touches some 200 pages
of memory, which each child would have to copy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from pytest_isolate.runner import reruns
from pytest_isolate.sandbox.messages import Debugging, Message, PhaseBegun

__all__ = ["Watch", "watch"]

NAME = "isolate-watch"


class Watch:
    """Nobody who debugs is to be timed out, or to be kept from the terminal."""

    def __init__(self) -> None:
        self._send: Callable[[Message], None] | None = None
        self._release: Callable[[], None] = lambda: None
        #: In the child: around what is not the test's alone.
        self.aside: Callable[[pytest.FixtureDef[Any]], AbstractContextManager[None]] | None = None
        #: In the child: whether a phase begins, or has ended.
        self.during: Callable[[bool], None] | None = None

    def begin(self, send: Callable[[Message], None], release: Callable[[], None]) -> None:
        """In the child. ``release``: has the debugger get the terminal."""
        self._send, self._release = send, release

    def pytest_enter_pdb(self) -> None:
        if self._send is not None:
            self._send(Debugging())
            self._release()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        if self.aside is None or fixturedef.scope == "function":
            return (yield)
        with self.aside(fixturedef):
            return (yield)

    # No wrappers around the phases: native tracebacks would show them.
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._begin(item, "setup")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        self._begin(item, "call")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        self._begin(item, "teardown")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self) -> None:
        if self.during is not None:
            self.during(False)

    def _begin(self, item: pytest.Item, phase: str) -> None:
        self._tell_phase(item, phase)
        if self.during is not None:
            self.during(True)

    def _tell_phase(self, item: pytest.Item, phase: str) -> None:
        pass


class RerunWatch(Watch):
    """pytest-rerunfailures holds reports back until it knows whether the test is to run again; if the process
    dies meanwhile, the phase is not known otherwise."""

    def _tell_phase(self, item: pytest.Item, phase: str) -> None:
        if self._send is not None and reruns.may_repeat(item):
            self._send(PhaseBegun(phase))


def watch(config: pytest.Config) -> Watch:
    """The session's one."""
    manager = config.pluginmanager
    found: Watch | None = manager.getplugin(NAME)
    if found is None:
        found = RerunWatch() if manager.hasplugin("rerunfailures") else Watch()
        manager.register(found, NAME)
    return found

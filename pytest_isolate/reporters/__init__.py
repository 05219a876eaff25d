"""What a session's isolated tests used and how they ended, for people and for machines.

The modules here are imported when there is something to report: merely loading the plugin must cost nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_isolate.reporters.collect import Collected, Collector, Record
    from pytest_isolate.reporters.signoff import SignOff

__all__ = ["register", "register_late"]

_NAME = "isolate-reporters"
_PREFIX = "isolate."  # as runner/record.py has it, which is dear to import


def register(config: pytest.Config) -> None:
    """Start reporting, once per session. Raises UsageError if ``--isolate-json`` cannot be written."""
    if not config.pluginmanager.hasplugin(_NAME):
        _register(config)


def register_late(config: pytest.Config) -> None:
    """Start reporting when a report comes in that is worth it: xdist's controller has no items to look at."""
    if not config.pluginmanager.hasplugin(_NAME):
        config.pluginmanager.register(_Waiting(config), f"{_NAME}-waiting")


class _Waiting:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if any(isinstance(name, str) and name.startswith(_PREFIX) for name, _ in report.user_properties):
            self._config.pluginmanager.unregister(self)
            _register(self._config).pytest_runtest_logreport(report)


def _tell(listeners: Iterable[Callable[[Record], None]], record: Record) -> None:
    for listener in listeners:
        listener(record)


def _register(config: pytest.Config) -> Collector:
    from pytest_isolate.reporters.collect import Collector
    from pytest_isolate.reporters.jsonlines import JsonLines
    from pytest_isolate.reporters.terminal import TerminalSection
    from pytest_isolate.settings import session_options

    options = session_options(config)
    json_lines = JsonLines(options.json_path) if options.json_path is not None else None
    listeners: list[Callable[[Record], None]] = [json_lines.write] if json_lines is not None else []
    collector = Collector(lambda record: _tell(listeners, record))
    section = TerminalSection(collector.collected, options.top, json_lines, profile=options.profile)
    sign_off = None
    if options.strict:
        from pytest_isolate.reporters.signoff import SignOff
        from pytest_isolate.values import Missing

        sign_off = SignOff(
            collector.collected,
            json_lines,
            escapes_max=options.escapes_max,
            baseline=options.baseline,
            may_degrade=options.missing is Missing.DEGRADE,
        )
        listeners.append(sign_off.add)
        config.pluginmanager.register(sign_off, f"{_NAME}-strict")
    _register_github(config, collector.collected, sign_off, options.top)
    config.pluginmanager.register(collector, _NAME)
    config.pluginmanager.register(section, f"{_NAME}-terminal")
    return collector


def _register_github(config: pytest.Config, collected: Collected, sign_off: SignOff | None, top: int) -> None:
    if "GITHUB_ACTIONS" in os.environ:
        from pytest_isolate.reporters import github

        if github.is_here(os.environ):
            config.pluginmanager.register(github.GitHub(collected, sign_off, top), f"{_NAME}-github")

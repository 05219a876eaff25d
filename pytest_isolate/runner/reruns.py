"""pytest-rerunfailures: it repeats a test that failed from within its process, so not one whose process died.

The attempts that a child made itself come as reports with the outcome "rerun"; what it could not repeat, the
parent does, in a new sandbox.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable
from typing import Any

import pytest

__all__ = [
    "RERUN",
    "add_earlier",
    "count_alone",
    "count_attempts",
    "forget_superseded",
    "mark_as_rerun",
    "may_repeat",
    "skip_attempts",
    "status_fd",
    "wants_again",
]

RERUN = "rerun"  #: an outcome of reports


def _plugin(item: pytest.Item) -> Any:
    return item.config.pluginmanager.getplugin("rerunfailures")


def count_alone(config: pytest.Config) -> None:
    """In a fresh interpreter, before it is configured: the plugin counts by a server on TCP, for workers that
    do not come here. A test without namespaces has no such socket."""
    plugin: Any = config.pluginmanager.getplugin("rerunfailures")
    if not hasattr(plugin, "HAS_PYTEST_HANDLECRASHITEM"):  # since 11.0
        return
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    except PermissionError:
        plugin.HAS_PYTEST_HANDLECRASHITEM = False


def status_fd(config: pytest.Config) -> int | None:
    """Of the connection by which a worker of xdist counts, whatever the test does."""
    connection = getattr(getattr(config, "failures_db", None), "sock", None)
    return connection.fileno() if isinstance(connection, socket.socket) else None


def may_repeat(item: pytest.Item) -> bool:
    """Whether the plugin runs the test, be it for zero reruns."""
    plugin = _plugin(item)
    excluded = getattr(item.config.option, "rerun_exclude_path", None) or []
    if plugin is None or any(item.path.is_relative_to(item.config.rootpath / path) for path in excluded):
        return False
    return plugin.get_reruns_count(item) is not None


def wants_again(item: pytest.Item, reports: Iterable[pytest.TestReport], attempts: int, why: str) -> bool:
    """Whether a test whose process died is to run again after so many attempts. Waits if it is to wait.

    ``reports`` are those of all attempts; ``why`` is what filters such as ``--only-rerun`` are compared with.
    """
    if not may_repeat(item) or not any(report.failed for report in reports):
        return False
    plugin = _plugin(item)
    if attempts > plugin.get_reruns_count(item) or not _matches_filters(item, why):
        return False
    limit = getattr(item.config.option, "max_suite_reruns", None)
    if limit is not None and not item.config.failures_db.try_increment_suite_reruns(limit):  # type: ignore[attr-defined]
        return False
    backoff = getattr(plugin, "get_reruns_delay_backoff_factor", lambda item: 1.0)(item)
    time.sleep(plugin.get_reruns_delay(item) * backoff ** (attempts - 1))
    return True


def _matches_filters(item: pytest.Item, why: str) -> bool:
    mark = item.get_closest_marker("flaky")
    own = mark.kwargs if mark is not None else {}
    if "condition" in own and not _plugin(item).get_reruns_condition(item):
        return False

    def found(name: str) -> bool | None:
        patterns = own.get(name) or getattr(item.config.option, name, None) or _from_ini(item.config, name)
        if not patterns:
            return None
        patterns = [patterns] if isinstance(patterns, str | type) else patterns
        return any(isinstance(pattern, str) and re.search(pattern, why) for pattern in patterns)

    return found("only_rerun") is not False and not found("rerun_except")


def _from_ini(config: pytest.Config, name: str) -> Any:
    try:
        return config.getini(name)
    except ValueError:  # older releases of the plugin have no such key
        return None


def mark_as_rerun(reports: Iterable[pytest.TestReport], attempt: int) -> None:
    """As the plugin does with what an attempt failed with that is not the last."""
    for report in reports:
        report.rerun = attempt  # type: ignore[attr-defined]
        if report.failed:
            report.outcome = RERUN  # type: ignore[assignment]


def add_earlier(item: pytest.Item, reports: Iterable[pytest.TestReport], attempts: int) -> None:
    """In the parent: the child counted its own attempts only, and those of the suite in a copy of the counter
    (which is a socket in a worker of xdist)."""
    limit = getattr(item.config.option, "max_suite_reruns", None)
    for report in reports:
        if hasattr(report, "rerun"):
            report.rerun += attempts  # type: ignore[attr-defined]
        if report.outcome == RERUN and limit is not None and not hasattr(item.config, "workerinput"):
            item.config.failures_db.increment_suite_reruns()  # type: ignore[attr-defined]


def skip_attempts(item: pytest.Item, attempts: int) -> None:
    """In the child: that many were made by others."""
    plugin = _plugin(item)
    if plugin is not None and attempts:
        count = plugin.get_reruns_count

        def count_left(asked: pytest.Item) -> int | None:
            reruns: int | None = count(asked)
            return reruns if reruns is None or asked is not item else max(reruns - attempts, 0)

        plugin.get_reruns_count = count_left


def forget_superseded(reports: Iterable[pytest.TestReport]) -> list[pytest.TestReport]:
    """Without reports of subtests whose test was run again; the plugin takes them back from the terminal."""
    kept: list[pytest.TestReport] = []
    for report in reports:
        if report.outcome == RERUN:
            kept = [other for other in kept if type(other) is pytest.TestReport]
        kept.append(report)
    return kept


def count_attempts(item: pytest.Item, reports: Iterable[pytest.TestReport]) -> None:
    """In the parent, for ``--fail-on-flaky``, which looks at the item."""
    if may_repeat(item):
        attempts = 1 + sum(report.outcome == RERUN for report in reports)
        item.execution_count = attempts  # type: ignore[attr-defined]

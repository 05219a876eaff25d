"""The hooks, each a line or two. What they call is imported when a session has an isolated test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_isolate import hookspecs, lifecycle, options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_isolate.runner.isolation import Isolation
    from pytest_isolate.runner.topology import IsolatedNetwork


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    lifecycle.begin_fresh(pluginmanager)
    lifecycle.refuse_rivals(pluginmanager)
    options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    lifecycle.configure(config)


def pytest_sessionstart(session: pytest.Session) -> None:
    lifecycle.start(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    lifecycle.configure_node(node)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lifecycle.plan_items(config, items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    lifecycle.warm_up(session)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    return lifecycle.run_item(item, nextitem)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    lifecycle.finish(session.config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    return lifecycle.header(config)


@pytest.fixture
def isolated_network() -> Iterator[IsolatedNetwork]:
    """Nodes with networks of their own inside the test's sandbox, joined by links."""
    from pytest_isolate.runner.isolation import current_isolation
    from pytest_isolate.runner.topology import open_network

    with open_network(current_isolation()) as network:
        yield network


@pytest.fixture
def isolation() -> Isolation:
    """The sandbox that the test runs in: limits, usage so far, cgroup; false when it runs in none."""
    from pytest_isolate.runner.isolation import current_isolation

    return current_isolation()

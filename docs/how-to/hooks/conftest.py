from __future__ import annotations

import dataclasses

import pytest

import pytest_isolate

WASTEFUL = 256 * 2**20
wasteful: list[str] = []


@pytest.hookimpl
def pytest_isolate_modify_spec(item: pytest.Item, spec: pytest_isolate.Spec) -> pytest_isolate.Spec | None:
    """Give tests under a name with "slow" in it ten times as long."""
    timeout_s = spec.limits.timeout_s
    if timeout_s is None or "slow" not in item.name:
        return None
    return dataclasses.replace(spec, limits=dataclasses.replace(spec.limits, timeout_s=timeout_s * 10))


@pytest.hookimpl
def pytest_isolate_sandbox_ready(item: pytest.Item, sandbox: pytest_isolate.Sandbox) -> None:
    """Refuse to go on where a sandbox is not what this project counts on."""
    assert "net" in sandbox.enforced.namespaces, f"{item.nodeid} would share the host's network"


@pytest.hookimpl
def pytest_isolate_finished(
    item: pytest.Item, outcome: pytest_isolate.Outcome, usage: pytest_isolate.Usage
) -> None:
    """Remember who took much memory. None means: not measured."""
    if usage.memory_peak_bytes is not None and usage.memory_peak_bytes > WASTEFUL:
        wasteful.append(item.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for nodeid in wasteful:
        terminalreporter.write_line(f"took more than 256 MiB: {nodeid}")

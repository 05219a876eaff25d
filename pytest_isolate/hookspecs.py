"""Hooks for other plugins and for conftest files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import os

    from pytest_isolate.outcome import Outcome
    from pytest_isolate.runner.voyage import Sandbox
    from pytest_isolate.spec import Spec
    from pytest_isolate.usage import Usage
    from pytest_isolate.violation import Violation


@pytest.hookspec(firstresult=True)
def pytest_isolate_modify_spec(item: pytest.Item, spec: Spec) -> Spec | None:
    """Change what an isolated test gets: return a new Spec (``dataclasses.replace``), or None to pass.

    Called once for each isolated item after collection; the first Spec returned counts.
    """


@pytest.hookspec(firstresult=True)
def pytest_isolate_resolve_image(name: str, config: pytest.Config) -> str | os.PathLike[str] | None:
    """Say what ``rootfs=name`` stands for: a path (relative to rootdir), or an image of a registry.

    Asked before the table ``[tool.pytest-isolate.images]``, once for each isolated item; None to pass.
    """


@pytest.hookspec
def pytest_isolate_sandbox_ready(item: pytest.Item, sandbox: Sandbox) -> None:
    """The test's process is inside its sandbox, and no line of the test has run yet that was waited for.

    Called in pytest's own process.
    """


@pytest.hookspec
def pytest_isolate_violation(item: pytest.Item, violation: Violation) -> None:
    """The test did something that a hermetic one must not. Called in pytest's own process, for each."""


@pytest.hookspec
def pytest_isolate_finished(item: pytest.Item, outcome: Outcome, usage: Usage) -> None:
    """The test has ended, and its reports have been logged. Called in pytest's own process."""

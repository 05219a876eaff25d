"""Hooks that others have. Those of the suite itself, as its conftest files, may share state with the tests.

What a plugin that is installed does when a test is logged is for reports. A conftest file may as well count
there what the next test looks at.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

import pytest

__all__ = ["has_own_protocol", "listens_between_tests"]

OURS = __name__.partition(".")[0]
#: Their protocols report each phase.
ALL_REPORTED = (pytest.Item.__module__.partition(".")[0], OURS, "pytest_rerunfailures")
#: What is called in pytest's process after one test has begun and before the next one does.
BETWEEN_TESTS = (
    "pytest_runtest_logstart",
    "pytest_runtest_logreport",
    "pytest_runtest_logfinish",
    "pytest_warning_recorded",
    "pytest_isolate_sandbox_ready",
    "pytest_isolate_finished",
)


def listens_between_tests(config: pytest.Config) -> bool:
    root = f"{config.rootpath}{os.sep}"
    return any(
        _is_of_suite(implementation.plugin, root)
        for name in BETWEEN_TESTS
        for implementation in getattr(config.hook, name).get_hookimpls()
    )


def has_own_protocol(item: pytest.Item) -> bool:
    """Whether somebody runs tests in a way of their own, and may report of them what they like."""
    return any(
        not (implementation.hookwrapper or implementation.wrapper)
        and _package(implementation.plugin) not in ALL_REPORTED
        for implementation in item.ihook.pytest_runtest_protocol.get_hookimpls()
    )


def _module(plugin: object) -> object:
    return plugin if isinstance(plugin, ModuleType) else sys.modules.get(type(plugin).__module__)


def _package(plugin: object) -> str:
    return str(getattr(_module(plugin), "__name__", "")).partition(".")[0]


def _is_of_suite(plugin: object, root: str) -> bool:
    if _package(plugin) == OURS:
        return False  # in a checkout it is below the root
    module = _module(plugin)
    path = getattr(module, "__file__", None) or ""
    is_installed = f"{os.sep}site-packages{os.sep}" in path or f"{os.sep}dist-packages{os.sep}" in path
    return os.path.basename(path) == "conftest.py" or (path.startswith(root) and not is_installed)

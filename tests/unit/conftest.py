"""Sessions of pytest to look into, for the tests of runner/pytest_private.py.

Which is not imported here: were one of its imports moved, test_pytest_private.py would not get to say so.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest

from pytest_isolate import hookspecs, options

PACKAGE = Path(__file__).parents[2] / "pytest_isolate"


class TinyPlugin:
    """As much of the plugin as options and markers need."""

    @staticmethod
    def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
        pluginmanager.add_hookspecs(hookspecs)

    @staticmethod
    def pytest_addoption(parser: pytest.Parser) -> None:
        options.add_options(parser)

    @staticmethod
    def pytest_configure(config: pytest.Config) -> None:
        options.add_markers(config)


@pytest.fixture
def tiny(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    # An installed pytest-isolate would register the same options.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # It collects garbage five times for each inner session: three quarters of the time of these tests.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:unraisableexception")
    pytester.plugins = [TinyPlugin()]
    return pytester


@pytest.fixture
def cure(request: pytest.FixtureRequest) -> None:
    """What to do when the test fails: pytest shows it then, and only then."""
    name = request.function.__name__.removeprefix("test_")
    users = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        if re.search(rf"\bpytest_private\.{name}\b", path.read_text())
    ]
    text = f"""pytest_private.{name} relies on {request.function.__doc__}
Used by {", ".join(users) or "pytest_private.py itself"}.
If pytest {pytest.__version__} has moved it: `git log -S NAME -- src/_pytest` in a clone of pytest tells where to;
support both places in runner/pytest_private.py, and say there since when.
"""
    request.node.add_report_section("setup", "what to do", text)


class Inner(Protocol):
    def __call__(self, source: str, *args: str, **hooks: Callable[..., object]) -> Seen: ...


class Seen:
    """What an inner session printed and ended with, and what the hooks given to it returned, in order."""

    def __init__(self, result: pytest.RunResult, values: list[Any]) -> None:
        self.out = result.stdout.str()
        self.outcomes = result.parseoutcomes()
        self.values = values

    @property
    def value(self) -> Any:
        (value,) = self.values
        return value


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Inner:
    """Run a module in a pytest of its own, in this process, with no plugins but these hooks.

    They are called before pytest's own implementations. What one raises is raised here.
    """
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.delenv("PYTEST_PLUGINS", raising=False)
    monkeypatch.setattr("pytest_isolate.runner.pytest_private._never_freed", [])

    def run(source: str, *args: str, **hooks: Callable[..., object]) -> Seen:
        plugin = Hooks(hooks)
        pytester.makepyfile(test_it=source)
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider", *args, plugins=[plugin])
        if plugin.error is not None:
            raise plugin.error
        return Seen(result, plugin.values)

    return run


class Hooks:
    """A plugin made of functions. pytest would make an INTERNALERROR of what they raise."""

    def __init__(self, hooks: dict[str, Callable[..., object]]) -> None:
        self.values: list[object] = []
        self.error: BaseException | None = None
        for name, function in hooks.items():
            setattr(self, name, pytest.hookimpl(tryfirst=True)(self._kept(function)))

    def _kept(self, function: Callable[..., object]) -> Callable[..., None]:
        @functools.wraps(function)
        def hook(*args: object) -> None:
            try:
                self.values.append(function(*args))
            except BaseException as error:
                self.error = self.error or error
                raise

        return hook


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("name", logging.WARNING, "file.py", 1, message, (), None)


def report_of(outcome: Literal["passed", "failed"], longrepr: Any) -> pytest.TestReport:
    return pytest.TestReport("test_it.py::test", ("test_it.py", 0, "test"), {}, outcome, longrepr, "call")


MARKED = """
    import pytest
    def test_plain(): pass
    @pytest.mark.skip
    def test_skip(): pass
    @pytest.mark.skipif(True, reason="r")
    def test_skipif(): pass
    @pytest.mark.skipif("no such name")
    def test_broken_skipif(): pass
    @pytest.mark.xfail(reason="known")
    def test_xfail(): assert 0
    @pytest.mark.xfail(reason="known", run=False)
    def test_xfail_not_run(): pass
    @pytest.mark.xfail(reason="known", raises=ValueError)
    def test_xfail_raises(): raise ValueError
    @pytest.mark.xfail("no such name")
    def test_broken_xfail(): pass
"""

"""Whose hooks may share state with tests: the suite's, and not those of what is installed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import pytest_isolate.plugin
from pytest_isolate.runner.suite_hooks import BETWEEN_TESTS, listens_between_tests

ROOT = Path("/project")


def config(plugin: object, hook: str, root: Path = ROOT) -> Any:
    impls = {name: [SimpleNamespace(plugin=plugin)] if name == hook else [] for name in BETWEEN_TESTS}
    hooks = {name: SimpleNamespace(get_hookimpls=lambda found=found: found) for name, found in impls.items()}
    return SimpleNamespace(rootpath=root, hook=SimpleNamespace(**hooks))


def module(name: str, path: str) -> ModuleType:
    made = ModuleType(name)
    made.__file__ = path
    return made


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("conftest", "/project/tests/conftest.py", True),
        ("conftest", "/elsewhere/conftest.py", True),
        ("tools.plugin", "/project/tools/plugin.py", True),
        ("other", "/project/.venv/lib/python3/site-packages/other.py", False),
        ("other", "/usr/lib/python3/dist-packages/other.py", False),
        ("pytest_isolate.plugin", "/project/pytest_isolate/plugin.py", False),
        ("pytest_isolated_by_us", "/project/pytest_isolated_by_us.py", True),
    ],
)
def test_by_where_it_is(name: str, path: str, expected: bool) -> None:
    for hook in BETWEEN_TESTS:
        assert listens_between_tests(config(module(name, path), hook)) is expected


def test_an_object_is_of_the_module_of_its_class() -> None:
    here = Path(__file__)

    class Plugin:
        pass

    assert listens_between_tests(config(Plugin(), BETWEEN_TESTS[0], here.parent))
    assert not listens_between_tests(config(Plugin(), BETWEEN_TESTS[0]))


def test_this_plugin_is_never_of_the_suite() -> None:
    root = Path(pytest_isolate.plugin.__file__).parents[1]
    assert not listens_between_tests(config(pytest_isolate.plugin, BETWEEN_TESTS[0], root))

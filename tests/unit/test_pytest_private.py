"""runner/pytest_private.py has a test for each of its names, and imports what there is.

The tests, ``test_NAME``, are in test_pytest_private_*.py. Each docstring says which file and attribute of
pytest the name relies on, and what goes wrong without it. A failure shows it, with who uses the name here and
how to find where pytest has moved the attribute to.

The sources are read here and not imported, so that these tests can still fail when an import does.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PRIVATE = Path(__file__).parents[2] / "pytest_isolate" / "runner" / "pytest_private.py"
TESTS = sorted(Path(__file__).parent.glob("test_pytest_private_*.py"))

#: "_pytest/file.py, ``Class.attribute`` (since 8.0): what would go wrong."
ABOUT = re.compile(r"(_pytest/|pluggy/|threading)[\w/]*\.py, ``[^`]+``.*:\s.+", re.DOTALL)


def exported() -> list[str]:
    for node in ast.parse(PRIVATE.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    raise AssertionError(f"no __all__ in {PRIVATE}")


def private_imports() -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(PRIVATE.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("_pytest"):
            yield from ((str(node.module), alias.name) for alias in node.names)


def documented() -> dict[str, str]:
    """The docstring of each test."""
    return {
        node.name.removeprefix("test_"): ast.get_docstring(node) or ""
        for path in TESTS
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize(("module", "name"), [*private_imports()])
def test_what_is_imported_exists(module: str, name: str) -> None:
    path = module.replace(".", "/") + ".py"
    cure = (
        f"pytest {pytest.__version__} has moved {name} out of {path}, and no isolated test can run: "
        f"`git log -S {name} -- src/{path}` in a clone of pytest tells where to; import it from both places in "
        f"runner/pytest_private.py, and say there since when"
    )
    assert hasattr(importlib.import_module(module), name), cure


def test_every_name_has_a_test() -> None:
    missing = set(exported()) - set(documented())
    assert missing == set(), (
        "write a test_NAME for each in tests/unit/test_pytest_private_*.py, with a docstring as the others have"
    )


def test_every_test_is_of_a_name() -> None:
    assert set(documented()) - set(exported()) == set(), "a test of a name that is gone"


def test_every_test_says_what_pytest_may_move() -> None:
    wrong = [name for name, docstring in documented().items() if not ABOUT.match(docstring)]
    assert wrong == [], "begin its docstring like this: _pytest/file.py, ``attribute``: what would go wrong"

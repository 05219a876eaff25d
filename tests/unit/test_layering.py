"""Modules import downwards only: a test, so that the layers of CONTRIBUTING.md stay true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pytest_isolate"
LAYERS = {
    "errors": 0,
    "units": 0,
    "values": 0,
    "declared": 0,
    "spec": 0,
    "outcome": 0,
    "usage": 0,
    "evidence": 0,
    "violation": 0,
    "strict": 0,
    "baseline": 0,
    "account": 0,
    "syscalls": 1,
    "kernel": 2,
    "sandbox": 3,
    "runner": 4,
    "options": 5,
    "project": 5,
    "settings": 5,
    "marker": 5,
    "hookspecs": 5,
    "lifecycle": 5,
    "reporters": 5,
    "cli": 5,
    "plugin": 6,
}
FORBIDDEN_BELOW_RUNNER = {"pytest", "_pytest", "pluggy"}
PRIVATE = r"_pytest(\.[\w.]+)?"
BUILD_ONLY = {"syscalls/build_hook.py"}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name != "__init__.py" and name not in BUILD_ONLY:
            yield name, path


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(name: str) -> str:
    return name.split("/", maxsplit=1)[0].removesuffix(".py")


@pytest.mark.parametrize(
    ("name", "path"), [*modules()], ids=lambda value: value if isinstance(value, str) else ""
)
def test_imports_go_down(name: str, path: Path) -> None:
    mine = part(name)
    for module in imported(path):
        top, _, rest = module.partition(".")
        if top in FORBIDDEN_BELOW_RUNNER:
            assert LAYERS[mine] >= 4, f"{name} imports {module}"
        if top == "pytest_isolate" and rest:
            other = rest.split(".")[0]
            if other in LAYERS and other != mine:
                level = LAYERS[other]
                assert level < LAYERS[mine] or level == LAYERS[mine] in (0, 5), f"{name} imports {module}"


def private_uses(path: Path) -> Iterator[str]:
    """Imports of pytest's private modules, and their names in strings, for ``import_module`` or ``sys.modules``."""
    constants = (
        node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)
    )
    texts = (value for value in constants if isinstance(value, str))
    yield from (text for text in (*imported(path), *texts) if re.fullmatch(PRIVATE, text))


def test_one_file_knows_private_names_of_pytest() -> None:
    users = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if [*private_uses(path)]}
    assert users == {"runner/pytest_private.py"}, (
        "what needs such a name becomes a function in there, with a test"
    )


def test_every_module_has_a_layer() -> None:
    assert {part(name) for name, _ in modules()} <= set(LAYERS)


@pytest.mark.parametrize(
    ("name", "path"), [*modules()], ids=lambda value: value if isinstance(value, str) else ""
)
def test_nobody_imports_the_plugin(name: str, path: Path) -> None:
    assert "pytest_isolate.plugin" not in set(imported(path))


def test_modules_stay_small() -> None:
    sizes = {name: len(path.read_text().splitlines()) for name, path in modules()}
    del sizes["runner/pytest_private.py"]  # one file by design, however much of pytest we have to know
    assert {name: lines for name, lines in sizes.items() if lines > 420} == {}

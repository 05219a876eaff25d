"""Modules import downwards only: a test, so that the layers of CONTRIBUTING.md stay true."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pytest_isolate"
LAYERS = {
    "errors": 0,
    "units": 0,
    "values": 0,
    "spec": 0,
    "outcome": 0,
    "usage": 0,
    "evidence": 0,
    "syscalls": 1,
    "kernel": 2,
    "sandbox": 3,
    "runner": 4,
    "options": 5,
    "settings": 5,
    "marker": 5,
    "hookspecs": 5,
    "lifecycle": 5,
    "reporters": 5,
    "cli": 5,
    "plugin": 6,
}
FORBIDDEN_BELOW_RUNNER = {"pytest", "_pytest", "pluggy"}
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
        if top == "_pytest":
            assert name == "runner/pytest_private.py", f"{name} imports {module}"
        if top == "pytest_isolate" and rest:
            other = rest.split(".")[0]
            if other in LAYERS and other != mine:
                level = LAYERS[other]
                assert level < LAYERS[mine] or level == LAYERS[mine] in (0, 5), f"{name} imports {module}"


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

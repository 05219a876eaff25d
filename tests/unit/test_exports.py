"""What ``__all__`` promises exists, and the public names are the ones that are documented."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import pytest_isolate

PACKAGE = Path(__file__).parents[2] / "pytest_isolate"
MODULES = sorted(
    "pytest_isolate." + path.relative_to(PACKAGE).as_posix().removesuffix(".py").replace("/", ".")
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py", "build_hook.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_all_is_true(name: str) -> None:
    module = importlib.import_module(name)
    for export in getattr(module, "__all__", ()):
        assert hasattr(module, export), f"{name}.__all__ names {export}"


@pytest.mark.parametrize("name", pytest_isolate.__all__)
def test_public_names_resolve_and_are_documented(name: str) -> None:
    assert getattr(pytest_isolate, name) is not None
    reference = PACKAGE.parent / "docs" / "reference"
    assert any(name in page.read_text() for page in reference.glob("*.md"))

"""What a project says of its images: ``[tool.pytest-isolate.images]`` of pyproject.toml, and its hooks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pytest_isolate.errors import ImageError, SpecError
from pytest_isolate.sandbox.images.recipe import load_toml
from pytest_isolate.sandbox.images.reference import looks_like_reference, parse_reference, toml_key
from pytest_isolate.spec import ImageRootfs, PathRootfs
from pytest_isolate.units import quoted

__all__ = ["find_rootfs", "image_table"]

TABLE = "[tool.pytest-isolate.images]"
_SHAPE = '"registry.example/alpine@sha256:…"'
_EXAMPLE = f"write alpine = {_SHAPE}"
_TABLE = pytest.StashKey[dict[str, str]]()


def find_rootfs(value: str, config: pytest.Config, *, origin: str) -> PathRootfs | ImageRootfs:
    """What a text means: what a hook says, a name of the table, a path that is there, an image of a registry,
    or what will be found when it is needed: a path then, or an image of the store. Raises SpecError."""
    rootdir = config.rootpath
    try:
        found = config.hook.pytest_isolate_resolve_image(name=value, config=config)
    except Exception as error:  # of the project's own code, which must not end the session
        raise SpecError(f"the hook pytest_isolate_resolve_image failed: {error!r}", origin=origin) from error
    if found is None:
        try:
            found = _table(config).get(value)
        except ImageError as error:
            raise SpecError(str(error), origin=origin) from None
    meant = value if found is None else os.fspath(found)
    path = os.path.normpath(rootdir / os.path.expanduser(meant))
    if os.path.exists(path):
        return PathRootfs(path, asked=value)
    if not looks_like_reference(meant):
        return PathRootfs(path, "" if "/" in meant else meant, asked=value)
    try:
        return ImageRootfs(str(parse_reference(meant)), asked=value)
    except ImageError as error:
        named = "" if meant == value else f" (which {quoted(value)} stands for)"
        raise SpecError(f"{error}{named}", origin=origin) from None


def _table(config: pytest.Config) -> dict[str, str]:
    if _TABLE not in config.stash:
        config.stash[_TABLE] = image_table(config.rootpath)
    return config.stash[_TABLE]


def image_table(rootdir: Path) -> dict[str, str]:
    """Short names and what they stand for: a path relative to the project, or an image of a registry.
    Raises ImageError."""
    file = rootdir / "pyproject.toml"
    try:
        table: Any = load_toml(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {TABLE} of {file}: {error}") from None
    for key in ("tool", "pytest-isolate", "images"):
        table = table.get(key, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise ImageError(f"{TABLE} of {file} is not a table of texts; {_EXAMPLE}")
    for key, value in table.items():
        if not isinstance(value, str):
            raise ImageError(f"{TABLE} of {file} is not a table of texts: {_wrong(key, value)}")
    return table


def _wrong(key: str, value: Any) -> str:
    """What is no text: mostly a name with a dot that is not quoted, which TOML takes for tables."""
    if not isinstance(value, dict) or not value:
        return f"{toml_key(key)} is {quoted(value)}; {_EXAMPLE}"
    parts = [key]
    while isinstance(value, dict) and value:
        part, value = next(iter(value.items()))
        parts.append(part)
    return (
        f"{toml_key(key)} is a table; quote a name with a dot, as in {toml_key('.'.join(parts))} = {_SHAPE}"
    )

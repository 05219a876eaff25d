"""Recipes of images: small TOML files, read and checked. ``build.py`` does what they say."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pytest_isolate.errors import ImageError
from pytest_isolate.units import quoted

__all__ = ["DIRECTORY", "Builder", "Busybox", "Debian", "Recipe", "find_recipe", "load_toml", "read_recipe"]

#: Where a name of a recipe is looked up.
DIRECTORY = "rootfs-images"
MOST_BASES = 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_VARIABLE = re.compile(r"[^=\0]+=[^\0]*")
#: As dpkg and apt have them: none looks like an option of a command.
_WORD = re.compile(r"[a-z0-9][a-z0-9+.:_-]*")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Busybox:
    """Debian's static busybox, with a link for each of its commands."""

    package: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Debian:
    """A Debian system, by mmdebstrap."""

    suite: str
    variant: str
    packages: tuple[str, ...]
    path_exclude: tuple[str, ...]  #: of dpkg(1)
    path_include: tuple[str, ...]


Builder = Busybox | Debian


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """``builder`` makes a whole root. With a base, what differs from that is the image's topmost layer."""

    name: str
    state: str  #: tells one state of the recipe and its bases from another
    base: Recipe | None
    builder: Builder
    source_date_epoch: int  #: nothing in the image is younger (https://reproducible-builds.org)
    files: tuple[tuple[str, str], ...]  #: paths and texts
    env: tuple[str, ...]
    user: str
    workdir: str


def find_recipe(text: str, directory: Path) -> Path:
    """A recipe's file, by its path or its name. Raises ImageError."""
    path, known = Path(text), directory / DIRECTORY
    if "/" in text or path.suffix == ".toml":
        if not path.is_file():
            raise ImageError(f"there is no recipe {path}")
        return path
    named = known / f"{text}.toml"
    if not named.is_file():
        names = ", ".join(sorted(file.stem for file in known.glob("*.toml")))
        raise ImageError(
            f"there is no recipe {text} in {known}; "
            + (f"there is: {names}" if names else "name a file, or run this where the recipes are")
        )
    return named


def read_recipe(path: Path, bases: int = 0) -> Recipe:
    """Raises ImageError, which names the file and the key."""
    try:
        data, table = path.read_bytes(), load_toml(path)
    except OSError as error:
        raise ImageError(f"cannot read recipe {path}: {error.strerror}") from None
    except ValueError as error:
        raise ImageError(f"recipe {path} is not TOML: {error}") from None
    if bases > MOST_BASES:
        raise ImageError(f"recipe {path} builds on itself, or on more than {MOST_BASES} others")
    try:
        base_name = _text(table, "from", _NAME, "")
        base = read_recipe(path.with_name(f"{base_name}.toml"), bases + 1) if base_name else None
        return _recipe(path.stem, data, table, base)
    except ValueError as error:
        raise ImageError(f"recipe {path}: {error}") from None


def load_toml(path: Path) -> dict[str, Any]:
    """Raises OSError, ValueError."""
    # pytest itself depends on tomli where the standard library has no tomllib.
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    with open(path, "rb") as stream:
        loaded: dict[str, Any] = toml.load(stream)
    return loaded


def _recipe(name: str, data: bytes, table: dict[str, Any], base: Recipe | None) -> Recipe:
    _only(table, "", "from", "source_date_epoch", "busybox", "debian", "files", "config")
    config = _table(table, "config")
    _only(config, "config.", "env", "user", "workdir")
    files = _table(table, "files")
    for path, text in files.items():
        if not path.startswith("/") or ".." in path.split("/") or not isinstance(text, str):
            raise ValueError(f"files has {quoted(path)}, which is no absolute path with a text")
    env = _texts(config, "config.env", _VARIABLE)
    return Recipe(
        name=name,
        state="recipe-" + hashlib.sha256((base.state if base else "").encode() + data).hexdigest(),
        base=base,
        builder=_builder(table, base),
        source_date_epoch=_epoch(table, base),
        files=(*(base.files if base else ()), *files.items()),
        env=(*(base.env if base else ()), *env),
        user=_text(config, "config.user", None, base.user if base else ""),
        workdir=_text(config, "config.workdir", None, base.workdir if base else ""),
    )


def _builder(table: dict[str, Any], base: Recipe | None) -> Builder:
    keys = [key for key in ("busybox", "debian") if key in table]
    if len(keys) != 1:
        raise ValueError(
            f"it has {' and '.join(keys) or 'no builder'}; one of [busybox] and [debian] it needs"
        )
    found = _table(table, keys[0])
    if keys == ["busybox"]:
        _only(found, "busybox.", "package")
        if base is not None:
            raise ValueError("[busybox] builds on nothing; leave 'from' away")
        return Busybox(_text(found, "busybox.package", _WORD, "busybox-static"))
    _only(found, "debian.", "suite", "variant", "packages", "path_exclude", "path_include")
    below = base.builder if base is not None else None
    if isinstance(below, Busybox):
        raise ValueError("[debian] does not build on [busybox]; leave 'from' away")
    return Debian(
        suite=_text(found, "debian.suite", _WORD, below.suite if below else None),
        variant=_text(found, "debian.variant", _WORD, below.variant if below else "minbase"),
        packages=(*(below.packages if below else ()), *_texts(found, "debian.packages", _WORD)),
        path_exclude=_texts(found, "debian.path_exclude") or (below.path_exclude if below else ()),
        path_include=_texts(found, "debian.path_include") or (below.path_include if below else ()),
    )


def _epoch(table: dict[str, Any], base: Recipe | None) -> int:
    found = table.get("source_date_epoch", base.source_date_epoch if base is not None else None)
    if found is None:
        raise ValueError("source_date_epoch is not given; it is a number of seconds since 1970")
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 2**33:
        raise ValueError(f"source_date_epoch is {quoted(found)}, not a number of seconds since 1970")
    return found


def _only(table: Mapping[str, object], where: str, *known: str) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"unknown key {quoted(where + key)}; known: {', '.join(known)}")


def _table(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = table.get(key, {})
    if not isinstance(found, dict):
        raise ValueError(f"{key} is {quoted(found)}, not a table")
    return found


def _text(table: Mapping[str, Any], key: str, form: re.Pattern[str] | None, default: str | None) -> str:
    return _checked(table.get(key.rpartition(".")[2], default), key, form)


def _texts(table: Mapping[str, Any], key: str, form: re.Pattern[str] | None = None) -> tuple[str, ...]:
    found = table.get(key.rpartition(".")[2], [])
    if not isinstance(found, list):
        raise ValueError(f"{key} is {quoted(found)}, not a list of texts")
    return tuple(_checked(each, f"an entry of {key}", form) for each in found)


def _checked(value: object, key: str, form: re.Pattern[str] | None) -> str:
    if value is None:
        raise ValueError(f"{key} is not given")
    if not isinstance(value, str) or "\0" in value or (value and form and not form.fullmatch(value)):
        raise ValueError(f"{key} is {quoted(value)}, which it cannot be")
    return value

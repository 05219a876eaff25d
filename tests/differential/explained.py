"""Differences that are meant to be: which tests, what of them, and why, as data in TOML."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Explanation", "explanations", "load_toml"]

# Not an import: mypy reads this as Python 3.10, which has no tomllib.
_toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """``tests``: nodeids, with ``*`` for anything; ``what``: kinds of facts, none: all of them."""

    tests: str
    reason: str
    what: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()

    def covers(self, nodeid: str, what: str, mode: str) -> bool:
        return (
            (not self.modes or mode in self.modes)
            and (not self.what or any(_matches(pattern, what) for pattern in self.what))
            and _matches(self.tests, nodeid)
        )


def _matches(pattern: str, text: str) -> bool:
    """Not fnmatch: brackets are frequent in nodeids."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def load_toml(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data: dict[str, Any] = _toml.load(file)
    return data


def explanations(rows: Iterable[Mapping[str, Any]]) -> list[Explanation]:
    """Raises TypeError for a key that is none: a typing error shall not explain everything."""
    return [Explanation(**{key: _frozen(value) for key, value in row.items()}) for row in rows]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

"""Hypothesis' example database: what a test saves or deletes there is saved or deleted in the parent's too.

Else a failing example would not be tried first in the next run. Only the default database, ``.hypothesis``;
one that a test opens by itself is a matter of ``binds``. Methods are wrapped because a directory's own
listener needs the package watchdog and a thread.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pytest

__all__ = ["begin", "collect", "deliver", "storage"]

METHODS = ("save", "delete", "move")


def _database() -> Any:
    settings = getattr(sys.modules.get("hypothesis"), "settings", None)
    if settings is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a directory that cannot be used: for the test that uses it
        return settings.default.database


def storage() -> str | None:
    """The directory of the database, with what else Hypothesis remembers beside the default one, and writes
    where there is no database: its profile for CI has none."""
    if "hypothesis" not in sys.modules:
        return None
    path = getattr(_database(), "path", None)
    if path is None:
        return os.path.abspath(os.environ.get("HYPOTHESIS_STORAGE_DIRECTORY", ".hypothesis"))
    directory: str = os.path.abspath(path)
    return os.path.dirname(directory) if os.path.basename(directory) == "examples" else directory


def begin(config: pytest.Config, send: Callable[[dict[str, Any]], None]) -> None:
    database = _database()
    if database is None:
        return
    # Of the class: unless a profile has set one, each look at ``settings.database`` makes another, equal one.
    for name in METHODS:
        setattr(type(database), name, _sending(name, getattr(type(database), name), send))


def _sending(
    name: str, method: Callable[..., None], send: Callable[[dict[str, Any]], None]
) -> Callable[..., None]:
    def call_and_send(self: object, *arguments: bytes) -> None:
        method(self, *arguments)
        if self == _database():
            send({"method": name, "arguments": [bytes(argument).hex() for argument in arguments]})

    return call_and_send


def collect(item: pytest.Item) -> Iterable[dict[str, Any]]:
    return ()


def deliver(item: pytest.Item, data: dict[str, Any]) -> None:
    if data["method"] not in METHODS:
        raise ValueError(f"{data['method']!r} is no method of a database")
    arguments = [bytes.fromhex(argument) for argument in data["arguments"]]
    if (database := _database()) is not None:  # a spawned test may have its own, not knowing that this is CI
        getattr(database, data["method"])(*arguments)

"""``config.cache.set`` in a test: the value is JSON, so it is set again in the parent's cache.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

import pytest

__all__ = ["begin", "collect", "deliver"]


def begin(config: pytest.Config, send: Callable[[dict[str, Any]], None]) -> None:
    cache = getattr(config, "cache", None)
    if cache is None:
        return
    original = cache.set

    def set_and_send(key: str, value: object) -> None:
        original(key, value)  # in the sandbox's files, for this test to get; and to raise what it raises
        send({"key": key, "value": value})

    cache.set = set_and_send


def collect(item: pytest.Item) -> Iterable[dict[str, Any]]:
    return ()


def deliver(item: pytest.Item, data: dict[str, Any]) -> None:
    key = PurePosixPath(str(data["key"]))
    if key.is_absolute() or ".." in key.parts:
        raise ValueError(f"the key {data['key']!r} leads out of the cache directory")
    assert item.config.cache is not None
    item.config.cache.set(str(key), data["value"])

"""What a child carries to the parent is data that the parent judges."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

from pytest_isolate.runner import carry
from pytest_isolate.sandbox.messages import Carried


class Item:
    """As much of one as couriers use."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.location = ("test_it.py", 0, "test_it")
        self.warnings: list[str] = []


class Cache:
    def __init__(self) -> None:
        self.values: dict[str, object] = {}

    def set(self, key: str, value: object) -> None:
        self.values[key] = value


class Config:
    def __init__(self) -> None:
        self.cache = Cache()


@pytest.fixture
def deliver() -> Callable[[str, dict[str, Any]], Item]:
    def deliver(plugin: str, data: dict[str, Any]) -> Item:
        item = Item(Config())
        with warnings.catch_warnings(record=True) as caught:
            carry.deliver(item, Carried(plugin, data))  # type: ignore[arg-type]
        item.warnings = [str(warning.message) for warning in caught]
        return item

    return deliver


def test_cache(deliver: Callable[..., Item]) -> None:
    item = deliver("cache", {"key": "mine/x", "value": [1]})
    assert item.config.cache.values == {"mine/x": [1]}
    assert item.warnings == []


@pytest.mark.parametrize("key", ["../escaped", "/etc/escaped", "a/../../escaped"])
def test_a_key_that_leads_out_of_the_cache_is_refused(deliver: Callable[..., Item], key: str) -> None:
    item = deliver("cache", {"key": key, "value": 1})
    assert item.config.cache.values == {}
    assert "leads out of the cache directory" in item.warnings[0]


@pytest.mark.parametrize(
    ("plugin", "data"),
    [
        ("cache", {}),
        ("benchmark", {"durations": [1.0]}),
        ("hypothesis", {"method": "__init__", "arguments": []}),
        ("syrupy", {"extension": ["os", "system"]}),
        ("nobody", {}),
    ],
)
def test_nonsense_is_a_warning(deliver: Callable[..., Item], plugin: str, data: dict[str, Any]) -> None:
    item = deliver(plugin, data)
    assert len(item.warnings) == 1
    assert f"what this test left in {plugin} is lost" in item.warnings[0]

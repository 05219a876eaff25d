"""The module ``random``: each test goes on where the one before it stopped, as in one process.

Without this every test would draw the same numbers, and names made of them would clash outside the sandbox.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pytest_isolate.runner import FRESH_PLUGIN

__all__ = ["begin", "collect", "deliver"]

_state: Any = None


def begin(config: pytest.Config, send: Callable[[dict[str, Any]], None]) -> None:
    global _state  # noqa: PLW0603  one process, one generator
    # A fresh interpreter has a seed of its own, and pytest-randomly seeds for each phase of each test.
    is_seeded = config.pluginmanager.hasplugin(FRESH_PLUGIN) or config.getoption("randomly_reset_seed", False)
    _state = None if is_seeded else random.getstate()


def collect(item: pytest.Item) -> Iterable[dict[str, Any]]:
    global _state  # noqa: PLW0603
    if _state is None or (state := random.getstate()) == _state:
        return
    _state = state
    version, words, gauss_next = state
    yield {"version": version, "words": array("I", words).tobytes().hex(), "gauss_next": gauss_next}


def deliver(item: pytest.Item, data: dict[str, Any]) -> None:
    words = array("I", bytes.fromhex(data["words"]))
    random.setstate((data["version"], tuple(words), data["gauss_next"]))

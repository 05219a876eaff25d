"""What a test leaves in the memory of other plugins, carried as plain data from the child to the parent.

Plugins that know pytest-xdist send theirs when a worker's session ends, which a child's never does. So for
each plugin whose state counts, a module here says what to carry. Coverage has a message of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import pytest

from pytest_isolate.runner import replay
from pytest_isolate.runner.carry import benchmark, cache, hypothesis, junit, randomness, syrupy
from pytest_isolate.sandbox.messages import Carried

__all__ = ["Courier", "Data", "begin", "collect", "deliver", "storage"]

Data = dict[str, Any]


class Courier(Protocol):
    """A module of this package. Does nothing if its plugin is not there."""

    def begin(self, config: pytest.Config, send: Callable[[Data], None]) -> None:
        """In the child, once; ``send`` may be called later, while a test runs."""

    def collect(self, item: pytest.Item) -> Iterable[Data]:
        """In the child, after each test: what is new since the last call."""

    def deliver(self, item: pytest.Item, data: Data) -> None:
        """In the parent, before the test's reports are logged. May raise anything for data that is none."""


COURIERS: Mapping[str, Courier] = {
    "benchmark": benchmark,
    "cache": cache,
    "hypothesis": hypothesis,
    "junitxml": junit,
    "random": randomness,
    "syrupy": syrupy,
}


def begin(config: pytest.Config, send: Callable[[Carried], None]) -> None:
    for name, courier in COURIERS.items():
        courier.begin(config, lambda data, name=name: send(Carried(name, data)))  # type: ignore[misc]


def collect(item: pytest.Item) -> Iterable[Carried]:
    for name, courier in COURIERS.items():
        for data in courier.collect(item):
            yield Carried(name, data)


def storage() -> Iterator[str]:
    """In the parent: directories where plugins write in the child too, in vain."""
    if (directory := hypothesis.storage()) is not None:
        yield directory


def deliver(item: pytest.Item, message: Carried) -> None:
    try:
        COURIERS[message.plugin].deliver(item, message.data)
    except Exception as error:  # a child may send anything
        replay.warn(item, f"what this test left in {message.plugin} is lost: {error!r}")

"""``record_testsuite_property`` and ``record_xml_attribute``, which write to pytest's junitxml plugin.

There is none in a worker of pytest-xdist, with or without isolation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pytest_isolate.runner import pytest_private

__all__ = ["begin", "collect", "deliver"]

_sent = 0


def begin(config: pytest.Config, send: Callable[[dict[str, Any]], None]) -> None:
    global _sent  # noqa: PLW0603  one process, one count
    _sent = len(pytest_private.junit_suite_properties(config))


def collect(item: pytest.Item) -> Iterable[dict[str, Any]]:
    global _sent
    properties = pytest_private.junit_suite_properties(item.config)
    new, _sent = properties[_sent:], len(properties)
    attributes = pytest_private.junit_attributes(item)
    if new or attributes:
        yield {"suite_properties": new, "attributes": attributes}


def deliver(item: pytest.Item, data: dict[str, Any]) -> None:
    pytest_private.add_to_junit(
        item,
        [(str(name), str(value)) for name, value in data["suite_properties"]],
        {str(name): str(value) for name, value in data["attributes"].items()},
    )

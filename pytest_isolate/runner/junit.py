"""What a test tells ``--junitxml`` beside its reports: it would be lost with the child."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_isolate.runner import pytest_private
from pytest_isolate.sandbox.messages import JunitRecorded

__all__ = ["replay", "watch"]


def watch(item: pytest.Item) -> Callable[[], list[JunitRecorded]]:
    """In the child, before the test: the function gives what is recorded from then on."""
    known = len(pytest_private.junit_properties(item.config))

    def recorded() -> list[JunitRecorded]:
        attributes = pytest_private.junit_attributes(item)
        properties = pytest_private.junit_properties(item.config)[known:]
        return [JunitRecorded(dict(attributes), list(properties))] if attributes or properties else []

    return recorded


def replay(item: pytest.Item, message: JunitRecorded) -> None:
    """In the parent, before the reports are logged: with the last one junitxml is done with the test."""
    attributes = {name: value for name, value in message.attributes.items() if isinstance(value, str)}
    if attributes:  # asking for them makes an entry for the test
        pytest_private.junit_attributes(item).update(attributes)
    properties = pytest_private.junit_properties(item.config)
    for name, value in message.properties:
        properties.append((str(name), str(value)))

"""``PYTEST_CURRENT_TEST`` in pytest's own process while a child runs the test, for those who watch it."""

from __future__ import annotations

import os

import pytest

__all__ = ["clear", "show", "show_after"]

VARIABLE = "PYTEST_CURRENT_TEST"
NEXT = {"setup": "call", "call": "teardown"}


def show(item: pytest.Item, phase: str) -> None:
    os.environ[VARIABLE] = f"{item.nodeid} ({phase})".replace("\x00", "(null)")


def show_after(item: pytest.Item, phase: object) -> None:
    """The phase that follows the one that the child has reported."""
    if phase in NEXT:
        show(item, NEXT[str(phase)])


def clear() -> None:
    os.environ.pop(VARIABLE, None)

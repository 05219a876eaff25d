"""``PYTEST_CURRENT_TEST`` in pytest's own process while a child runs the test, for those who watch it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

__all__ = ["clear", "show", "show_after", "shown"]

VARIABLE = "PYTEST_CURRENT_TEST"
NEXT = {"setup": "call", "call": "teardown"}


def show(item: pytest.Item, phase: str) -> None:
    os.environ[VARIABLE] = f"{item.nodeid} ({phase})".replace("\x00", "(null)")


def show_after(item: pytest.Item, phase: object) -> None:
    """The phase that follows the one that the child has reported."""
    if isinstance(phase, str) and phase in NEXT:
        show(item, NEXT[phase])


def clear() -> None:
    os.environ.pop(VARIABLE, None)


@contextlib.contextmanager
def shown(item: pytest.Item) -> Iterator[None]:
    """For the time of a set-up before the item's turn, in which another test is the current one."""
    before = os.environ.get(VARIABLE)
    show(item, "setup")
    try:
        yield
    finally:
        clear()
        if before is not None:
            os.environ[VARIABLE] = before

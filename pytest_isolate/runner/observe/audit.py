"""Python's audit events (PEP 578), by name, to whom they are of interest; and the place of the code at fault.

A hook cannot be removed, so there is one for each process of a test, and it is told to pause.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["Handler", "install", "listen", "pause", "place", "resume"]

Handler = Callable[[tuple[Any, ...]], None]
"""Gets the arguments of the event. What it raises would be raised by the audited call: it must not."""

_handlers: dict[str, Handler] = {}
_paused = True
_rootdir = ""


def install(rootdir: str) -> None:
    """In the process of a test: hear from now on what :func:`listen` names."""
    global _rootdir, _paused
    if not _rootdir:
        sys.addaudithook(_hear)
    _rootdir, _paused = rootdir, False


def listen(event: str, handler: Handler) -> None:
    _handlers[event] = handler


def pause() -> None:
    global _paused  # noqa: PLW0603
    _paused = True


def resume() -> None:
    global _paused  # noqa: PLW0603
    _paused = False


def place(top: FrameType | None = None) -> str:
    """``tests/test_x.py:12 (test_y)``: the innermost frame of the caller's stack, or of one by its ``top``,
    that is the project's own, below rootdir and outside of site-packages; "" if none is."""
    frame = top if top is not None else sys._getframe(1)
    while frame is not None:
        filename = frame.f_code.co_filename
        if filename.startswith(_rootdir + os.sep) and "site-packages" not in filename:
            shown = os.path.relpath(filename, _rootdir)
            return f"{shown}:{frame.f_lineno} ({frame.f_code.co_name})"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if not _paused and (handler := _handlers.get(event)) is not None:
        handler(args)

"""Python's audit events (PEP 578), by name, to whom they are of interest; and the place of the code at fault.

A hook cannot be removed, so there is one for each process of a test, and it is told to pause.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable
from types import FrameType
from typing import Any

from pytest_isolate.runner import pytest_private

__all__ = [
    "Handler",
    "install",
    "listen",
    "look_at",
    "pause",
    "place",
    "place_of",
    "place_of_own",
    "resume",
    "rootdir",
]

Handler = Callable[[tuple[Any, ...]], None]
"""Gets the arguments of the event. What it raises would be raised by the audited call: it must not."""

_handlers: dict[str, Handler] = {}
_find = _handlers.get
_paused = True
_rootdir = ""
_test_file: os.PathLike[str] | str = ""
_is_project: dict[str, bool] = {}  # by file name
_is_helper: dict[str, bool] = {}  # by file name, too
_short_names: dict[str, str] = {}
#: Of Python and of this package, which may be below rootdir.
_FOREIGN = (
    *(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib")),
    __file__.rpartition("runner")[0],
)
_PYTEST = os.path.join(pytest_private.directory(), "")
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def install(directory: str) -> None:
    """In the process of a test: hear what :func:`listen` names, as soon as :func:`resume` is called."""
    global _rootdir  # noqa: PLW0603  one process, one hook
    if not _rootdir:
        sys.addaudithook(_hear)
    _rootdir = directory


def rootdir() -> str:
    return _rootdir


def look_at(test_file: os.PathLike[str]) -> None:
    """The file of the test that begins: of all places, one there says most."""
    global _test_file  # noqa: PLW0603
    _test_file = test_file


def listen(event: str, handler: Handler) -> None:
    """As one of several."""
    earlier = _handlers.get(event)
    _handlers[event] = handler if earlier is None else _both(earlier, handler)


def pause() -> None:
    global _paused  # noqa: PLW0603
    _paused = True


def resume() -> None:
    global _paused  # noqa: PLW0603
    _paused = False


def place(top: FrameType | None = None) -> str:
    """``tests/test_x.py:12 (test_y)``: the innermost frame of the caller's stack, or of another by ``top``,
    in the test's own file, else the innermost that is the project's; "" if there is none."""
    frame: FrameType | None = top if top is not None else sys._getframe(1)
    found: FrameType | None = None
    test_file = os.fspath(_test_file)  # not for tests without a place to tell, which are nearly all
    while frame is not None:
        filename = frame.f_code.co_filename
        if filename == test_file:
            found = frame
            break
        if found is None and _belongs(filename):
            found = frame
        frame = frame.f_back
    return "" if found is None else _show(found.f_code.co_filename, found.f_lineno, found.f_code.co_name)


def place_of_own() -> str:
    """As :func:`place`, if what does it is the project's: what an installed package keeps for itself is not,
    whoever has called it. Python does it for others, and so does pytest."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_for_others(frame.f_code.co_filename):
        frame = frame.f_back
    return place(frame) if frame is not None and _belongs(frame.f_code.co_filename) else ""


def place_of(filename: str, lineno: int, name: str) -> str:
    """The same of a piece of code; "" if it is not the project's."""
    return _show(filename, lineno, name) if _belongs(filename) else ""


def _show(filename: str, lineno: int, name: str) -> str:
    if (short := _short_names.get(filename)) is None:
        short = _short_names[filename] = os.path.relpath(filename, _rootdir)
    return f"{short}:{lineno} ({name})"


def _belongs(filename: str) -> bool:
    """Whether a file is the project's: below rootdir, and neither installed nor Python's own."""
    known = _is_project.get(filename)
    if known is None:
        known = _is_project[filename] = (
            filename.startswith(_rootdir + os.sep)
            and not filename.startswith(_FOREIGN)
            and not any(part in filename for part in _PACKAGES)
        )
    return known


def _is_for_others(filename: str) -> bool:
    known = _is_helper.get(filename)
    if known is None:
        known = _is_helper[filename] = filename.startswith((_PYTEST, "<frozen ")) or (
            filename.startswith(_FOREIGN) and not any(part in filename for part in _PACKAGES)
        )
    return known


def _both(first: Handler, second: Handler) -> Handler:
    def handle(args: tuple[Any, ...]) -> None:
        first(args)
        second(args)

    return handle


def _hear(event: str, args: tuple[Any, ...]) -> None:
    # Called for each event there is: one look-up is all that most of them get.
    handler = _find(event)
    if handler is not None and not _paused:
        handler(args)

"""Ctrl-C, kept until it can lose nothing: Python raises KeyboardInterrupt between any two instructions, so
also between taking a message and acting on it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

__all__ = ["allowed", "deferred", "forget", "waiting"]


@dataclass(slots=True)
class _State:
    """Of the process, as signal handlers are."""

    waits: bool = False
    came: bool = False


_state = _State()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within, Ctrl-C raises in :func:`waiting` only, or at the end. A handler of somebody else's stays."""
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        came = _state.came
        forget()
    if came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def allowed() -> Iterator[None]:
    """Around code of somebody else's within :func:`deferred`, which may take long: Ctrl-C raises at once."""
    if signal.getsignal(signal.SIGINT) is not _note:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _raise_kept()
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _note)


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Around a system call that waits for events, which are there still if it is interrupted."""
    _state.waits = True
    try:
        _raise_kept()
        yield
    finally:
        _state.waits = False


def forget() -> None:
    """Act on signals as outside of :func:`deferred`: at its end, and in a forked child."""
    _state.came = False
    if signal.getsignal(signal.SIGINT) is _note:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _raise_kept() -> None:
    if _state.came:
        _state.came = False
        raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> None:
    if _state.waits:
        signal.default_int_handler(number, frame)
    _state.came = True

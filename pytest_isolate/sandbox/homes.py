"""Where programs look for what is the user's own."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterable

from pytest_isolate.syscalls._native import lib

__all__ = ["as_bytes", "homes_of_user", "with_given"]


def homes_of_user() -> list[str]:
    """HOME, and what the user database says."""
    found = [os.path.expanduser("~")]
    with contextlib.suppress(KeyError):  # the user has no entry
        found.append(pwd.getpwuid(os.getuid()).pw_dir)
    return _several(found)


def with_given(*environs: Iterable[tuple[str, str | None]]) -> tuple[str, ...]:
    """With what a sandbox sets HOME to, and under each of their names."""
    given = [value for environ in environs for name, value in environ if name == "HOME" and value]
    found = [*homes_of_user(), *given]
    return tuple(_several((*found, *map(os.path.realpath, found))))


def as_bytes(homes: Iterable[str]) -> bytes:
    """As native/watch.h has them; what finds no room is left out."""
    found = b""
    for home in homes:
        path = os.fsencode(home) + b"\0"
        if len(found) + len(path) < int(lib.WATCH_HOMES_BYTES):
            found += path
    return found


def _several(found: Iterable[str]) -> list[str]:
    return [*dict.fromkeys(home for each in found if (home := each.rstrip("/")))]

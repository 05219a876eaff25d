"""What only the user's own machine has, and what is said of an attempt to read it, whoever has seen it."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterable, Sequence
from itertools import count

from pytest_isolate.runner import cures
from pytest_isolate.syscalls._native import ffi, lib
from pytest_isolate.violation import Kind, Violation

__all__ = ["describe", "homes", "homes_of_user", "is_within", "prefixes"]


def _listed() -> tuple[str, ...]:
    found = []
    for index in count():
        if lib.isolate_secrets[index] == ffi.NULL:
            break
        found.append(ffi.string(lib.isolate_secrets[index]).decode())
    return tuple(found)


#: Files and directories of a home; the supervisor has the same (native/secrets.c).
SECRETS = _listed()


def homes_of_user() -> list[str]:
    """HOME, and what the user database says."""
    found = [os.path.expanduser("~")]
    with contextlib.suppress(KeyError):  # the user has no entry
        found.append(pwd.getpwuid(os.getuid()).pw_dir)
    return _several(found)


def homes(others: Iterable[str]) -> list[str]:
    """With ``others``, and under each of its names."""
    found = [*homes_of_user(), *others]
    return _several((*found, *map(os.path.realpath, found)))


def _several(found: Iterable[str]) -> list[str]:
    return [*dict.fromkeys(home for home in found if len(home) > 1)]


def prefixes(home: str) -> tuple[str, ...]:
    return tuple(os.path.join(home, secret) for secret in SECRETS)


def is_within(path: str, prefixes: tuple[str, ...]) -> bool:
    """Without links on the way."""
    return path.startswith(prefixes) and any(
        path == each or path.startswith(each + os.sep) for each in prefixes
    )


def describe(path: str, homes: Sequence[str], where: str, times: int, *, is_there: bool) -> Violation:
    """``path``: of a secret below one of ``homes``. To look for what is not there needs nothing but leave."""
    shown = next(f"~{path[len(home) :]}" for home in homes if path.startswith(home + os.sep))
    binds = cures.binds(path) if is_there else ""
    cure = ", ".join(filter(None, (binds, cures.allow(Kind.SECRETS))))
    return Violation(kind=Kind.SECRETS, what=f"tried to read {shown}", where=where, cure=cure, count=times)

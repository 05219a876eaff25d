"""What only the user's own machine has, and what is said of an attempt to read it, whoever has seen it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count

from pytest_isolate.runner import cures
from pytest_isolate.sandbox.homes import homes_of_user
from pytest_isolate.syscalls._native import ffi, lib
from pytest_isolate.violation import Kind, Violation

__all__ = ["describe", "is_within", "of_user", "prefixes_of"]


def _listed() -> tuple[str, ...]:
    found = []
    for index in count():
        if lib.isolate_secrets[index] == ffi.NULL:
            break
        found.append(ffi.string(lib.isolate_secrets[index]).decode())
    return tuple(found)


#: Files and directories of a home; the supervisor has the same (native/secret_names.c).
SECRETS = _listed()


def prefixes_of(home: str) -> tuple[str, ...]:
    return tuple(os.path.join(home, secret) for secret in SECRETS)


def of_user() -> tuple[str, ...]:
    """Where the user's own secrets are, under each of their names."""
    paths = [path for home in homes_of_user() for path in prefixes_of(home)]
    return tuple(dict.fromkeys((*paths, *map(os.path.realpath, paths))))


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

"""Layers that a session may mount are held: :mod:`~pytest_isolate.sandbox.images.prune` leaves them alone.

A hold is a shared flock(2) on a file beside the layer, which the kernel drops when the process dies, however.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Holds", "unless_held"]

#: Who may not write to a store may still use it, if nobody clears it up meanwhile.
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class Holds:
    """Those of one session."""

    def __init__(self) -> None:
        self._fds: dict[Path, int] = {}
        _ALL.add(self)

    def add(self, layer: Path) -> None:
        """Waits while the layer is being removed."""
        if layer in self._fds:
            return
        path = _file(layer)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in READ_ONLY:
                return
            raise
        fcntl.flock(fd, fcntl.LOCK_SH)
        self._fds[layer] = fd

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()


_ALL: weakref.WeakSet[Holds] = weakref.WeakSet()


def _let_go() -> None:
    for holds in _ALL:
        holds.close()


# A fork shares the lock: it would keep it when pytest is dead, and could drop it while pytest lives. So no
# process of a test has it, whoever forks; what the session executes has it not either (O_CLOEXEC).
os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def unless_held(layer: Path) -> Iterator[bool]:
    """Whether no session holds the layer, and none will while this lasts."""
    fd = os.open(_file(layer), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(fd)


def _file(layer: Path) -> Path:
    """It stays when the layer goes, as one of :func:`~pytest_isolate.sandbox.images.blobs.locked` does."""
    return layer.with_suffix(".used")

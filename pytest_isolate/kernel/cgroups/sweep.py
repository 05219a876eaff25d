"""The lock that says a session is alive, and the removal of sessions that are not.

Whoever holds flock(2) on a session directory owns it.  The kernel drops the lock when the last
process that shares the descriptor ends, so no pid has to be stored, trusted or compared.
flock works on directories of cgroup v1 and v2 (seen on Linux 6.1 to 6.18), also when the directory is
seen through another mount or cgroup namespace: a hierarchy has one superblock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterable

from pytest_isolate.kernel.cgroups.base import LEAF, PREFIX
from pytest_isolate.kernel.cgroups.files import remove_tree, subdirectories

__all__ = ["make_session", "remove_sessions", "sweep"]


def make_session(base: str, run_id: str) -> tuple[str, int]:
    """Make and lock a session directory; its path, and the descriptor that holds the lock.

    A sweep may lock and remove the directory in the moment before our own lock, so having the lock
    is not enough: the path must still lead to the directory that was locked.
    """
    path = f"{base}/{PREFIX}{run_id}"
    for _ in range(100):
        with contextlib.suppress(FileExistsError):  # made by the round before
            os.mkdir(path)
        fd = _lock(path)
        if fd is not None:
            return path, fd
        time.sleep(0.01)
    raise FileExistsError(errno.EEXIST, "another session uses this run id", path)


def sweep(bases: Iterable[str]) -> list[str]:
    """Remove what killed sessions left in these directories, their processes included.

    Touches nothing but directories with our names and a free lock.  Returns those it removed.
    """
    removed = []
    for path in (below for base in dict.fromkeys(bases) for below in subdirectories(base)):
        name = os.path.basename(path)
        try:
            if name == LEAF:
                os.rmdir(path)  # EBUSY while someone is in it; leaf.py copes if it was about to be used
            elif not name.startswith(PREFIX) or not _remove_if_dead(path):
                continue
        except OSError:
            continue  # another user's, or a process that does not die; not worth failing a session for
        removed.append(path)
    return removed


def remove_sessions(paths: Iterable[str]) -> None:
    """Kill and remove session directories whatever their lock says: for their owner and its watchdog."""
    for path in paths:
        remove_tree(path, kill=True)


def _remove_if_dead(path: str) -> bool:
    fd = _lock(path)
    if fd is None:
        return False
    try:
        remove_sessions([path])
    finally:
        os.close(fd)
    return True


def _lock(path: str) -> int | None:
    """Lock a directory and return the descriptor; None if it is locked already, or gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(path), os.fstat(fd)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None

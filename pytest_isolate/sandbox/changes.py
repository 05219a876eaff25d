"""What a test has made, changed or deleted: its writable layers, compared with what is below them.

As in ``written.py`` the layers are the untrusted test's: they are walked through descriptors, and never
through a link.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from pytest_isolate.kernel.tree import Tree
from pytest_isolate.sandbox.written import DIRECTORY, MAX_DEPTH, Layer

__all__ = ["Change", "Deed", "Rules", "changes_in"]

MOST_CHANGES = 10_000
WHITEOUT = ("trusted.overlay.whiteout", "user.overlay.whiteout")
OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


class Deed(Enum):
    CREATED = "created"
    CHANGED = "changed"
    DELETED = "deleted"
    REPLACED = "replaced"  #: a directory, deleted and made anew
    RIGHTS = "changed mode or owner of"  #: of a directory; its times change with each of its entries


@dataclass(frozen=True, slots=True)
class Change:
    """Of a file, or of a directory that is new as a whole. Paths are as the test sees them."""

    deed: Deed
    path: str
    is_directory: bool = False
    files: int = 1
    size_bytes: int = 0
    stamp: tuple[int, ...] = ()  #: differs if it was changed again


@dataclass(frozen=True, slots=True)
class Rules:
    is_declared: Callable[[str], bool]  #: whether a path is none that a test must leave alone
    scaffold: frozenset[str]  #: directories that are there before any test, for mounts
    is_named: Callable[[str], bool] = lambda path: False  #: by the user; of what is there before any test


class _Entry(NamedTuple):
    path: str
    name: str
    directory_fd: int
    status: os.stat_result


def changes_in(scratch_fd: int, layers: tuple[Layer, ...], rules: Rules) -> Iterator[Change]:
    """Without what is declared; nothing if it is too much, or somebody whom the test left is still deleting.

    Raises OSError.
    """
    count = 0
    for layer in layers:
        if layer.text is not None:
            status = layer.changed(scratch_fd)
            if status is not None and not rules.is_named(layer.target):
                yield Change(Deed.CHANGED, layer.target, size_bytes=status.st_size, stamp=_stamp(status))
            continue
        below = Tree(layer.below) if layer.below else None
        fd = os.open(layer.directory, DIRECTORY | os.O_NOFOLLOW, dir_fd=scratch_fd)
        try:
            for change in _walk(fd, layer.target, below, "", rules, MAX_DEPTH):
                count += 1
                if count > MOST_CHANGES:
                    return
                yield change
        finally:
            os.close(fd)


def _walk(fd: int, path: str, below: Tree | None, inner: str, rules: Rules, depth: int) -> Iterator[Change]:
    """In a directory that is there below too; ``inner`` is its path there."""
    for entry in _entries(fd, path):
        place = posixpath.join(inner, entry.name)
        old = _lower(below, place)
        if not stat.S_ISDIR(entry.status.st_mode):
            if not rules.is_declared(entry.path) and (change := _of_file(entry, old)) is not None:
                yield change
            continue
        if (directory := _open(entry)) is None:
            continue
        try:
            is_old = old is not None and stat.S_ISDIR(old.st_mode)
            is_same = entry.path in rules.scaffold or (is_old and not _has(directory, OPAQUE))
            rights = _rights(entry.status)
            # What is declared has scaffold in it, which was made with other rights.
            if old is not None and is_same and rights != _rights(old) and not rules.is_declared(entry.path):
                yield Change(Deed.RIGHTS, entry.path, files=0, stamp=rights)
            if is_same and depth:
                yield from _walk(directory, entry.path, below, place, rules, depth - 1)
                continue
            files = [*_all(directory, entry.path, rules, depth)]
            if files or (is_old and not rules.is_declared(entry.path)):
                yield Change(
                    Deed.REPLACED if old is not None else Deed.CREATED,
                    entry.path,
                    is_directory=True,
                    files=sum(change.files for change in files),
                    size_bytes=sum(change.size_bytes for change in files),
                    stamp=tuple(number for change in files for number in change.stamp),
                )
        finally:
            os.close(directory)


def _all(fd: int, path: str, rules: Rules, depth: int) -> Iterator[Change]:
    """In a directory that is new: all that is no directory, and empty directories."""
    is_empty = True
    for entry in _entries(fd, path):
        is_empty = False
        if not stat.S_ISDIR(entry.status.st_mode):
            if not rules.is_declared(entry.path) and (change := _of_file(entry, None)) is not None:
                yield change
        elif depth and (directory := _open(entry)) is not None:
            try:
                yield from _all(directory, entry.path, rules, depth - 1)
            finally:
                os.close(directory)
    if is_empty and not rules.is_declared(path) and not rules.is_declared(posixpath.join(path, "file")):
        status = os.fstat(fd)
        yield Change(Deed.CREATED, path, is_directory=True, files=0, stamp=(status.st_ino,))


def _of_file(entry: _Entry, old: os.stat_result | None) -> Change | None:
    status = entry.status
    is_regular = stat.S_ISREG(status.st_mode)
    if (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0) or (
        is_regular and status.st_size == 0 and _is_marked(entry)
    ):
        # What was only ever there in the sandbox leaves nothing, but for that in a directory from below.
        is_directory = old is not None and stat.S_ISDIR(old.st_mode)
        return None if old is None else Change(Deed.DELETED, entry.path, is_directory, 1, 0)
    if old is not None and is_regular and _look(old) == _look(status):
        return None  # opened for writing, which has the kernel copy it, and not written
    return Change(
        Deed.CREATED if old is None else Deed.CHANGED,
        entry.path,
        size_bytes=status.st_size if is_regular else 0,
        stamp=_stamp(status),
    )


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _look(status: os.stat_result) -> tuple[int, ...]:
    return (*_rights(status), status.st_size, status.st_mtime_ns)


def _rights(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_mode, status.st_uid, status.st_gid)


def _lower(below: Tree | None, place: str) -> os.stat_result | None:
    found = below.at(place) if below is not None else None
    try:
        return os.lstat(found) if found is not None else None
    except OSError:  # gone since
        return None


def _entries(fd: int, path: str) -> Iterator[_Entry]:
    for name in sorted(os.listdir(fd)):
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        yield _Entry(posixpath.join(path, name), name, fd, status)


def _open(entry: _Entry, flags: int = DIRECTORY) -> int | None:
    """None: it is gone since. Somebody whom the test has left may be deleting."""
    try:
        return os.open(entry.name, flags | os.O_NOFOLLOW, dir_fd=entry.directory_fd)
    except FileNotFoundError:
        return None


def _is_marked(entry: _Entry) -> bool:
    if (fd := _open(entry, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) is None:
        return True  # gone, as the mark says of one in a layer below
    try:
        return _has(fd, WHITEOUT)
    finally:
        os.close(fd)


def _has(fd: int, names: tuple[str, ...]) -> bool:
    for name in names:
        try:
            os.getxattr(fd, name)
        except OSError:
            continue
        return True
    return False

"""Attempts to write to a project that is read-only, as it is in strict mode.

The kernel refuses them; here they get their place, also those whose error the test has swallowed. What Python
does not do itself, a subprocess, is refused and not seen. Nor is told what would have failed anywhere, as a
directory that is there already: an audit event comes before the call, so what the kernel will say is worked
out here (the man pages of the calls; fs/namei.c has the order of its errors).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

from pytest_isolate.kernel.look import open_descriptors
from pytest_isolate.runner import cures
from pytest_isolate.runner.observe import audit, paths
from pytest_isolate.violation import MOST_VIOLATIONS, Kind, Violation

__all__ = ["Project"]

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


_Refusal = Callable[[str], bool]


class _If(Enum):
    """What is at a path that a call can change, whose directory is there."""

    ABSENT = "nothing"
    PRESENT = "anything"
    FILE = "a regular file"
    EMPTY = "anything but a directory with something in it"
    WHATEVER = "anything or nothing"  #: the kernel refuses before it looks


class _Place(NamedTuple):
    """Of the arguments of an event."""

    path: int
    directory_fd: int | None
    condition: _If


EVENTS: dict[str, tuple[_Place, ...]] = {
    "os.mkdir": (_Place(0, 2, _If.ABSENT),),
    "os.remove": (_Place(0, 1, _If.WHATEVER),),
    "os.rmdir": (_Place(0, 1, _If.EMPTY),),
    "os.rename": (_Place(0, 2, _If.WHATEVER), _Place(1, 3, _If.WHATEVER)),
    "os.link": (_Place(1, 3, _If.ABSENT),),
    "os.symlink": (_Place(1, 2, _If.ABSENT),),
    "os.truncate": (_Place(0, None, _If.FILE),),
    "os.chmod": (_Place(0, 2, _If.PRESENT),),
    "os.chown": (_Place(0, 3, _If.PRESENT),),
    "os.utime": (_Place(0, 3, _If.PRESENT),),
}
#: Python's own, which it does without.
BYTECODE = "/__pycache__/"


class Project:
    def __init__(self, rootdir: str) -> None:
        self._rootdir = rootdir
        self._hears = False
        self._attempts: dict[tuple[str, str], int] = {}
        audit.listen("open", self._opened)
        for event, places in EVENTS.items():
            audit.listen(event, self._listener(places, is_directory=event == "os.mkdir"))

    def enter(self) -> None:
        """In the process of a test to which the project is read-only."""
        self._hears = True

    def begin(self) -> None:
        if self._attempts:
            self._attempts = {}

    def aside(self) -> Callable[[], None]:
        """What happens until the result is called is not the test's."""
        before = dict(self._attempts)

        def end() -> None:
            self._attempts = before

        return end

    def found(self) -> Iterator[Violation]:
        for (path, where), count in self._attempts.items():
            name = paths.shown(path.rstrip("/"), self._rootdir)
            yield Violation(
                kind=Kind.FILES,
                what=f"tried to write to the read-only project: {name}",
                where=where,
                cure=_cure(paths.as_glob(path, self._rootdir)),
                count=count,
            )

    def note(self, path: str, directory_fd: int, is_refused: _Refusal, *, is_directory: bool) -> None:
        if path.startswith("/proc/") or len(self._attempts) >= MOST_VIOLATIONS:
            return
        if not path.startswith("/"):
            around = os.getcwd() if directory_fd < 0 else os.readlink(f"/proc/self/fd/{directory_fd}")
            path = f"{around}/{path}"
        path = os.path.normpath(path)
        if not path.startswith(self._rootdir + "/") or BYTECODE in path:
            return
        if not is_refused(path) or not (where := audit.place()):
            return
        key = (path + "/" * is_directory, where)
        self._attempts[key] = self._attempts.get(key, 0) + 1

    # ---- the events -------------------------------------------------------------------------------

    def _opened(self, args: tuple[Any, ...]) -> None:
        path, _, flags = args
        if self._hears and isinstance(flags, int) and flags & _WRITES:
            self._note(path, -1, lambda found: _cannot_open(found, flags) and not _may_be_elsewhere(path))

    def _listener(self, places: tuple[_Place, ...], *, is_directory: bool) -> audit.Handler:
        def hear(args: tuple[Any, ...]) -> None:
            for at, fd_at, condition in places if self._hears else ():
                directory_fd = args[fd_at] if fd_at is not None and fd_at < len(args) else -1
                self._note(args[at], directory_fd, partial(_cannot, condition), is_directory=is_directory)

        return hear

    def _note(
        self, path: object, directory_fd: object, is_refused: _Refusal, *, is_directory: bool = False
    ) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        try:
            fd = directory_fd if isinstance(directory_fd, int) else -1
            self.note(os.fsdecode(path), fd, is_refused, is_directory=is_directory)
        except (OSError, ValueError):
            return  # what cannot be looked at cannot be written to


def _cure(glob: str) -> str:
    """No artifact at the top: to declare one would open the whole project."""
    name = glob.rstrip("/")
    if "/" not in name:
        return "tmp_path"
    # A directory is to be made by the test: what is in it is not enough, or it would be there before.
    artifacts = cures.artifacts([name, f"{name}/**"] if name != glob else [name])
    return f"tmp_path, or {artifacts}" if artifacts else "tmp_path"


def _cannot(condition: _If, path: str) -> bool:
    """Whether a call that changes what is at a path fails for the file system's being read-only alone.

    Raises OSError where the path leads nowhere.
    """
    match condition:
        case _If.ABSENT if os.path.lexists(path):
            return False
        case _If.EMPTY if os.path.isdir(path) and os.listdir(path):  # as those around what os.renames moves
            return False
        case _If.PRESENT:
            return _is_readonly(path)
        case _If.FILE:
            return stat.S_ISREG(os.stat(path).st_mode) and _is_readonly(path)
        case _:
            return _is_readonly(_outer(path))


def _cannot_open(path: str, flags: int) -> bool:
    """The same of open(2), which follows links, also to create a file where one leads."""
    exclusive = os.O_CREAT | os.O_EXCL
    if flags & exclusive == exclusive and os.path.lexists(path):
        return False
    path = os.path.realpath(path)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return bool(flags & os.O_CREAT) and _is_readonly(_outer(path))
    if stat.S_ISDIR(mode):
        return flags & os.O_TMPFILE == os.O_TMPFILE and _is_readonly(path)
    writes = flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC
    return bool(writes) and stat.S_ISREG(mode) and _is_readonly(path)


def _outer(path: str) -> str:
    """Its directory, and nothing that is there as a file."""
    return os.path.join(os.path.dirname(path), "")


def _is_readonly(path: str) -> bool:
    """Of its file system, which those of a declared place and of ``tmp_path`` are not."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _may_be_elsewhere(path: object) -> bool:
    """Whether a name may be relative to a directory that is open: the event of an open does not tell."""
    if os.path.isabs(os.fsdecode(path)):  # type: ignore[arg-type]
        return False
    return any(is_open and _is_directory(fd) for fd, is_open in enumerate(open_descriptors()))


def _is_directory(fd: int) -> bool:
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    except OSError:
        return False

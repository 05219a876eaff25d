"""Attempts to write to a project that is read-only, as it is in strict mode.

The kernel refuses them; here they get their place, also those whose error the test has swallowed. What Python
does not do itself, a subprocess, is refused and not seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from pytest_isolate.runner import cures
from pytest_isolate.runner.observe import audit, paths
from pytest_isolate.violation import MOST_VIOLATIONS, Kind, Violation

__all__ = ["Project"]

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
#: Events by the places of their arguments: (path, directory descriptor or None).
EVENTS: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.utime": ((0, 3),),
}
#: Python's own, which it does without.
BYTECODE = "/__pycache__/"

_listening = False


class Project:
    def __init__(self, rootdir: str) -> None:
        global _current, _listening  # noqa: PLW0603  a hook cannot be removed
        self._rootdir = rootdir
        self._attempts: dict[tuple[str, str], int] = {}
        _current = self
        if not _listening:
            audit.listen("open", _opened)
            audit.listen("os.mkdir", _made_directory)
            for event, places in EVENTS.items():
                audit.listen(event, _listener(places))
        _listening = True

    def begin(self) -> None:
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

    def note(self, path: str, directory_fd: int, *, is_directory: bool = False) -> None:
        if path.startswith("/proc/") or len(self._attempts) >= MOST_VIOLATIONS:
            return
        if not path.startswith("/"):
            around = os.getcwd() if directory_fd < 0 else os.readlink(f"/proc/self/fd/{directory_fd}")
            path = f"{around}/{path}"
        path = os.path.normpath(path)
        if not path.startswith(self._rootdir + "/") or BYTECODE in path:
            return
        if not _is_refused(path) or not (where := audit.place()):
            return
        key = (path + "/" * is_directory, where)
        self._attempts[key] = self._attempts.get(key, 0) + 1


_current: Project | None = None


def _opened(args: tuple[Any, ...]) -> None:
    path, _, flags = args
    if isinstance(flags, int) and flags & _WRITES:
        _note(path, -1)


def _made_directory(args: tuple[Any, ...]) -> None:
    _note(args[0], args[2] if len(args) > 2 else -1, is_directory=True)


def _listener(places: tuple[tuple[int, int | None], ...]) -> audit.Handler:
    def hear(args: tuple[Any, ...]) -> None:
        for at, fd_at in places:
            _note(args[at], args[fd_at] if fd_at is not None and fd_at < len(args) else -1)

    return hear


def _note(path: object, directory_fd: object, *, is_directory: bool = False) -> None:
    if _current is None or not isinstance(path, str | bytes | os.PathLike):
        return
    try:
        directory_fd = directory_fd if isinstance(directory_fd, int) else -1
        _current.note(os.fsdecode(path), directory_fd, is_directory=is_directory)
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


def _is_refused(path: str) -> bool:
    """Whether the file system of a path is read-only, which a declared place and ``tmp_path`` are not."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)

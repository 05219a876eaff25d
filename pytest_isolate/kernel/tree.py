"""A root as a process in it would see it, read from outside: a directory, or an overlay of several."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from pytest_isolate.errors import ImageError
from pytest_isolate.units import quoted

__all__ = ["Tree", "is_opaque"]

MOST_LINKS = 40  # that the kernel follows (path_resolution(7))


@dataclass(frozen=True, slots=True)
class Tree:
    """``layers``: directories, the topmost first."""

    layers: tuple[str, ...]

    def resolve(self, path: str) -> str:
        """``path`` with every link followed as a process whose root this is would follow it. Raises
        ImageError where the kernel gives up (ELOOP): what is returned has no links on the way."""
        done: list[str] = []
        pending = path.strip("/").split("/")[::-1]
        followed = 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = done[:-1]
                continue
            here = self._find("/".join([*done, part]))
            if here is not None and os.path.islink(here):
                followed += 1
                if followed > MOST_LINKS:
                    raise ImageError(f"{quoted(path)} of the root goes through more than {MOST_LINKS} links")
                link = os.readlink(here)
                done = [] if link.startswith("/") else done
                pending += link.strip("/").split("/")[::-1]
            else:
                done.append(part)
        return "/" + "/".join(done)

    def names(self) -> list[str]:
        """Paths of what is in the top directory, but for what is hidden."""
        names = {name for layer in self.layers for name in os.listdir(layer)}
        return [f"/{name}" for name in sorted(names) if self._find(name) is not None]

    def layers_of(self, path: str) -> tuple[str, ...]:
        """What is seen of ``path``, which is there and has no links on the way: of a directory all that are
        merged, the topmost first."""
        found: list[str] = []
        for layer in self.layers:
            here, hides_below = _look(layer, path.strip("/"))
            if here is not None and (not found or _is_directory(here)):
                found.append(here)
            if (here is None and hides_below) or (here is not None and not _merges(here)):
                break
        return tuple(found)

    def find(self, path: str) -> str | None:
        """Where on the host ``path`` is, if it is there."""
        try:
            return self._find(self.resolve(path).strip("/"))
        except ImageError:
            return None

    def at(self, path: str) -> str | None:
        """Where on the host ``path`` is, which has no links on the way, if it is there."""
        return self._find(path.strip("/"))

    def _find(self, path: str) -> str | None:
        """``path`` has no links on the way."""
        for layer in self.layers:
            here, hides_below = _look(layer, path)
            if here is not None or hides_below:
                return here
        return None


def _look(layer: str, path: str) -> tuple[str | None, bool]:
    """Where ``path`` is in one layer, and whether that layer decides about it (overlayfs.rst,
    "whiteouts and opaque directories")."""
    here, hides = layer, False
    *outer, name = path.split("/")
    for part in outer:
        here = os.path.join(here, part)
        try:
            status = os.lstat(here)
        except OSError:
            return None, hides
        if not stat.S_ISDIR(status.st_mode):
            return None, True
        hides = hides or is_opaque(here)
    here = os.path.join(here, name)
    try:
        status = os.lstat(here)
    except OSError:
        return None, hides
    return (None, True) if _is_whiteout(status) else (here, True)


def _is_directory(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _merges(path: str) -> bool:
    """Whether what is below at the same place is seen too."""
    return _is_directory(path) and not is_opaque(path)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory: str) -> bool:
    for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
        try:
            if os.getxattr(directory, name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False

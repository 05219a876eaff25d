"""Descriptors that a test leaves open; and those of pytest's own that it used.

A false violation is worse than a missed one: told are pipes, and what Python opened for code of the project.
What is merely garbage is none: a collection is made before anything is told.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any
from weakref import ReferenceType, ref

from pytest_isolate.kernel.leftover import await_end
from pytest_isolate.kernel.look import (
    Use,
    descriptor_uses,
    descriptor_uses_again,
    open_descriptors,
    own_descriptors,
)
from pytest_isolate.runner import cures
from pytest_isolate.runner.observe import audit, paths
from pytest_isolate.violation import Kind, Violation

__all__ = ["Descriptors"]

DIRECTORY = "/proc/self/fd"
#: Of these the places are known; a test that opens more is not slowed down for it.
MOST_OPENED = 500
#: Memory of multiprocessing.Value and its like (heap.py), which outlives them to be used again.
ARENA = "pym-"
CODE = (".py", ".pyc", ".so")
CURE = cures.allow(Kind.DESCRIPTORS)
#: A program of its own inherits none.
INHERITED_CURE = f'start="spawn", {CURE}'


class Descriptors:
    def __init__(self, own: Iterable[int]) -> None:
        """``own``: of pytest and this plugin, which the test may use unknowingly."""
        own_descriptors({0, 1, 2, *own})
        # Beside other tests a child has them diverted; pytest still writes to the files that they were.
        self._own_files = {use.file for use in _own(descriptor_uses())}
        self._before = b""
        self._inherited = b""
        self._opened: dict[str, str] = {}  # path -> place
        self._sockets: list[tuple[ReferenceType[socket.socket], str]] = []
        audit.listen("open", self._open)
        audit.listen("sqlite3.connect", self._connect)
        audit.listen("socket.__new__", self._socket)

    def begin(self) -> None:
        if self._opened or self._sockets:
            self._opened.clear()
            self._sockets.clear()
        self._before = open_descriptors()

    def watch_inherited(self) -> None:
        """Whatever is open when the process of a test begins was opened by pytest, of which it is a copy."""
        self._inherited = descriptor_uses()

    def aside(self) -> Callable[[], Callable[[], None]]:
        before = open_descriptors()

        def end() -> Callable[[], None]:
            new = _new(before, open_descriptors())
            self._before = bytes(old or fd in new for fd, old in enumerate(self._before))
            return lambda: self._forget(new)

        return end

    def _forget(self, new: Container[int]) -> None:
        self._before = bytes(old and fd not in new for fd, old in enumerate(self._before))

    def found(self) -> Iterator[Violation]:
        if open_descriptors() != self._before and self._left():
            for what, where in sorted(await_end(self._kept, _unreaped)):
                yield Violation(
                    kind=Kind.DESCRIPTORS, what=f"left a descriptor open: {what}", where=where, cure=CURE
                )
        if self._inherited and (now := descriptor_uses_again()) != self._inherited:
            then, self._inherited = self._inherited, now
            yield from self._used(then, now)

    def _used(self, then: bytes, now: bytes) -> Iterator[Violation]:
        own = self._own_files | {use.file for use in _own(then)}
        for before, after in zip(Use.all_of(then), Use.all_of(now), strict=True):
            if before.file not in own and after.use != before.use:
                link = _link(before.fd) or ""
                name = f"file {paths.shown(link, audit.rootdir())}"
                what = "a tcp socket" if link.startswith("socket:") else name
                yield Violation(
                    kind=Kind.DESCRIPTORS,
                    what=f"used a descriptor of pytest's own: {what}",
                    cure=INHERITED_CURE,
                )

    def _kept(self) -> list[tuple[str, str]]:
        """What is left, without what nobody has any more, or not since the threads of a pool have ended."""
        if _unreaped():
            sys.modules["subprocess"]._cleanup()
        gc.collect()
        return self._left()

    # ---- what was left --------------------------------------------------------------------------

    def _left(self) -> list[tuple[str, str]]:
        """(what, where) of each."""
        new = _new(self._before, open_descriptors())
        links = {fd: link for fd in new if (link := _link(fd)) is not None}
        # As the kernel names them, too; not as they are opened: the test may have replaced what this calls.
        opened = dict(self._opened)
        if links:
            opened |= {os.path.realpath(path): place for path, place in self._opened.items()}
        has_loop = "anon_inode:[eventpoll]" in links.values()
        harmless = _of_multiprocessing()
        found = []
        for fd, link in links.items():
            if link.startswith("pipe:") and fd not in harmless:
                found.append(("a pipe", ""))
            elif link.startswith("socket:"):
                place = next((p for s, p in self._sockets if (o := s()) is not None and o.fileno() == fd), "")
                what = _kind_of_socket(fd)
                # An event loop has a pair to wake itself up, and lives as long as its policy wants.
                if place and not (has_loop and what == "a unix socket"):
                    found.append((what, place))
            elif link.startswith("/"):
                path = link.removesuffix(" (deleted)")
                if path != link and os.path.basename(path).startswith(ARENA):
                    continue
                place = opened.get(path) or opened.get(os.path.dirname(path), "")
                if place:
                    found.append(
                        (
                            "a temporary file"
                            if path != link
                            else f"file {paths.shown(path, audit.rootdir())}",
                            place,
                        )
                    )
        return found

    def _open(self, args: tuple[Any, ...]) -> None:
        if len(self._opened) < MOST_OPENED:
            path = paths.absolute(args[0])
            if path is not None and not path.endswith(CODE) and (place := audit.place_of_own()):
                self._opened[path] = place

    def _connect(self, args: tuple[Any, ...]) -> None:
        self._open((args[0],))

    def _socket(self, args: tuple[Any, ...]) -> None:
        if len(self._sockets) < MOST_OPENED and (place := audit.place_of_own()):
            self._sockets.append((ref(args[0]), place))


def _numbers(are_open: bytes) -> set[int]:
    return {fd for fd, is_open in enumerate(are_open) if is_open}


def _new(before: bytes, now: bytes) -> set[int]:
    return _numbers(now) - _numbers(before)


def _own(uses: bytes) -> Iterator[Use]:
    return (use for use in Use.all_of(uses) if use.is_own)


def _unreaped(_: object = None) -> list[int]:
    """Of each Popen that nobody has any more. It keeps itself, with its pipes, as long as its process lives:
    the next one would look after it."""
    subprocess = sys.modules.get("subprocess")
    return [popen.pid for popen in getattr(subprocess, "_active", None) or ()]


def _link(fd: int) -> str | None:
    try:
        return os.readlink(f"{DIRECTORY}/{fd}")
    except OSError:  # closed meanwhile
        return None


def _of_multiprocessing() -> set[object]:
    """The ends of pipes by which its helpers know that this process lives."""
    tracker: Any = sys.modules.get("multiprocessing.resource_tracker")
    server: Any = sys.modules.get("multiprocessing.forkserver")
    return {
        getattr(getattr(tracker, "_resource_tracker", None), "_fd", None),
        getattr(getattr(server, "_forkserver", None), "_forkserver_alive_fd", None),
    }


def _kind_of_socket(fd: int) -> str:
    try:
        with socket.socket(fileno=os.dup(fd)) as found:
            family, kind = found.family, found.type
    except OSError:
        return "a socket"
    if family in (socket.AF_INET, socket.AF_INET6):
        return {socket.SOCK_STREAM: "a tcp socket", socket.SOCK_DGRAM: "a udp socket"}.get(
            kind, "a raw socket"
        )
    return "a unix socket" if family == socket.AF_UNIX else "a socket"

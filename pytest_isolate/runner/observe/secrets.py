"""Attempts to read what only the user's own machine has, whether it is there or not.

Seen is what Python opens in the test's own process; in strict mode the kernel tells of all others, too
(``network_watch.py``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from pytest_isolate.runner import secret_words
from pytest_isolate.runner.observe import audit, paths
from pytest_isolate.sandbox.homes import homes_of_user
from pytest_isolate.violation import Violation

__all__ = ["Secrets"]

MOST = 20


class Secrets:
    def __init__(self) -> None:
        self._homes: list[str] = []
        self._prefixes: tuple[str, ...] = ()
        self._written: set[str] = set()  # by the test itself: to read that is no secret
        self._seen: dict[str, tuple[str, int]] = {}  # place and count
        for home in homes_of_user():
            self._look_in(home)
        audit.listen("open", self._open)
        audit.listen("os.listdir", self._list)
        audit.listen("os.scandir", self._list)

    def enter(self) -> None:
        """The sandbox may give another home. One that the test or a fixture makes later has no secrets."""
        home = os.environ.get("HOME", "").rstrip("/")
        if home and home not in self._homes:
            self._look_in(home)

    def begin(self) -> None:
        if self._seen or self._written:
            self._written.clear()
            self._seen.clear()

    def _look_in(self, home: str) -> None:
        self._homes.append(home)
        self._prefixes += secret_words.prefixes_of(home)

    def aside(self) -> Callable[[], None]:
        return lambda: None

    def found(self) -> Iterator[Violation]:
        for path, (place, count) in sorted(self._seen.items()):
            yield secret_words.describe(path, self._homes, place, count, is_there=os.path.exists(path))

    def _open(self, args: tuple[Any, ...]) -> None:
        path, _, flags = args
        if (found := self._secret(path)) is None:
            return
        if isinstance(flags, int) and _only_writes(found, flags):
            self._written.add(found)
        else:
            self._note(found)

    def _list(self, args: tuple[Any, ...]) -> None:
        if (found := self._secret(args[0])) is not None:
            self._note(found)

    def _secret(self, path: object) -> str | None:
        """An absolute path, if it is one of a secret."""
        absolute = paths.absolute(path)
        if absolute is None or absolute in self._written:
            return None
        return absolute if secret_words.is_within(absolute, self._prefixes) else None

    def _note(self, path: str) -> None:
        place, count = self._seen.get(path, ("", 0))
        if count or len(self._seen) < MOST:
            self._seen[path] = (place or audit.place(), count + 1)


def _only_writes(path: str, flags: int) -> bool:
    """Nothing is there to be read, or is left of it."""
    if flags & os.O_ACCMODE == os.O_WRONLY or flags & os.O_TRUNC:
        return True
    return bool(flags & os.O_CREAT) and not os.path.exists(path)

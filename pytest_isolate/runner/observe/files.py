"""Where in the project's code what was written, so that pytest can tell it with what it finds.

What was written is found from outside of the sandbox; this only helps.
"""

from __future__ import annotations

import os
from typing import Any

from pytest_isolate.runner.observe import audit, paths

__all__ = ["Files"]

MOST = 200
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: The argument that is the path which comes to be, or is no more.
EVENTS = {
    "os.mkdir": 0,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.truncate": 0,
    "os.chmod": 0,
    "os.chown": 0,
    "os.utime": 0,
    "os.rename": 1,
    "os.link": 1,
    "os.symlink": 1,
    "shutil.rmtree": 0,
    "sqlite3.connect": 0,
}


class Files:
    def __init__(self, excepted: str) -> None:
        """``excepted``: a directory where everybody may write."""
        self._excepted = os.path.join(excepted, "")
        self._places: dict[str, str] = {}
        audit.listen("open", self._open)
        for event, number in EVENTS.items():
            audit.listen(event, self._noting(number))
        audit.listen("os.rename", self._noting(0))

    def begin(self) -> None:
        if self._places:
            self._places.clear()

    def places(self) -> dict[str, str]:
        """By path, as it is without links on the way."""
        return {
            os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)): place
            for path, place in self._places.items()
        }

    def _open(self, args: tuple[Any, ...]) -> None:
        flags = args[2]
        if isinstance(flags, int) and flags & WRITING:
            self._note(args[0])

    def _noting(self, number: int) -> audit.Handler:
        return lambda args: self._note(args[number])

    def _note(self, path: object) -> None:
        found = paths.absolute(path)
        if (
            found is not None
            and not found.startswith(self._excepted)
            and (len(self._places) < MOST or found in self._places)
            and (place := audit.place())
        ):
            self._places[found] = place

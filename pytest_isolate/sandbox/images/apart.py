"""Unpacking and removing by a process that is root of a user namespace over subordinate ids.

The process is ours, but what it unpacks is a stranger's: what it says comes back as JSON, bounded in size.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pytest_isolate.errors import ImageError, IsolateError
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.subids import SubordinateIds, run_as_root
from pytest_isolate.sandbox.images.owners import Given, Owners
from pytest_isolate.sandbox.images.unpack import Unpacked, unpack

__all__ = ["Ownership"]


@dataclass(frozen=True, slots=True)
class Ownership:
    """Which ids the files of a layer have on the host, and as whom the caller will be seen with it.

    The caller's are the files of 0, and those of ``own``: a sandbox in which the caller is that id cannot map
    it to another one too.
    """

    ids: SubordinateIds
    own: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """What tells a layer apart from the same one with other ids."""
        uids, gids = self.ids.uids, self.ids.gids
        numbers = (uids.first, uids.count, gids.first, gids.count, *(self.own if any(self.own) else ()))
        return "".join(f"-{number}" for number in numbers)

    def seen_as(self, own: tuple[int, int], unpacked: Unpacked) -> Ownership:
        """For a caller who will be seen as ``own``. It is the same if the layer has no files of these ids."""
        mine = (own[0] if own[0] in unpacked.uids else 0, own[1] if own[1] in unpacked.gids else 0)
        return dataclasses.replace(self, own=mine)

    def unpack(self, archive: Path, directory: Path) -> Unpacked:
        """As :func:`unpack` does. The directory itself stays the caller's: an overlay shows its own."""
        owners = Owners(Given(self.ids.uids.count, self.own[0]), Given(self.ids.gids.count, self.own[1]))

        def work() -> bytes:
            unpacked = unpack(archive, directory, owners=owners)
            unpacked.uids, unpacked.gids = sorted(owners.uids.ids), sorted(owners.gids.ids)
            os.chown(directory, 0, 0)
            return json.dumps(dataclasses.asdict(unpacked)).encode()

        return Unpacked(**json.loads(self._apart(work)))

    def remove(self, path: Path, remove: Callable[[Path], None]) -> None:
        """Have a tree removed in which directories belong to the ids. Raises ImageError."""

        def work() -> bytes:
            remove(path)
            return b""

        self._apart(work)

    def _apart(self, work: Callable[[], bytes]) -> bytes:
        try:
            return run_as_root(self.ids, Host(), work)
        except IsolateError as error:
            raise ImageError(str(error)) from None

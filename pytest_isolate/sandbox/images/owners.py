"""Whom the files of a layer are given to."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

__all__ = ["EVERYBODY", "Given", "Owners"]


@dataclass(slots=True)
class Given:
    """Ids of one kind, for a process that is 0, the caller, and may give files to 1 to ``most``.

    Without ``most`` it is the host's root, who gives files to everybody.
    """

    most: int | None = None
    own: int = 0  #: as which the caller is going to be seen: its files are the caller's, as those of 0 are
    ids: set[int] = field(default_factory=set)  #: that files were given to, of so many

    def give(self, wanted: int) -> int | None:
        """The id to set; None if there is no such one to give."""
        if self.most is None:
            return wanted
        if wanted in (0, self.own):
            return 0
        if not 0 < wanted <= self.most:
            return None
        self.ids.add(wanted)
        return wanted


@dataclass(frozen=True, slots=True)
class Owners:
    """Of the files of one layer."""

    uids: Given
    gids: Given

    def give(self, path: str, uid: int, gid: int, *, follow: bool) -> bool:
        """False if it is not what was wanted: what cannot be given away stays the caller's."""
        given = self.uids.give(uid), self.gids.give(gid)
        os.chown(path, given[0] or 0, given[1] or 0, follow_symlinks=follow)
        return None not in given


#: For the host's root.
EVERYBODY = Owners(Given(), Given())

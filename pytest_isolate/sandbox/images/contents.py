"""What is in a root, read from the tar archives of its layers: merged, compared, and written so that the same
gives the same bytes.

The archives may be a stranger's: nothing here touches a path that they name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import posixpath
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images.compression import decompressed, suffix_of
from pytest_isolate.sandbox.images.members import TAR_ERRORS, read_members
from pytest_isolate.sandbox.images.unpack import OPAQUE, WHITEOUT, XATTR, Unpacked
from pytest_isolate.units import quoted

__all__ = [
    "Contents",
    "Entry",
    "add_file",
    "clamped",
    "difference",
    "directory",
    "opened",
    "symlink",
    "write_tar",
]

MOST_LINKS = 40  # MAXSYMLINKS of the kernel
LATEST_S = 2**33


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An inode. Paths with the same object are hard links of each other."""

    kind: bytes  #: of tarfile, such as ``REGTYPE``
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0
    target: str = ""  #: of a symbolic link
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, str], ...] = ()
    size_bytes: int = 0
    open: Callable[[], IO[bytes]] = field(default=io.BytesIO, compare=False)

    def digest(self) -> bytes:
        with self.open() as content:
            found = hashlib.sha256()
            while chunk := content.read(2**20):
                found.update(chunk)
        return found.digest()


#: By path, without a slash in front; "" is the root.
Contents = dict[str, Entry]


# ---- making: as young as can be, until clamped ---------------------------------------------------


def directory(mode: int = 0o755) -> Entry:
    return Entry(kind=tarfile.DIRTYPE, mode=mode, mtime_s=LATEST_S)


def symlink(target: str) -> Entry:
    return Entry(kind=tarfile.SYMTYPE, mode=0o777, mtime_s=LATEST_S, target=target)


def add_file(contents: Contents, path: str, data: bytes, mode: int = 0o644) -> None:
    """With the directories that it needs."""
    parent = posixpath.dirname(path)
    while parent not in contents:
        contents[parent] = directory()
        parent = posixpath.dirname(parent)
    contents[path] = Entry(
        kind=tarfile.REGTYPE,
        mode=mode,
        mtime_s=LATEST_S,
        size_bytes=len(data),
        open=lambda: io.BytesIO(data),
    )


def clamped(contents: Contents, latest_s: int) -> Contents:
    """Nothing younger than that."""
    changed: dict[int, Entry] = {}  # keeps hard links
    for entry in contents.values():
        changed[id(entry)] = dataclasses.replace(entry, mtime_s=min(entry.mtime_s, latest_s))
    return {path: changed[id(entry)] for path, entry in contents.items()}


# ---- reading ------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(archives: Sequence[Path], work: Path) -> Iterator[Contents]:
    """What layers show together, the lowest first. ``work``: for what has to be decompressed."""
    with contextlib.ExitStack() as stack:
        contents: Contents = {}
        for number, path in enumerate(archives):
            plain = _plain(path, work / f"plain-{number}")
            try:
                archive = stack.enter_context(tarfile.open(plain, "r:"))
                contents = _over(contents, *_layer(plain, archive))
            except TAR_ERRORS as error:
                raise ImageError(f"{path} is no tar archive that can be read: {error}") from None
        yield contents


def _plain(path: Path, target: Path) -> Path:
    if not suffix_of(path):
        return path
    with decompressed(path) as source, open(target, "wb") as file:
        shutil.copyfileobj(cast("IO[bytes]", source), file, 2**20)
    return target


def _layer(plain: Path, archive: tarfile.TarFile) -> tuple[Contents, set[str], set[str]]:
    """(entries, paths that are hidden with all below, directories of which nothing from below shows)."""
    entries: Contents = {}
    hidden: set[str] = set()
    opaque: set[str] = set()
    with decompressed(plain) as source:
        for member, _ in read_members(source, Unpacked()):
            outer, _, name = _normal(member.name).rpartition("/")
            outer = _place(entries, outer)
            path = f"{outer}/{name}".lstrip("/")
            if name == OPAQUE:
                opaque.add(outer)
            elif name.startswith(WHITEOUT + WHITEOUT):
                continue  # aufs's own
            elif name.startswith(WHITEOUT):
                hidden.add(f"{outer}/{name.removeprefix(WHITEOUT)}".lstrip("/"))
            elif member.islnk():
                entries[path] = _linked(entries, member)
            else:
                entries[path] = _entry(member, archive)
    return entries, hidden, opaque


def _normal(name: str) -> str:
    """Resolved so that it cannot climb out."""
    return posixpath.normpath("/" + name).lstrip("/")


def _place(entries: Contents, path: str, links_left: int = MOST_LINKS) -> str:
    """A directory's path with the layer's own links followed, as when it is unpacked."""
    outer, _, name = path.rpartition("/")
    if outer:
        path = f"{_place(entries, outer, links_left)}/{name}".lstrip("/")
    entry = entries.get(path)
    if entry is None or entry.kind != tarfile.SYMTYPE:
        return path
    if not links_left:
        raise ImageError(f"{quoted(path)} goes through too many links")
    target = posixpath.join("/", posixpath.dirname(path), entry.target)
    return _place(entries, _normal(target), links_left - 1)


def _linked(entries: Contents, member: tarfile.TarInfo) -> Entry:
    outer, _, name = _normal(member.linkname).rpartition("/")
    found = entries.get(f"{_place(entries, outer)}/{name}".lstrip("/"))
    if found is None or found.kind == tarfile.DIRTYPE:
        raise ImageError(f"{quoted(member.name)} is a hard link to no file of the same layer")
    return found


def _entry(member: tarfile.TarInfo, archive: tarfile.TarFile) -> Entry:
    regular = member.isreg()
    xattrs = ((k.removeprefix(XATTR), v) for k, v in member.pax_headers.items() if k.startswith(XATTR))
    return Entry(
        kind=tarfile.REGTYPE if regular else member.type,
        mode=member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        mtime_s=int(min(max(member.mtime, 0), LATEST_S)),
        target=member.linkname if member.issym() else "",
        device=(member.devmajor, member.devminor) if member.ischr() or member.isblk() else (0, 0),
        xattrs=tuple(sorted(xattrs)),
        size_bytes=member.size if regular else 0,
        open=lambda: cast("IO[bytes]", archive.extractfile(member) if regular else io.BytesIO()),
    )


def _over(lower: Contents, upper: Contents, hidden: set[str], opaque: set[str]) -> Contents:
    """One layer on top of others (OCI image specification, "Applying Changesets")."""
    for path in [*upper]:
        for outer in _outer(path):
            if outer not in upper and (outer not in lower or lower[outer].kind != tarfile.DIRTYPE):
                upper[outer] = Entry(kind=tarfile.DIRTYPE, mode=0o755)
    covered = hidden | {path for path, entry in upper.items() if entry.kind != tarfile.DIRTYPE}
    shown = {
        path: entry
        for path, entry in lower.items()
        if path not in hidden and not any(outer in covered or outer in opaque for outer in _outer(path))
    }
    return {**shown, **upper}


def _outer(path: str) -> Iterator[str]:
    """The directories that a path is in, the innermost first, the root last."""
    while path:
        path = posixpath.dirname(path)
        yield path


# ---- comparing ----------------------------------------------------------------------------------


def difference(lower: Contents, whole: Contents) -> Contents:
    """The layer that makes of ``lower`` the ``whole``."""
    changed = {path for path, entry in whole.items() if path not in lower or not _same(lower[path], entry)}
    # Links are to files of the same layer: one that changes takes the others with it.
    inodes = {id(whole[path]) for path in changed}
    changed |= {path for path, entry in whole.items() if id(entry) in inodes}
    layer: Contents = {}
    for path in lower:
        outer = posixpath.dirname(path)
        if path not in whole and outer in whole and whole[outer].kind == tarfile.DIRTYPE:
            whiteout = posixpath.join(outer, WHITEOUT + posixpath.basename(path))
            layer[whiteout] = Entry(kind=tarfile.REGTYPE, mode=0o644, mtime_s=whole[outer].mtime_s)
    for path in [*changed, *layer]:
        for each in (path, *_outer(path)):  # a directory's attributes are those of the topmost layer with it
            if each in whole:
                layer[each] = whole[each]
    return layer


def _same(one: Entry, other: Entry) -> bool:
    return one == other and (one.kind != tarfile.REGTYPE or one.digest() == other.digest())


# ---- writing ------------------------------------------------------------------------------------


def write_tar(contents: Contents, out: IO[bytes]) -> None:
    """Sorted; the same gives the same bytes."""
    first: dict[int, str] = {}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(contents):
            entry = contents[path]
            member = tarfile.TarInfo(path or ".")
            member.mode, member.uid, member.gid, member.mtime = (
                entry.mode,
                entry.uid,
                entry.gid,
                entry.mtime_s,
            )
            if (linked := first.setdefault(id(entry), path)) != path:
                member.type, member.linkname = tarfile.LNKTYPE, linked
                archive.addfile(member)
                continue
            member.type, member.linkname, member.size = entry.kind, entry.target, entry.size_bytes
            member.devmajor, member.devminor = entry.device
            member.pax_headers = {XATTR + key: value for key, value in entry.xattrs}
            with entry.open() as content:
                archive.addfile(member, content)

"""One layer's tar archive becomes a directory that overlayfs takes as a layer.

The archive is a stranger's. Every path is resolved as if the directory were the root (``kernel/in_root.py``),
and what no image of a system needs is refused. What removes from the layers below (a whiteout, an opaque
directory) is written in overlayfs's own way (Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pytest_isolate.errors import ImageError
from pytest_isolate.kernel.in_root import open_in_root
from pytest_isolate.sandbox.images.compression import decompressed
from pytest_isolate.sandbox.images.members import CHUNK_BYTES, read_members, reading_tar
from pytest_isolate.sandbox.images.owners import EVERYBODY, Owners
from pytest_isolate.units import format_size, quoted

__all__ = ["Bounds", "Unpacked", "unpack"]

#: Of the OCI image specification ("Whiteouts"); other names that begin so are aufs's own.
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
MOST_OUTER = 256  # directories around another: rmtree(3.11) has a descriptor and a call for each
TOO_DEEP = f"the layer has more than {MOST_OUTER} directories in one another"
PATH_ONLY = os.O_PATH | os.O_DIRECTORY
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Both forms, as root's mounts read the one and everybody else's the other (userxattr).
OPAQUE_MARKS = ("trusted.overlay.opaque", "user.overlay.opaque")
XATTR = "SCHILY.xattr."  # pax headers of GNU tar, libarchive, Docker
KEPT_XATTRS = ("user.", "security.capability", "system.posix_acl_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is refused as absurd."""

    unpacked_bytes: int = 32 * 2**30
    entries: int = 1_000_000


@dataclass(slots=True, kw_only=True)
class Unpacked:
    """What a layer has become."""

    diff_id: str = ""  #: sha256 of the archive without compression
    size_bytes: int = 0
    entries: int = 0
    skipped: dict[str, int] = field(default_factory=dict)  #: how many of what was left away
    uids: list[int] = field(default_factory=list)  #: of its owners, where they are subordinate ids
    gids: list[int] = field(default_factory=list)

    def skip(self, what: str) -> None:
        self.skipped[what] = self.skipped.get(what, 0) + 1


def unpack(
    archive: Path, directory: Path, bounds: Bounds = Bounds(), owners: Owners | None = None
) -> Unpacked:
    """Into an empty directory. Raises ImageError; what has been written by then stays.

    Owners are kept where the caller may give files away: root to everybody, others as ``owners`` has it.
    Device nodes are left away: a sandbox has a /dev of its own and opens no others.
    """
    unpacking = _Unpacking(directory, bounds, owners)
    try:
        with reading_tar(), decompressed(archive) as plain:
            for member, content in read_members(plain, unpacking.unpacked):
                unpacking.add(member, content)
            unpacking.finish()
    except OSError as error:
        where = f" {quoted(error.filename)}" if error.filename else ""
        full = "; free space on the disk of the store" if error.errno == errno.ENOSPC else ""
        raise ImageError(f"cannot unpack{where}: {error.strerror or error}{full}") from None
    finally:
        unpacking.close()
    return unpacking.unpacked


class _Unpacking:
    def __init__(self, directory: Path, bounds: Bounds, owners: Owners | None) -> None:
        self.unpacked = Unpacked()
        self._owners = owners or (EVERYBODY if os.geteuid() == 0 else None)
        self._bounds = bounds
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._root_path = os.readlink(f"/proc/self/fd/{self._root}")
        self._parent: tuple[str, int] | None = None  # the last one, as entries of one directory come together
        self._directories: dict[str, tarfile.TarInfo] = {}  # their modes and times come last

    def close(self) -> None:
        self._leave_parent()
        os.close(self._root)

    # ---- entries --------------------------------------------------------------------------------

    def add(self, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        unpacked = self.unpacked
        unpacked.entries += 1
        unpacked.size_bytes += member.size if member.isreg() else 0
        if unpacked.entries > self._bounds.entries:
            raise ImageError(f"the layer has more than {self._bounds.entries} entries")
        if unpacked.size_bytes > self._bounds.unpacked_bytes:
            raise ImageError(f"the layer unpacks to more than {format_size(self._bounds.unpacked_bytes)}")
        path = _inside(member.name)
        directory, _, name = path.rpartition("/")
        if not path:
            self._directories[path] = member
        elif name.startswith(WHITEOUT):
            self._whiteout(directory, name)
        else:
            self._make(member, content, path, self._open_parent(directory), name)

    def _make(
        self, member: tarfile.TarInfo, content: IO[bytes] | None, path: str, parent: int, name: str
    ) -> None:
        if member.isdir():
            self._make_directory(member, path, parent, name)
            return
        if member.ischr() or member.isblk():
            self._skip_device(path)
            return
        if member.islnk():
            self._link(member, path, parent, name)
            return
        self._clear(parent, name)
        if member.issym():
            os.symlink(_link_target(member, path), name, dir_fd=parent)
        elif member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        elif content is not None:
            self._write(content, parent, name)
        else:
            raise ImageError(f"{quoted(path)} is of the type {member.type!r}, which no image has")
        self._set_attributes(member, f"/proc/self/fd/{parent}/{name}")

    def _make_directory(self, member: tarfile.TarInfo, path: str, parent: int, name: str) -> None:
        hides = _is_whiteout(parent, name)
        if not _is_directory(parent, name):
            self._clear(parent, name)
            os.mkdir(name, 0o700, dir_fd=parent)
        if hides:
            self._mark_opaque(path)
        self._directories[path] = member

    def _link(self, member: tarfile.TarInfo, path: str, parent: int, name: str) -> None:
        source = _inside(member.linkname)
        if source == path:
            raise ImageError(f"{quoted(path)} is a hard link to itself")
        directory, _, source_name = source.rpartition("/")
        try:
            source_fd = self._open(directory)
        except OSError:
            raise ImageError(
                f"{quoted(path)} is a hard link to {quoted(source)}, which is not there"
            ) from None
        try:
            if _is_directory(source_fd, source_name):
                raise ImageError(f"{quoted(path)} is a hard link to the directory {quoted(source)}")
            self._clear(parent, name)
            os.link(source_name, name, src_dir_fd=source_fd, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise ImageError(
                f"{quoted(path)} is a hard link to {quoted(source)}, which is not in the same layer"
            ) from None
        finally:
            os.close(source_fd)

    def _write(self, content: IO[bytes], parent: int, name: str) -> None:
        fd = os.open(name, NEW_FILE, 0o600, dir_fd=parent)
        with open(fd, "wb") as file:
            while chunk := content.read(CHUNK_BYTES):
                if chunk.count(0) < len(chunk):
                    file.write(chunk)
                else:  # a hole: a header can promise gigabytes of zeros (GNU's sparse files)
                    file.seek(len(chunk), os.SEEK_CUR)
            file.truncate()

    def _skip_device(self, path: str) -> None:
        if not path.startswith("dev/"):
            raise ImageError(f"{quoted(path)} is a device node outside /dev")
        self.unpacked.skip("device node")

    # ---- what hides ------------------------------------------------------------------------------

    def _whiteout(self, directory: str, name: str) -> None:
        hidden = name.removeprefix(WHITEOUT)
        if name == OPAQUE:
            self._open_parent(directory)
            self._mark_opaque(directory)
        elif name.startswith(WHITEOUT + WHITEOUT):
            self.unpacked.skip("aufs metadata file")
        elif hidden in ("", ".", ".."):
            raise ImageError(f"{quoted(name)} hides nothing that there can be")
        else:
            parent = self._open_parent(directory)
            if _is_directory(parent, hidden):  # the layer's own stays: only what is below is hidden
                self._mark_opaque(f"{directory}/{hidden}")
            elif not _exists(parent, hidden):
                # Needs no privilege since Linux 5.8 (mknod(2)).
                os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)

    def _mark_opaque(self, path: str) -> None:
        fd = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            marked = [self._set_mark(fd, mark) for mark in OPAQUE_MARKS]
        finally:
            os.close(fd)
        if not any(marked):
            raise ImageError(
                f"cannot mark {quoted(path)} as opaque: the store's file system has no extended attributes; "
                "have the store elsewhere with --isolate-store"
            )

    def _set_mark(self, fd: int, name: str) -> bool:
        try:
            os.setxattr(fd, name, b"y")
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOTSUP):  # trusted.* is root's; user.* not of every tmpfs
                return False
            raise
        return True

    # ---- places ---------------------------------------------------------------------------------

    def _open(self, path: str, flags: int = PATH_ONLY) -> int:
        return open_in_root(self._root, path or ".", flags)

    def _open_parent(self, path: str) -> int:
        """A directory, made if it is not there. It stays open until another is asked for."""
        if self._parent is not None and self._parent[0] == path:
            return self._parent[1]
        self._leave_parent()
        try:
            fd = self._open(path)
        except FileNotFoundError:
            outer, _, name = path.rpartition("/")
            outer_fd = self._open_parent(outer)
            with contextlib.suppress(FileExistsError):  # a link that leads nowhere
                os.mkdir(name, 0o755, dir_fd=outer_fd)
            self._leave_parent()
            fd = self._open_made(path)
        self._parent = (path, fd)
        self._check_depth(fd)
        return fd

    def _check_depth(self, fd: int) -> None:
        """Wherever links have led: what is too deep can be neither removed nor walked."""
        outer = os.readlink(f"/proc/self/fd/{fd}").removeprefix(self._root_path).count("/")
        if outer > MOST_OUTER:
            raise ImageError(TOO_DEEP)

    def _open_made(self, path: str) -> int:
        try:
            return self._open(path)
        except FileNotFoundError:
            raise ImageError(f"{quoted(path)} goes through a link that leads nowhere") from None

    def _leave_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
        self._parent = None

    def _clear(self, parent: int, name: str) -> None:
        """What an archive has twice is as it has it last."""
        with contextlib.suppress(FileNotFoundError):
            if _is_directory(parent, name):
                try:
                    os.rmdir(name, dir_fd=parent)
                except OSError:
                    raise ImageError(
                        f"{quoted(name)} is a directory with content, and then something else"
                    ) from None
            else:
                os.unlink(name, dir_fd=parent)

    # ---- attributes -----------------------------------------------------------------------------

    def _set_attributes(self, member: tarfile.TarInfo, path: str, *, follow: bool = False) -> None:
        """``follow`` for a path below /proc/self/fd that is the thing itself."""
        owners = self._owners
        if owners is not None and not owners.give(path, member.uid, member.gid, follow=follow):
            self.unpacked.skip("out-of-range owner")
        for key, value in member.pax_headers.items():
            if key.startswith(XATTR):
                self._set_xattr(path, key.removeprefix(XATTR), value, follow)
        if not member.issym():  # after the owner, whose change takes away the set-user-ID bit
            os.chmod(path, member.mode & 0o7777)
        time_ns = int(min(max(member.mtime, 0), 2**33) * 10**9)
        os.utime(path, ns=(time_ns, time_ns), follow_symlinks=follow)

    def _set_xattr(self, path: str, name: str, value: str, follow: bool) -> None:
        if ".overlay." in name:
            raise ImageError(
                f"the layer sets the extended attribute {quoted(name)}, which is overlayfs's own"
            )
        if not name.startswith(KEPT_XATTRS):
            self.unpacked.skip("extended attribute")
            return
        try:
            os.setxattr(path, name, value.encode("utf-8", "surrogateescape"), follow_symlinks=follow)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EINVAL):
                raise
            self.unpacked.skip("extended attribute")

    def finish(self) -> None:
        """Directories come last, the innermost first: until here they had to be writable."""
        self._leave_parent()
        for path in sorted(self._directories, key=lambda path: path.count("/"), reverse=True):
            try:
                fd = self._open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # the archive has put something else there since
                raise
            try:
                self._set_attributes(self._directories[path], f"/proc/self/fd/{fd}", follow=True)
            finally:
                os.close(fd)


def _inside(name: str) -> str:
    """A member's path without its leading ``/`` and ``./``. Raises ImageError if it may lead out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise ImageError(f"the layer has the path {quoted(name)}, which may lead out of the root")
    if len(parts) > MOST_OUTER:
        raise ImageError(TOO_DEEP)
    return "/".join(parts)


def _link_target(member: tarfile.TarInfo, path: str) -> str:
    """As it is, unless it climbs above the root, which no link of a system needs."""
    target, depth = member.linkname, 0 if member.linkname.startswith("/") else path.count("/")
    for part in target.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            raise ImageError(f"{quoted(path)} is a link to {quoted(target)}, out of the root")
    if not target or "\0" in target:
        raise ImageError(f"{quoted(path)} is a link to nothing")
    return target


def _exists(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_whiteout(parent: int, name: str) -> bool:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_directory(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False

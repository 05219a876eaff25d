"""Overlay file systems (Documentation/filesystems/overlayfs.rst) as calls of a program."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_isolate.kernel.mounts import NOSUID_NODEV, make_directory, symlink
from pytest_isolate.syscalls.program import Program

__all__ = ["LOWER_TYPES", "MOST_OPTIONS", "escape", "lower_bytes", "overlay"]

#: File systems that overlayfs is known to take as a lower layer; others are bound read-only.
LOWER_TYPES = frozenset(
    {"9p", "bcachefs", "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "nfs", "nfs4", "overlay"}
    | {"ramfs", "rootfs", "squashfs", "tmpfs", "virtiofs", "xfs", "zfs"}
)


#: mount(2) takes a page at most. lowerdir+ of fsconfig(2), which has no such limit, is of Linux 6.5.
MOST_OPTIONS = 4000 - len("lowerdir=")


def escape(path: str) -> str:
    """A path inside the options: backslash, comma (mount options) and colon (list of layers) are special."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def lower_bytes(paths: Sequence[str]) -> int:
    """What lower layers take of :data:`MOST_OPTIONS`."""
    return len(":".join(map(escape, paths)).encode())


def overlay(
    program: Program,
    *,
    lower: Sequence[str],
    links: str,
    upper: str,
    work: str,
    target: str,
    user_xattrs: bool,
) -> None:
    """``lower``: the topmost first; ``links``: a directory to be made, for short names of many of them.

    ``user_xattrs``: without privileges the marks go to user.* attributes (since Linux 5.11).
    """
    names = [*map(escape, lower)]
    rest = f",upperdir={escape(upper)},workdir={escape(work)}" + ",userxattr" * user_xattrs
    are_many = lower_bytes(lower) + len(rest.encode()) > MOST_OPTIONS
    if are_many:
        make_directory(program, links)
        program.call("chdir", links)
        for number, path in enumerate(lower):
            symlink(program, path, str(number))
        names = [*map(str, range(len(lower)))]
    program.call("mount", "overlay", target, "overlay", NOSUID_NODEV, f"lowerdir={':'.join(names)}{rest}")
    if are_many:
        program.call("chdir", "/")

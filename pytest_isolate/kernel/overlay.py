"""Overlay file systems (Documentation/filesystems/overlayfs.rst) as calls of a program."""

from __future__ import annotations

from pytest_isolate.kernel.mounts import NOSUID_NODEV
from pytest_isolate.syscalls.program import Program

__all__ = ["LOWER_TYPES", "escape", "overlay"]

#: File systems that overlayfs is known to take as a lower layer; others are bound read-only.
LOWER_TYPES = frozenset(
    {"9p", "bcachefs", "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "nfs", "nfs4", "overlay"}
    | {"ramfs", "rootfs", "squashfs", "tmpfs", "virtiofs", "xfs", "zfs"}
)


def escape(path: str) -> str:
    """A path inside the options: backslash, comma (mount options) and colon (list of layers) are special."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def overlay(program: Program, *, lower: str, upper: str, work: str, target: str, user_xattrs: bool) -> None:
    """``user_xattrs``: without privileges the marks go to user.* attributes (since Linux 5.11)."""
    data = f"lowerdir={escape(lower)},upperdir={escape(upper)},workdir={escape(work)}"
    program.call("mount", "overlay", target, "overlay", NOSUID_NODEV, data + ",userxattr" * user_xattrs)

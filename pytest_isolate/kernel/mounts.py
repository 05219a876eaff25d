"""Mounts (mount(2), mount_setattr(2), pivot_root(2)) as calls of a program, and the parser of mountinfo."""

from __future__ import annotations

import errno
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_isolate.syscalls._native import lib
from pytest_isolate.syscalls.program import Program

__all__ = [
    "MountPoint",
    "bind",
    "make_directory",
    "make_file",
    "make_private",
    "mount",
    "parse_mountinfo",
    "pivot_root",
    "read_only",
    "switch_root",
    "symlink",
]

AT_FDCWD = lib.AT_FDCWD
PATH_ONLY = lib.O_PATH | lib.O_DIRECTORY | lib.O_CLOEXEC
BIND, RDONLY, NOSUID, NOEXEC = lib.MS_BIND, lib.MS_RDONLY, lib.MS_NOSUID, lib.MS_NOEXEC
DETACH = lib.MNT_DETACH
NOSUID_NODEV = lib.MS_NOSUID | lib.MS_NODEV
MOUNT_ATTR = struct.Struct("=4Q")  # struct mount_attr: attr_set, attr_clr, propagation, userns_fd


@dataclass(frozen=True, slots=True, kw_only=True)
class MountPoint:
    """One line of /proc/self/mountinfo (proc(5))."""

    path: str
    fstype: str
    root: str  #: the directory of the file system that is mounted
    readonly: bool


def unescape(text: str) -> str:
    """mountinfo writes space, tab, newline and backslash as three octal digits."""
    if "\\" not in text:
        return text
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text


def parse_mountinfo(lines: Iterable[str]) -> tuple[MountPoint, ...]:
    """Mounts in order; of several on one path only the last, which hides the others."""
    found: dict[str, MountPoint] = {}
    for line in lines:
        before, _, after = line.partition(" - ")
        _, _, _, root, path, options, *_ = before.split(" ")
        fstype, _, superblock = after.rstrip("\n").split(" ", 2)
        readonly = "ro" in options.split(",") or "ro" in superblock.split(",")
        path = unescape(path)
        found.pop(path, None)
        found[path] = MountPoint(path=path, fstype=fstype, root=unescape(root), readonly=readonly)
    return tuple(found.values())


def mount(program: Program, fstype: str, target: str, *, flags: int = NOSUID_NODEV, data: str = "") -> None:
    program.call("mount", fstype, target, fstype, flags, data)


def make_private(program: Program) -> None:
    """Nothing that is mounted from here on is seen outside (mount_namespaces(7))."""
    program.call("mount", "none", "/", "", lib.MS_REC | lib.MS_PRIVATE, "")


def bind(program: Program, source: str, target: str, *, recursive: bool = False) -> None:
    flags = lib.MS_BIND | (lib.MS_REC if recursive else 0)
    program.call("mount", source, target, "", flags, "")


def read_only(program: Program, target: str, *, recursive: bool = False, tolerated: int = 0) -> None:
    """mount_setattr(2), since Linux 5.12, changes what it names and leaves other flags as they are."""
    attributes = MOUNT_ATTR.pack(lib.MOUNT_ATTR_RDONLY, 0, 0, 0)
    flags = lib.AT_RECURSIVE if recursive else 0
    program.call(
        "mount_setattr", lib.AT_FDCWD, target, flags, attributes, len(attributes), tolerated=tolerated
    )


def make_directory(program: Program, path: str, *, mode: int = 0o755) -> None:
    """The supervisor's umask is 0: the mode is as asked."""
    program.call("mkdirat", lib.AT_FDCWD, path, mode, tolerated=errno.EEXIST)


def make_file(program: Program, path: str) -> None:
    """An empty file, to be a target of a bind mount; what is there, a socket say, will do as well."""
    program.call("mknodat", lib.AT_FDCWD, path, stat.S_IFREG | 0o644, 0, tolerated=errno.EEXIST)


def symlink(program: Program, target: str, path: str) -> None:
    program.call("symlinkat", target, lib.AT_FDCWD, path, tolerated=errno.EEXIST)


def switch_root(program: Program, new_root: str, put_old: str) -> None:
    """The root becomes ``new_root`` and the old one stays reachable below it."""
    program.call("pivot_root", new_root, put_old)
    program.call("chdir", "/")


def pivot_root(program: Program, new_root: str) -> None:
    """The root becomes ``new_root`` and the old one is gone: the form without a put_old directory
    (pivot_root(2), NOTES)."""
    program.call("chdir", new_root)
    program.call("pivot_root", ".", ".")
    program.call("umount2", ".", lib.MNT_DETACH)
    program.call("chdir", "/")

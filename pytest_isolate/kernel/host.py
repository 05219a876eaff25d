"""Facts about the machine and the caller, read once per session, that planning a sandbox depends on."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import cached_property

from pytest_isolate.kernel.mounts import MountPoint, parse_mountinfo
from pytest_isolate.kernel.process import Capability, effective_capabilities

__all__ = ["Entry", "Host"]

INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # PROC_USER_INIT_INO of linux/proc_ns.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in a directory: a directory, a file (anything else), or a link (``points_to``)."""

    path: str
    is_directory: bool
    points_to: str | None = None


class Host:
    """What the kernel says about here and now. Methods only read."""

    def __init__(self, proc: str = "/proc") -> None:
        self.proc = proc
        self.uid = os.geteuid()
        self.gid = os.getegid()

    @cached_property
    def privileged(self) -> bool:
        """Whether this is real root, who may make mounts before a user namespace is entered.

        Root of a container's user namespace is not: the mounts it sees are locked together, and no overlay
        covers ``/`` then (mount_namespaces(7)).
        """
        if not effective_capabilities(self.proc) >> Capability.SYS_ADMIN & 1:
            return False
        return os.stat(f"{self.proc}/self/ns/user").st_ino == INITIAL_USER_NAMESPACE

    @cached_property
    def mounts(self) -> tuple[MountPoint, ...]:
        with open(f"{self.proc}/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            return parse_mountinfo(lines)

    @cached_property
    def uid_extents(self) -> tuple[tuple[int, int], ...]:
        """(first, count) of the user ids that exist here: fewer in a container's user namespace."""
        return self._extents("uid_map")

    @cached_property
    def gid_extents(self) -> tuple[tuple[int, int], ...]:
        return self._extents("gid_map")

    def _extents(self, name: str) -> tuple[tuple[int, int], ...]:
        with open(f"{self.proc}/self/{name}", encoding="ascii") as lines:
            fields = [line.split() for line in lines]
        return tuple((int(first), int(count)) for first, _, count in fields)

    @cached_property
    def kernel(self) -> tuple[int, int]:
        major, minor, *_ = os.uname().release.split(".")
        return int(major), int(minor.split("-")[0])

    @cached_property
    def devices(self) -> tuple[str, ...]:
        wanted = ("null", "zero", "full", "random", "urandom", "tty")
        return tuple(name for name in wanted if os.path.exists(f"/dev/{name}"))

    @cached_property
    def has_ipv6(self) -> bool:
        return os.path.exists(f"{self.proc}/net/if_inet6")

    @cached_property
    def memory_bytes(self) -> int:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def entries(self, directory: str) -> tuple[Entry, ...]:
        """Sorted by name; empty where it cannot be read."""
        try:
            with os.scandir(directory) as found:
                return tuple(sorted((self._entry(e) for e in found), key=lambda entry: entry.path))
        except OSError:
            return ()

    @staticmethod
    def _entry(entry: os.DirEntry[str]) -> Entry:
        points_to = os.readlink(entry.path) if entry.is_symlink() else None
        return Entry(path=entry.path, is_directory=entry.is_dir(follow_symlinks=False), points_to=points_to)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def is_socket(self, path: str) -> bool:
        try:
            return stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError:
            return False

    def is_readable(self, path: str) -> bool:
        return os.access(path, os.R_OK)

    def is_writable(self, path: str) -> bool:
        return os.access(path, os.W_OK)

    def ownership(self, path: str) -> tuple[int, tuple[int, int]]:
        """(mode, (uid, gid)) of a directory; of a usual one where it cannot be told."""
        try:
            status = os.stat(path)
        except OSError:
            return 0o755, (0, 0)
        return stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)

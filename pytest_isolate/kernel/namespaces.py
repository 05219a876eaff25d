"""Namespaces (namespaces(7)): names, flags, and the maps of user ids."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from pytest_isolate.syscalls._native import lib
from pytest_isolate.syscalls.program import Program

__all__ = [
    "Namespace",
    "clone_flags",
    "enter_user",
    "export",
    "identity_map",
    "limit_cgroup_namespaces",
    "map_self",
    "open_limits",
    "single_map",
    "unshare_user",
]


class Namespace(Enum):
    """The seven that a sandbox has of its own; the value is the name in /proc/PID/ns."""

    USER = "user"
    PID = "pid"
    MOUNT = "mnt"
    NET = "net"
    IPC = "ipc"
    UTS = "uts"
    CGROUP = "cgroup"

    @property
    def clone_flag(self) -> int:
        return int(getattr(lib, f"CLONE_NEW{'NS' if self is Namespace.MOUNT else self.name}"))


def clone_flags(namespaces: frozenset[Namespace]) -> int:
    flags = 0
    for namespace in namespaces:
        flags |= namespace.clone_flag
    return flags


def export(program: Program, namespaces: Iterable[Namespace]) -> None:
    """Have the init hand out descriptors of its own namespaces, to join them with setns(2)."""
    for namespace in namespaces:
        path = f"/proc/self/ns/{namespace.value}"
        program.call("openat", lib.AT_FDCWD, path, lib.O_RDONLY | lib.O_CLOEXEC, 0, export=True)


def enter_user(program: Program, uid_map: str, gid_map: str) -> None:
    """Into a new one, whose ids the supervisor maps."""
    unshare_user(program)
    program.map_ids(uid_map, gid_map)


def unshare_user(program: Program) -> None:
    program.call("unshare", lib.CLONE_NEWUSER)


def open_limits(program: Program, proc: str) -> None:
    """For :func:`limit_cgroup_namespaces`, while ``proc`` is still writable."""
    flags = lib.O_PATH | lib.O_DIRECTORY | lib.O_CLOEXEC
    program.limits = program.call("openat", lib.AT_FDCWD, f"{proc}/sys/user", flags, 0, keep=True)


def limit_cgroup_namespaces(program: Program, count: int) -> None:
    """In the user namespace that the init is in, and in those below it (namespaces(7)): who may make one may
    mount cgroups, whose files belong to the caller, and so lift its own limits."""
    flags = lib.O_WRONLY | lib.O_CLOEXEC
    assert program.limits is not None
    file = program.call("openat", program.limits, "max_cgroup_namespaces", flags, 0, keep=True)
    program.call("write", file, str(count), 1)
    program.call("close", file)


def identity_map(extents: tuple[tuple[int, int], ...]) -> str:
    """Every id of these (first, count) stays what it is. Writing it takes CAP_SETUID and CAP_SETGID in the
    parent namespace (user_namespaces(7))."""
    return "\n".join(f"{first} {first} {count}" for first, count in extents)


def single_map(inside: int, outside: int) -> str:
    """The one line that an unprivileged process may write for itself (user_namespaces(7))."""
    return f"{inside} {outside} 1"


def map_self(program: Program, uid_map: str, gid_map: str) -> None:
    """Map ids without privileges: setgroups(2) has to be given up first (since Linux 3.19)."""
    program.write_file("/proc/self/setgroups", "deny")
    program.write_file("/proc/self/uid_map", uid_map)
    program.write_file("/proc/self/gid_map", gid_map)

"""Landlock: what a process without any rights can forbid itself and all that it starts (landlock(7)).

Each version of its ABI knows more kinds of access. What a kernel does not know cannot be asked of it, so that
a ruleset is made for one ABI; what is lacking up to the newest is in :func:`gaps`.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import IntFlag

from pytest_isolate.errors import UnsupportedError
from pytest_isolate.kernel.cgroups.base import Problem
from pytest_isolate.syscalls._native import lib

__all__ = ["Access", "Ruleset", "Scope", "Tcp", "gaps", "landlock_abi", "make_ruleset", "why_no_landlock"]


class Access(IntFlag):
    """LANDLOCK_ACCESS_FS_* of linux/landlock.h, but for reading and executing, which stay as they are."""

    WRITE_FILE = 1 << 1
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13  # link and rename from one directory to another; before ABI 2 that is always refused
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


class Tcp(IntFlag):
    """LANDLOCK_ACCESS_NET_*"""

    BIND = 1 << 0
    CONNECT = 1 << 1


class Scope(IntFlag):
    """LANDLOCK_SCOPE_*: to what was confined together"""

    ABSTRACT_SOCKETS = 1 << 0
    SIGNALS = 1 << 1


FIRST = (
    Access.WRITE_FILE
    | Access.REMOVE_DIR
    | Access.REMOVE_FILE
    | Access.MAKE_CHAR
    | Access.MAKE_DIR
    | Access.MAKE_REG
    | Access.MAKE_SOCK
    | Access.MAKE_FIFO
    | Access.MAKE_BLOCK
    | Access.MAKE_SYM
)
#: The kinds that are about a file itself: a rule for what is no directory must not name others.
OF_FILES = Access.WRITE_FILE | Access.TRUNCATE | Access.IOCTL_DEV


@dataclass(frozen=True, slots=True)
class _Gap:
    """What comes with an ABI, and what a test can do without it."""

    abi: int
    kernel: str
    without: str


#: Not ABI 4, TCP: sockets are closed by other means (native/confine.c). Nor 7, which only logs.
GAPS = (
    _Gap(2, "5.19", "renaming from one directory to another fails with EXDEV"),
    _Gap(3, "6.2", "truncate(2) can empty every file that the user may write"),
    _Gap(5, "6.10", "devices that are open for reading can be configured (ioctl)"),
    _Gap(6, "6.12", "signals and abstract Unix sockets reach processes outside"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """What is forbidden but where a rule allows it."""

    abi: int
    files: Access
    tcp: Tcp
    scoped: Scope

    @property
    def in_files(self) -> Access:
        """What a rule for a file allows."""
        return self.files & OF_FILES


def landlock_abi() -> int:
    """Of the running kernel, 1 or more; or minus errno."""
    return int(lib.isolate_landlock_abi())


def make_ruleset(abi: int, *, closes_network: bool) -> Ruleset:
    """Everything that an ABI can forbid of changing what is outside. Reading stays allowed."""
    files = FIRST
    if abi >= 2:
        files |= Access.REFER
    if abi >= 3:
        files |= Access.TRUNCATE
    if abi >= 5:
        files |= Access.IOCTL_DEV
    tcp = Tcp.BIND | Tcp.CONNECT if abi >= 4 and closes_network else Tcp(0)
    scoped = Scope(0)
    if abi >= 6:
        scoped = Scope.SIGNALS
        if closes_network:  # with a network namespace of its own a test has those sockets for itself, too
            scoped |= Scope.ABSTRACT_SOCKETS
    return Ruleset(abi=abi, files=files, tcp=tcp, scoped=scoped)


def gaps(abi: int) -> list[UnsupportedError]:
    """What a newer kernel would forbid as well."""
    return [
        UnsupportedError(
            "a part of Landlock", f"with its ABI {abi} {gap.without}", f"use Linux {gap.kernel} or newer"
        )
        for gap in GAPS
        if abi < gap.abi
    ]


def why_no_landlock(answer: int) -> Problem:
    """``answer``: what :func:`landlock_abi` gave in place of a version."""
    if answer == -errno.EOPNOTSUPP:
        return Problem(
            "it was switched off when Linux started", "add landlock to lsm= of the kernel's command line"
        )
    if answer == -errno.ENOSYS:
        return Problem(
            "this kernel is built without it", "use Linux 5.13 or newer, with CONFIG_SECURITY_LANDLOCK=y"
        )
    return Problem(
        f"it is refused ({os.strerror(-answer)}), probably by a seccomp filter",
        "use a container engine whose filter allows landlock_create_ruleset(2): Docker 23 does",
    )

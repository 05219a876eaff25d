"""The mounts of /proc and /sys. What of them is hidden, as far as it exists, container engines hide as well.

It tells of the host, and some of it, as /proc/scsi and /proc/acpi, lets root in by the owner of the file
without asking for a capability.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from pytest_isolate.kernel import mounts, namespaces
from pytest_isolate.syscalls.program import Program

__all__ = ["HOST_WIDE_PROC", "MASKED", "mount_proc", "mount_sys"]


#: Files of /proc that belong to the host, not to a namespace (as OCI runtimes keep them read-only).
HOST_WIDE_PROC = ("bus", "fs", "irq", "sys", "sysrq-trigger")
NULL = "/dev/null"


class Masks(NamedTuple):
    """Below one mount: what becomes empty."""

    files: tuple[str, ...]
    directories: tuple[str, ...]


MASKED_PROC = Masks(
    files=("kcore", "keys", "latency_stats", "sched_debug", "timer_list", "timer_stats"),
    directories=("acpi", "asound", "scsi"),
)
MASKED_SYS = Masks(files=(), directories=("firmware", "devices/virtual/powercap"))
#: All of them, as absolute paths.
MASKED = tuple(
    sorted(
        f"{root}/{name}"
        for root, masks in (("/proc", MASKED_PROC), ("/sys", MASKED_SYS))
        for names in masks
        for name in names
    )
)


def mount_proc(program: Program, proc: str, old: str) -> None:
    """``old``: where the host's root is."""
    mounts.mount(program, "proc", proc, flags=mounts.NOSUID_NODEV | mounts.NOEXEC)
    namespaces.open_limits(program, proc)
    for name in HOST_WIDE_PROC:
        path = f"{proc}/{name}"
        program.call("mount", path, path, "", mounts.BIND, "", tolerated=errno.ENOENT)
        mounts.read_only(program, path, tolerated=errno.ENOENT)
    _mask(program, proc, MASKED_PROC, old + NULL)


def mount_sys(program: Program, sys: str, fresh: bool, old: str) -> None:
    if fresh:
        flags = mounts.NOSUID_NODEV | mounts.NOEXEC | mounts.RDONLY
        mounts.mount(program, "sysfs", sys, flags=flags)
    else:
        mounts.bind(program, old + "/sys", sys, recursive=True)
        mounts.read_only(program, sys, recursive=True)
    _mask(program, sys, MASKED_SYS, old + NULL)


def _mask(program: Program, root: str, masks: Masks, null: str) -> None:
    """``null``: the device that is shown in place of files."""
    for name in masks.files:
        program.call("mount", null, f"{root}/{name}", "", mounts.BIND, "", tolerated=errno.ENOENT)
    flags = mounts.NOSUID_NODEV | mounts.NOEXEC | mounts.RDONLY
    for name in masks.directories:
        program.call("mount", "tmpfs", f"{root}/{name}", "tmpfs", flags, "", tolerated=errno.ENOENT)

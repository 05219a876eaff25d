"""What of /proc and /sys is hidden, as far as it exists: what container engines hide as well.

It tells of the host, and some of it, as /proc/scsi and /proc/acpi, lets root in by the owner of the file
without asking for a capability.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from pytest_isolate.kernel import mounts
from pytest_isolate.syscalls.program import Program

__all__ = ["MASKED", "MASKED_PROC", "MASKED_SYS", "Masks", "mask"]


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


def mask(program: Program, root: str, masks: Masks, null: str) -> None:
    """``null``: the device that is shown in place of files."""
    for name in masks.files:
        program.call("mount", null, f"{root}/{name}", "", mounts.BIND, "", tolerated=errno.ENOENT)
    flags = mounts.NOSUID_NODEV | mounts.NOEXEC | mounts.RDONLY
    for name in masks.directories:
        program.call("mount", "tmpfs", f"{root}/{name}", "tmpfs", flags, "", tolerated=errno.ENOENT)

"""The environment that a process was started with. The kernel does not copy it: /proc/PID/environ shows the
memory of the process itself, which a fork takes over (proc_pid_environ(5))."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_isolate.syscalls._native import ffi

__all__ = ["forget"]

#: "env_start" and "env_end" of proc_pid_stat(5), since Linux 3.5, counted from behind the program's name.
BOUNDS = slice(47, 49)


def forget() -> None:
    """Overwrite what :data:`os.environ` does not have, or not as it was. What it still has stays in place,
    as the C library's environ points there."""
    start, end = map(int, Path("/proc/self/stat").read_bytes().rpartition(b") ")[2].split()[BOUNDS])
    address = ffi.cast("char *", start)
    for entry in bytes(ffi.buffer(address, end - start)).split(b"\0"):
        name, _, value = entry.partition(b"=")
        if os.environb.get(name) != value:
            ffi.memmove(address, bytes(len(entry)), len(entry))
        address += len(entry) + 1

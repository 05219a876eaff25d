"""Processors, memory and descriptors that this process may use: the machine's, or what its limits leave."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Iterator

from pytest_isolate.kernel.cgroups.detect import find_directories
from pytest_isolate.kernel.cgroups.files import read

__all__ = ["available_cpus", "available_descriptors", "available_memory_bytes"]

#: A limit of v1 that is none: the largest multiple of the page size in 63 bits.
NO_LIMIT_BYTES = 2**62


def available_cpus(proc: str = "/proc") -> float:
    """Processors that this process may run on (sched_getaffinity(2)), or fewer by a quota of its cgroup or of
    one above."""
    return min([float(len(os.sched_getaffinity(0))), *_quotas(proc)])


def _quotas(proc: str) -> Iterator[float]:
    for directory in find_directories("", proc):  # cpu.max is "max 100000" or "50000 100000"
        quota, _, period = (read(f"{directory}/cpu.max") or "max").strip().partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)
    for directory in find_directories("cpu", proc):  # -1: none
        quota = (read(f"{directory}/cpu.cfs_quota_us") or "-1").strip()
        period = (read(f"{directory}/cpu.cfs_period_us") or "").strip()
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def available_memory_bytes(proc: str = "/proc") -> int:
    """Memory that can be had now without swapping (proc_meminfo(5)), or less by a limit of a cgroup."""
    found = re.search(r"^MemAvailable: +(\d+) kB$", read(f"{proc}/meminfo") or "", re.MULTILINE)
    available = int(found[1]) * 1024 if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([available, *_memory_limits(proc)])


def _memory_limits(proc: str) -> Iterator[int]:
    files = {"": "memory.max", "memory": "memory.limit_in_bytes"}
    for controller, name in files.items():
        for directory in find_directories(controller, proc):
            limit = (read(f"{directory}/{name}") or "max").strip()
            if limit.isdigit() and int(limit) < NO_LIMIT_BYTES:
                yield int(limit)


def available_descriptors() -> int:
    """How many more this process may open (RLIMIT_NOFILE, getrlimit(2))."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # proc_pid_fd(5): since Linux 6.2 the size of the directory is their number.
    count = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit - count

"""What processes used: rusage, and a cgroup's word, put together."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from pytest_isolate.usage import CgroupUsage, Usage

__all__ = ["Rusage", "combine", "describe_process", "reap", "to_fields"]

BLOCK_BYTES = 512  # of ru_inblock (getrusage(2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rusage:
    """Of a process and those of its descendants that were waited for (getrusage(2))."""

    cpu_user_s: float
    cpu_system_s: float
    peak_rss_bytes: int
    minor_faults: int
    major_faults: int
    context_switches: int
    io_read_bytes: int
    io_write_bytes: int


def reap(pid: int) -> tuple[int | None, Rusage | None]:
    """Wait status and usage of a child that has ended; None if SIGCHLD is ignored and nobody kept them."""
    try:
        _, status, used = os.wait4(pid, 0)
    except ChildProcessError:
        return None, None
    return status, Rusage(
        cpu_user_s=used.ru_utime,
        cpu_system_s=used.ru_stime,
        peak_rss_bytes=used.ru_maxrss * 1024,
        minor_faults=used.ru_minflt,
        major_faults=used.ru_majflt,
        context_switches=used.ru_nvcsw + used.ru_nivcsw,
        io_read_bytes=used.ru_inblock * BLOCK_BYTES,
        io_write_bytes=used.ru_oublock * BLOCK_BYTES,
    )


def combine(cgroup: CgroupUsage, rusage: Rusage | None) -> Usage:
    """A cgroup counts every process and is preferred; rusage fills in what it does not tell."""

    def first(*values: Any) -> Any:
        return next((value for value in values if value is not None), None)

    def of(name: str) -> Any:
        return getattr(rusage, name, None)

    return Usage(
        cpu_user_s=first(cgroup.cpu_user_s, of("cpu_user_s")),
        cpu_system_s=first(cgroup.cpu_system_s, of("cpu_system_s")),
        throttled_s=cgroup.throttled_s,
        memory_peak_bytes=first(cgroup.memory_peak_bytes, of("peak_rss_bytes")),
        oom_kills=cgroup.oom_kills,
        pids_peak=cgroup.pids_peak,
        pids_refused=cgroup.pids_refused,
        io_read_bytes=first(cgroup.io_read_bytes, of("io_read_bytes")),
        io_write_bytes=first(cgroup.io_write_bytes, of("io_write_bytes")),
        minor_faults=of("minor_faults"),
        major_faults=of("major_faults"),
        context_switches=of("context_switches"),
    )


def to_fields(usage: CgroupUsage) -> dict[str, Any]:
    return dataclasses.asdict(usage)


def describe_process(pid: int) -> str:
    try:
        return f" (as {os.readlink(f'/proc/{pid}/exe')})"
    except OSError:
        return ""

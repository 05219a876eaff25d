"""What a test consumed. ``None`` means not measured, never zero."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CgroupUsage", "Usage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupUsage:
    """What a cgroup says about all processes that were ever in it."""

    cpu_user_s: float | None = None
    cpu_system_s: float | None = None
    throttled_s: float | None = None
    memory_peak_bytes: int | None = None
    oom_kills: int | None = None
    pids_peak: int | None = None
    pids_refused: int | None = None  #: forks refused because of the pids limit
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One test's consumption, from its cgroup where there is one, else from rusage."""

    wall_s: float | None = None
    cpu_user_s: float | None = None
    cpu_system_s: float | None = None
    throttled_s: float | None = None
    memory_peak_bytes: int | None = None
    memory_limit_bytes: int | None = None
    oom_kills: int | None = None
    pids_peak: int | None = None
    pids_refused: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    minor_faults: int | None = None
    major_faults: int | None = None
    context_switches: int | None = None
    written_files: int | None = None
    written_bytes: int | None = None
    tmp_free_bytes: int | None = None  #: of tmp_size, when the test had ended
    network_attempts: int | None = None
    leaked_processes: int | None = None
    slept_s: float | None = None  #: as the test's process asked of time.sleep
    clock_reads: int | None = None  #: how often that asked for the time of day
    overhead_s: float | None = None

"""cgroup v1: up to four hierarchies, each with a directory per session and per test.

See cgroups(7) and Documentation/admin-guide/cgroup-v1/.  ``cpuacct`` only counts; ``blkio`` is left
out, as it sees no buffered writes here (rusage stands in).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping

from pytest_isolate.errors import SetupError, UnsupportedError
from pytest_isolate.kernel.cgroups.base import (
    SWAP_NOT_COUNTED,
    CgroupEntry,
    Problem,
    Version,
    check_limits,
    cpu_quota,
    unsupported,
)
from pytest_isolate.kernel.cgroups.cures import delegated_scope
from pytest_isolate.kernel.cgroups.files import (
    kill_tree,
    make_directory,
    processes,
    read,
    read_fields,
    read_int,
    remove_tree,
    set_limit,
    write,
)
from pytest_isolate.kernel.cgroups.sweep import make_session, remove_sessions, sweep
from pytest_isolate.spec import Limits
from pytest_isolate.usage import CgroupUsage

__all__ = ["CONTROLLERS", "V1Cgroup", "V1Cgroups", "limit_files", "open_v1"]

CONTROLLERS = ("memory", "cpu", "cpuacct", "pids")


def limit_files(limits: Limits) -> dict[str, str]:
    """What to write where, in this order: memory.memsw may not be below memory."""
    files = {}
    if limits.memory_bytes is not None:
        files["memory.limit_in_bytes"] = str(limits.memory_bytes)
        files["memory.memsw.limit_in_bytes"] = str(limits.memory_bytes + (limits.swap_bytes or 0))
    if limits.cpus is not None:
        quota, period = cpu_quota(limits.cpus)
        files["cpu.cfs_period_us"] = str(period)
        files["cpu.cfs_quota_us"] = str(quota)
    if limits.pids is not None:
        files["pids.max"] = str(limits.pids)
    return files


class V1Cgroup:
    """One test's cgroup: ``directories`` maps each controller to its directory; some may share one."""

    __slots__ = ("_directories", "_limits", "_oom_event", "entry", "name", "paths")

    def __init__(self, name: str, directories: Mapping[str, str]) -> None:
        self.name = name
        self.paths: tuple[str, ...] = tuple(dict.fromkeys(directories.values()))
        self.entry = CgroupEntry(tasks=tuple(f"{path}/tasks" for path in self.paths))
        self._directories = directories
        self._limits: list[str] = []
        self._oom_event: int | None = None

    def limit(self, files: Mapping[str, str]) -> None:
        """Write limits; SetupError if the kernel refuses one."""
        for name, value in files.items():
            try:
                set_limit(self._directories[name.partition(".")[0]], name, value)
            except SetupError as error:
                if name == "cpu.cfs_quota_us" and error.errno == errno.EINVAL:
                    continue  # v1 refuses more than a cgroup above us has: that one's cap is the lower
                raise
            self._limits.append(name)

    def read_usage(self) -> CgroupUsage:
        user_s, system_s = self._read_cpu()
        throttled_ns = read_fields(self._path("cpu.stat")).get("throttled_time")
        return CgroupUsage(
            cpu_user_s=user_s,
            cpu_system_s=system_s,
            throttled_s=None if throttled_ns is None else throttled_ns / 1e9,
            memory_peak_bytes=read_int(self._path("memory.max_usage_in_bytes")),
            oom_kills=read_fields(self._path("memory.oom_control")).get("oom_kill"),  # Linux 4.13
            pids_peak=read_int(self._path("pids.peak")),  # Linux 6.1
            pids_refused=read_fields(self._path("pids.events")).get("max"),
        )

    def sample(self) -> bool:
        return False

    def read_limits(self) -> Mapping[str, str]:
        values = ((name, read(self._path(name))) for name in self._limits)
        return {name: value.strip() for name, value in values if value is not None}

    def oom_event_fd(self) -> int | None:
        if self._oom_event is None and "memory.limit_in_bytes" in self._limits:
            self._oom_event = _register_oom_event(self._directories["memory"])
        return self._oom_event

    def processes(self) -> list[int]:
        return processes(self.paths[0])

    def kill(self) -> None:
        kill_tree(self.paths[0])  # whoever entered entered all of them

    def close_oom_event(self) -> None:
        if self._oom_event is not None:
            os.close(self._oom_event)
            self._oom_event = None

    def remove(self, *, kill: bool = False) -> None:
        self.close_oom_event()  # first: removing the cgroup signals the event too
        for path in self.paths:
            remove_tree(path, kill=kill)

    def _path(self, name: str) -> str:
        """A controller's file; where the controller is not to be had, a path that does not exist."""
        directory = self._directories.get(name.partition(".")[0], "/nonexistent")
        return f"{directory}/{name}"

    def _read_cpu(self) -> tuple[float | None, float | None]:
        """User and system seconds.

        Only ``cpuacct.usage`` is exact.  Its parts are counted by timer ticks since Linux 5.17, so they
        give the proportion, as the kernel does it in cputime_adjust() for everything else.
        """
        total = read_int(self._path("cpuacct.usage"))
        user = read_int(self._path("cpuacct.usage_user"))  # Linux 4.7
        system = read_int(self._path("cpuacct.usage_sys"))
        if total is None:
            return None, None
        if user is None or system is None:
            ticks = read_fields(self._path("cpuacct.stat"))
            user, system = ticks.get("user", 0), ticks.get("system", 0)
        system_share = system / (user + system) if user + system else 0.0
        return total * (1 - system_share) / 1e9, total * system_share / 1e9


class V1Cgroups:
    """One pytest session's places: ``sessions`` maps each controller to the session's directory."""

    def __init__(
        self,
        version: Version,
        sessions: Mapping[str, str],
        lock_fds: tuple[int, ...],
        problems: Mapping[str, Problem],
        *,
        run_id: str = "",
        devices: str | None = None,
    ) -> None:
        self.version = version
        self.controllers = frozenset(sessions) - {"cpuacct"}
        self.session_paths: tuple[str, ...] = tuple(dict.fromkeys(sessions.values()))
        self.lock_fds = lock_fds
        self.home: str | None = None
        self._sessions = sessions
        self._lent = dict(sessions)
        self._run_id = run_id
        self._devices = devices
        self._problems = problems
        self._has_memsw = _has_memsw(sessions)

    def missing(self, controller: str) -> UnsupportedError:
        return unsupported(controller, self._problems.get(controller))

    def create(self, name: str, limits: Limits) -> V1Cgroup:
        check_limits(limits, self.controllers, self._problems)
        if limits.swap_bytes is not None and limits.memory_bytes is None:
            problem = Problem("cgroup v1 limits only memory and swap together", "set a memory limit too")
            raise unsupported("swap", problem)
        files = limit_files(limits)
        if not self._has_memsw:
            files.pop("memory.memsw.limit_in_bytes", None)  # no swap on this machine, else it is a problem
        cgroup = V1Cgroup(name, {controller: f"{path}/{name}" for controller, path in self._sessions.items()})
        for path in cgroup.paths:
            make_directory(path)
        try:
            cgroup.limit(files)
        except SetupError:
            cgroup.remove()
            raise
        return cgroup

    def lend(self) -> Mapping[str, str]:
        """With a session in the hierarchy of devices, too: runc takes its absence for a danger."""
        if self._devices is not None and "devices" not in self._lent:
            sweep([self._devices])
            path, lock = make_session(self._devices, self._run_id)
            self.session_paths += (path,)
            self.lock_fds += (lock,)
            self._lent["devices"] = path
        return self._lent

    def make_room(self, name: str, processes: Collection[int]) -> None:
        if (cpu := self._sessions.get("cpu")) is not None:
            write(f"{cpu}/{name}/cpu.cfs_quota_us", "-1")

    def close(self) -> None:
        try:
            remove_sessions(self.session_paths)
        finally:
            for fd in self.lock_fds:
                os.close(fd)
            self.lock_fds = ()


def open_v1(
    owns: Mapping[str, str],
    problems: Mapping[str, Problem],
    *,
    version: Version,
    run_id: str,
    has_swap: bool,
    devices: str | None = None,
) -> V1Cgroups:
    """Make a session where this process is: ``owns`` maps each controller to the directory of its cgroup,
    ``devices`` is that of a hierarchy which only OCI runtimes need.

    OSError if no hierarchy lets us make one.
    """
    problems = dict(problems)
    sweep(owns.values())
    made: dict[str, str] = {}  # own directory -> session directory; co-mounted controllers share one
    locks = []
    sessions = {}
    refused: OSError | None = None
    for controller, own in owns.items():
        try:
            if own not in made:
                made[own], lock = make_session(own, run_id)
                locks.append(lock)
            sessions[controller] = made[own]
        except OSError as error:
            problems[controller] = Problem(f"{error.filename}: {error.strerror}", delegated_scope())
            refused = error
    if not sessions and refused is not None:
        raise refused
    if has_swap and "memory" in sessions and not _has_memsw(sessions):
        problems["swap"] = SWAP_NOT_COUNTED
    return V1Cgroups(version, sessions, tuple(locks), problems, run_id=run_id, devices=devices)


def _has_memsw(sessions: Mapping[str, str]) -> bool:
    return "memory" in sessions and os.path.exists(f"{sessions['memory']}/memory.memsw.limit_in_bytes")


def _register_oom_event(directory: str) -> int | None:
    """An eventfd that memory.oom_control signals (Documentation/admin-guide/cgroup-v1/memory.rst, 10)."""
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            write(f"{directory}/cgroup.event_control", f"{event} {control}")
        finally:
            os.close(control)
    except OSError:
        os.close(event)
        return None
    return event

"""cgroup2: one directory per session and per test.

See cgroups(7) and Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

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
from pytest_isolate.kernel.cgroups.leaf import CONTROLLERS, Leaf, enter_leaf, find_base, hand_down
from pytest_isolate.kernel.cgroups.sweep import make_session, remove_sessions, sweep
from pytest_isolate.spec import Limits
from pytest_isolate.usage import CgroupUsage

__all__ = ["V2Cgroup", "V2Cgroups", "limit_files", "open_v2"]


def limit_files(limits: Limits) -> dict[str, str]:
    """What to write where, in this order."""
    files = {}
    if limits.memory_bytes is not None:
        files["memory.max"] = str(limits.memory_bytes)
        files["memory.oom.group"] = "1"  # Linux 4.19; one process killed means all are
    if limits.memory_bytes is not None or limits.swap_bytes is not None:
        files["memory.swap.max"] = str(limits.swap_bytes or 0)
    if limits.cpus is not None:
        quota, period = cpu_quota(limits.cpus)
        files["cpu.max"] = f"{quota} {period}"
    if limits.pids is not None:
        files["pids.max"] = str(limits.pids)
    return files


class V2Cgroup:
    """One test's cgroup."""

    __slots__ = ("_directory", "_limits", "_sampled_peak", "entry", "name", "paths")

    def __init__(self, directory: str) -> None:
        self.name = os.path.basename(directory)
        self.paths: tuple[str, ...] = (directory,)
        self.entry = CgroupEntry(directory=directory)
        self._directory = directory
        self._limits: list[str] = []
        self._sampled_peak: int | None = None

    def limit(self, files: Mapping[str, str]) -> None:
        """Write limits; SetupError if the kernel refuses one."""
        for name, value in files.items():
            set_limit(self._directory, name, value)
            self._limits.append(name)

    def read_usage(self) -> CgroupUsage:
        directory = self._directory
        cpu = read_fields(f"{directory}/cpu.stat")
        peak = read_int(f"{directory}/memory.peak")  # Linux 5.19
        read_bytes, write_bytes = _read_io(directory)
        return CgroupUsage(
            cpu_user_s=_seconds(cpu.get("user_usec")),
            cpu_system_s=_seconds(cpu.get("system_usec")),
            throttled_s=_seconds(cpu.get("throttled_usec")),
            memory_peak_bytes=self._sampled_peak if peak is None else peak,
            # Not memory.events.local: a cgroup that the test itself made below counts too.
            oom_kills=read_fields(f"{directory}/memory.events").get("oom_kill"),
            pids_peak=read_int(f"{directory}/pids.peak"),  # Linux 6.1
            pids_refused=read_fields(f"{directory}/pids.events").get("max"),
            io_read_bytes=read_bytes,
            io_write_bytes=write_bytes,
        )

    def sample(self) -> bool:
        if os.path.exists(f"{self._directory}/memory.peak"):
            return False
        current = read_int(f"{self._directory}/memory.current")
        if current is not None:
            self._sampled_peak = max(current, self._sampled_peak or 0)
        return current is not None

    def read_limits(self) -> Mapping[str, str]:
        values = ((name, read(f"{self._directory}/{name}")) for name in self._limits)
        return {name: value.strip() for name, value in values if value is not None}

    def oom_event_fd(self) -> int | None:
        return None  # memory.oom.group kills all of the cgroup at once

    def close_oom_event(self) -> None:
        return

    def processes(self) -> list[int]:
        return processes(self._directory)

    def kill(self) -> None:
        kill_tree(self._directory)

    def remove(self, *, kill: bool = False) -> None:
        remove_tree(self._directory, kill=kill)


class V2Cgroups:
    """One pytest session's place in the hierarchy."""

    version: Version = "v2"

    def __init__(self, session: str, lock: int, leaf: Leaf | None, problems: Mapping[str, Problem]) -> None:
        self.controllers = frozenset(CONTROLLERS) - frozenset(problems)
        self.session_paths: tuple[str, ...] = (session,)
        self.lock_fds: tuple[int, ...] = (lock,)
        self.home = leaf.base if leaf is not None else None
        self._session = session
        self._leaf = leaf
        self._problems = problems
        self._has_swap_file = os.path.exists(f"{session}/memory.swap.max")

    def missing(self, controller: str) -> UnsupportedError:
        return unsupported(controller, self._problems.get(controller))

    def create(self, name: str, limits: Limits) -> V2Cgroup:
        check_limits(limits, self.controllers, self._problems)
        files = limit_files(limits)
        if not self._has_swap_file:
            files.pop("memory.swap.max", None)  # no swap on this machine, else it is a problem
        directory = f"{self._session}/{name}"
        make_directory(directory)
        cgroup = V2Cgroup(directory)
        try:
            cgroup.limit(files)
        except SetupError:
            cgroup.remove()
            raise
        return cgroup

    def lend(self) -> Mapping[str, str]:
        return {"": self._session}

    def make_room(self, name: str, processes: Collection[int]) -> None:
        outer = f"{self._session}/{name}"
        make_directory(f"{outer}/runtime")
        for pid in processes:
            write(f"{outer}/runtime/cgroup.procs", str(pid))
        hand_down(outer, tuple(self.controllers))
        if "cpu" in self.controllers:
            write(f"{outer}/cpu.max", "max")

    def close(self) -> None:
        try:
            remove_sessions(self.session_paths)
        finally:
            for fd in self.lock_fds:
                os.close(fd)
            self.lock_fds = ()
            if self._leaf is not None:
                self._leaf.leave()
                self._leaf = None


def open_v2(own: str, v1_problems: Mapping[str, Problem], *, run_id: str, has_swap: bool) -> V2Cgroups:
    """Make a session where this process is: ``own`` is the directory of its cgroup.

    ``v1_problems`` says of controllers why they are neither here nor usable on v1.
    """
    base = find_base(own)
    sweep([base])
    entered = enter_leaf(own)
    leaf = entered if isinstance(entered, Leaf) else None
    try:
        session, lock = make_session(base, run_id)
    except OSError:
        if leaf is not None:
            leaf.leave()
        raise
    if isinstance(entered, Problem):
        problems = dict.fromkeys(CONTROLLERS, entered)
    else:
        problems = hand_down(base)
        problems |= hand_down(session, tuple(c for c in CONTROLLERS if c not in problems))
    problems |= v1_problems
    if has_swap and "memory" not in problems and not os.path.exists(f"{session}/memory.swap.max"):
        problems["swap"] = SWAP_NOT_COUNTED
    return V2Cgroups(session, lock, leaf, problems)


def _read_io(directory: str) -> tuple[int | None, int | None]:
    """Bytes read and written, over all block devices: lines like ``8:0 rbytes=1 wbytes=2 rios=…``."""
    text = read(f"{directory}/io.stat")
    if text is None:
        return None, None
    pairs = [word.split("=") for word in text.split() if "=" in word]
    return (
        sum(int(value) for key, value in pairs if key == "rbytes"),
        sum(int(value) for key, value in pairs if key == "wbytes"),
    )


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6

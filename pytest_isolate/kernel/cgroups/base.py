"""What a cgroup is to the rest of the plugin, whichever version the kernel offers."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from pytest_isolate.errors import UnsupportedError
from pytest_isolate.spec import Limits
from pytest_isolate.usage import CgroupUsage

__all__ = [
    "LEAF",
    "PREFIX",
    "SWAP_NOT_COUNTED",
    "Cgroup",
    "CgroupEntry",
    "Cgroups",
    "Problem",
    "Version",
    "check_limits",
    "cpu_quota",
    "discard",
    "unsupported",
]

PREFIX = "pytest-isolate-"  #: every directory we make in someone else's cgroup starts with this
LEAF = "pytest-isolate-leaf"  #: cgroup2: where pytest itself sits while its tests are its siblings

Version = Literal["v1", "v2", "hybrid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupEntry:
    """How a child enters without the RCU grace period (7-15 ms) that ``cgroup.procs`` costs after a pause.

    On v1, while it has one thread, it writes ``0`` into each of ``tasks``.  On v2 it is born inside:
    ``clone3(CLONE_INTO_CGROUP)`` (Linux 5.7) on ``directory``.
    """

    tasks: tuple[str, ...] = ()
    directory: str | None = None


class Cgroup(Protocol):
    """One test's cgroup."""

    name: str
    paths: tuple[str, ...]  #: all its directories: one on v2, one per hierarchy on v1
    entry: CgroupEntry

    def read_usage(self) -> CgroupUsage: ...

    def sample(self) -> bool:
        """Note the present memory use where the kernel keeps no peak (v2 before Linux 5.19); else False."""

    def read_limits(self) -> Mapping[str, str]:
        """The limits that were set, by kernel file name, as the kernel reads them back."""

    def oom_event_fd(self) -> int | None:
        """Readable once the kernel ran out of memory for this cgroup; None where it has no limit of its own,
        or the whole cgroup is killed.

        v1 kills one process at a time and has no ``memory.oom.group``: the others may wait for the
        dead one for ever.  The event comes just before the kill, so ``oom_kills`` may still be 0.
        """

    def close_oom_event(self) -> None: ...

    def processes(self) -> list[int]: ...

    def kill(self) -> None:
        """Send SIGKILL to all processes inside; does not wait until they are gone."""

    def remove(self, *, kill: bool = False) -> None:
        """Remove the directories, waiting up to 2 s for dying processes; OSError (EBUSY) after that.

        ``kill``: whoever is still inside is killed, and whoever comes in meanwhile.
        """


def discard(cgroup: Cgroup | None) -> None:
    """Remove what no test needs any more. If a process in it does not die, that is not the error of whichever
    test runs now: the end of the session tries again."""
    if cgroup is not None:
        with contextlib.suppress(OSError):
            cgroup.remove(kill=True)


class Cgroups(Protocol):
    """One pytest session's place in the hierarchies."""

    version: Version
    controllers: frozenset[str]  #: of memory, cpu, pids, io: those that can be used here
    session_paths: tuple[str, ...]  #: for a watchdog: see ``sweep.remove_sessions``
    lock_fds: tuple[int, ...]  #: forks share the lock: a child closes them, or blocks a sweep
    home: (
        str | None
    )  #: v2: where this process was before it moved to the leaf; a watchdog does Leaf(home).leave()

    def missing(self, controller: str) -> UnsupportedError: ...

    def create(self, name: str, limits: Limits) -> Cgroup:
        """A cgroup below the session's.  UnsupportedError if a limit needs a missing controller."""

    def lend(self) -> Mapping[str, str]:
        """What an OCI runtime is to find in /sys/fs/cgroup: directories of this session, by name there; ""
        stands for all of it.  May add to ``session_paths`` and ``lock_fds``."""

    def make_room(self, name: str, processes: Collection[int]) -> None:
        """Prepare the cgroup ``name``, which a runtime has made for ``processes``, for one inside it.

        The processor quota is left to that one: the kernel counts throttling where it happens first.
        """

    def close(self) -> None:
        """Kill what is still inside, and remove the session's directories.  Idempotent."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something cannot be used, and a command that cures it."""

    reason: str
    cure: str = ""


SWAP_NOT_COUNTED = Problem("the kernel does not count swap", "boot with swapaccount=1, or run swapoff -a")


def unsupported(controller: str, problem: Problem | None) -> UnsupportedError:
    """The error for a limit that ``controller`` (or "swap") would have to enforce."""
    problem = problem or Problem("this kernel does not offer the controller")
    return UnsupportedError(f"cgroup {controller} limit", problem.reason, problem.cure)


def check_limits(limits: Limits, controllers: Collection[str], problems: Mapping[str, Problem]) -> None:
    """Raise UnsupportedError for the first limit whose controller is missing."""
    asked = {
        "memory": limits.memory_bytes is not None or limits.swap_bytes is not None,
        "cpu": limits.cpus is not None,
        "pids": limits.pids is not None,
    }
    for controller, is_asked in asked.items():
        if is_asked and controller not in controllers:
            raise unsupported(controller, problems.get(controller))
    if asked["memory"] and "swap" in problems:
        raise unsupported("swap", problems["swap"])


def cpu_quota(cpus: float) -> tuple[int, int]:
    """Quota and period in microseconds; the kernel refuses a quota below 1 ms and a period above 1 s."""
    quota = round(cpus * 100_000)
    if quota >= 1000:
        return quota, 100_000
    return 1000, min(1_000_000, round(1000 / cpus))

"""What this machine can do, found out by doing it, one thing after another in throw-away sandboxes."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from errno import EPERM

from pytest_isolate.errors import SetupError, SupervisorError, UnsupportedError
from pytest_isolate.kernel.cgroups.base import Cgroups, Problem
from pytest_isolate.kernel.cgroups.detect import open_cgroups
from pytest_isolate.kernel.diagnosis import diagnose, explain_failure
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.landlock import gaps, landlock_abi, why_no_landlock
from pytest_isolate.kernel.namespaces import clone_flags
from pytest_isolate.kernel.seccomp_filter import why_no_filter
from pytest_isolate.kernel.subids import find_subordinate_ids
from pytest_isolate.kernel.supervisor import Failed, Ready, Reply, Supervisor
from pytest_isolate.kernel.surroundings import kernel_release, seccomp_filters, sysctl
from pytest_isolate.kernel.trials import Trial, trials
from pytest_isolate.spec import Limits
from pytest_isolate.syscalls._native import ffi, lib
from pytest_isolate.syscalls.program import Program

__all__ = ["LANDLOCK", "SECCOMP_FILTER", "Feature", "explain_failure", "probe"]

OLDEST_KERNEL = (5, 15)
LANDLOCK = "landlock"
SECCOMP_FILTER = "seccomp filter"

#: What each limit is tried with; all are well above what nothing needs.
LIMITS = {
    "cgroup memory limit": Limits(memory_bytes=64 * 2**20),
    "cgroup swap limit": Limits(memory_bytes=64 * 2**20, swap_bytes=2**20),
    "cgroup cpu limit": Limits(cpus=0.5),
    "cgroup pids limit": Limits(pids=64),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One thing that a sandbox is made of."""

    name: str
    available: bool
    needed: bool  #: by a sandbox of which nothing special is asked
    reason: str = ""  #: why not
    cure: str = ""  #: a command to run, if there is one
    detail: str = ""  #: what was found, or what was tried


def probe(host: Host | None = None) -> tuple[Feature, ...]:
    """Try everything, in some 50 ms. Leaves nothing behind.

    With cgroup2 it moves the calling process to a leaf of its cgroup and back, as a session does.
    """
    host = host or Host()
    return (
        _kernel(host),
        *_sandbox_features(host),
        _landlock(),
        _seccomp_filter(),
        _subordinate_ids(host),
        *_cgroup_features(),
    )


def _kernel(host: Host) -> Feature:
    wanted = ".".join(map(str, OLDEST_KERNEL))
    old = host.kernel < OLDEST_KERNEL
    return Feature(
        name="kernel",
        available=not old,
        needed=False,  # Red Hat backports all of it to 5.14, and the other features speak for themselves
        reason=f"Linux {kernel_release(host)} is older than {wanted}" if old else "",
        cure=f"use Linux {wanted} or newer" if old else "",
        detail=f"Linux {os.uname().release}",
    )


# -- the sandbox ----------------------------------------------------------------------------------------


def _sandbox_features(host: Host) -> list[Feature]:
    found: dict[str, Feature] = {}
    try:
        supervisor = Supervisor()
        try:
            for trial in trials(host):
                found[trial.name] = _try(trial, supervisor, host, found)
            found["ptrace"] = _ptrace(supervisor, host)
        finally:
            supervisor.close()
    except SupervisorError as error:
        # It dies early where a filter keeps pidfd_open(2) from it.
        cure = diagnose("start the supervisor", EPERM, host).cure if seccomp_filters(host) else ""
        problem = Problem(str(error), cure)
        for trial in trials(host):
            if trial.name not in found:
                found[trial.name] = _lacking(trial, problem)
                problem = Problem("needs supervisor")
        ptrace = Feature(name="ptrace", available=False, needed=False, reason="needs supervisor")
        found.setdefault("ptrace", ptrace)
    return list(found.values())


def _try(trial: Trial, supervisor: Supervisor, host: Host, known: dict[str, Feature]) -> Feature:
    missing = [name for name in trial.after if not known[name].available]
    if missing:
        return _lacking(trial, Problem(f"needs {missing[0]}"))
    program = Program()
    trial.build(program)
    failure = _attempt(supervisor, clone_flags(trial.namespaces), program)
    if failure is not None:
        return _lacking(trial, diagnose(*failure, host))
    return Feature(name=trial.name, available=True, needed=trial.needed, detail=trial.detail)


def _attempt(supervisor: Supervisor, flags: int, program: Program) -> tuple[str, int] | None:
    """(step, errno) if it failed."""
    sandbox_id = supervisor.create(flags, program)
    reply = supervisor.receive_about(sandbox_id, _ignore)
    failure, born = None, True
    match reply:
        case Ready(fds=fds):
            for fd in fds:
                os.close(fd)
            supervisor.destroy(sandbox_id)
        case Failed(op_index=op_index, errno=errno):
            calls = program.calls
            step = calls[op_index].label if op_index < len(calls) else "create the namespaces"
            failure, born = (step, errno), reply.born
    if born:
        supervisor.receive_about(sandbox_id, _ignore)
    return failure


def _ignore(_: Reply) -> None:
    """About a sandbox that nobody waits for."""


def _lacking(trial: Trial, problem: Problem) -> Feature:
    return Feature(
        name=trial.name, available=False, needed=trial.needed, reason=problem.reason, cure=problem.cure
    )


def _ptrace(supervisor: Supervisor, host: Host) -> Feature:
    """Wake a child that blocks all signals, as a test past its timeout is woken to dump its stacks. The
    supervisor is such a child, and ignores this signal afterwards."""
    available = lib.isolate_interrupt(supervisor.pid, signal.SIGWINCH) == 0
    reason, cure = "", ""
    if not available:
        reason = os.strerror(ffi.errno)
        scope = sysctl(host, "kernel.yama.ptrace_scope") or 0
        if scope > 1:
            reason = f"kernel.yama.ptrace_scope is {scope}"
            # ptrace(2): 3 cannot be changed until the next boot.
            cure = "run: sudo sysctl -w kernel.yama.ptrace_scope=1" + ", after a reboot" * (scope > 2)
    return Feature(name="ptrace", available=available, needed=False, reason=reason, cure=cure)


def _subordinate_ids(host: Host) -> Feature:
    """Of images: whether their files can have the owners that they should."""
    name = "subordinate ids"
    if host.privileged:
        return Feature(name=name, available=True, needed=False, detail="all ids, with privileges")
    found = find_subordinate_ids(host)
    if isinstance(found, Problem):
        return Feature(name=name, available=False, needed=False, reason=found.reason, cure=found.cure)
    return Feature(name=name, available=True, needed=False, detail=f"uids {found.uids}, gids {found.gids}")


# -- what is left without namespaces --------------------------------------------------------------------


def _landlock() -> Feature:
    abi = landlock_abi()
    if abi > 0:
        lacking = "; ".join(error.reason for error in gaps(abi))
        detail = f"ABI {abi}" + (f": {lacking}" if lacking else "")
        return Feature(name=LANDLOCK, available=True, needed=False, detail=detail)
    problem = why_no_landlock(abi)
    return Feature(name=LANDLOCK, available=False, needed=False, reason=problem.reason, cure=problem.cure)


def _seccomp_filter() -> Feature:
    name, problem = SECCOMP_FILTER, why_no_filter()
    if problem is None:
        return Feature(name=name, available=True, needed=False)
    return Feature(name=name, available=False, needed=False, reason=problem.reason, cure=problem.cure)


# -- cgroups --------------------------------------------------------------------------------------------


def _cgroup_features() -> list[Feature]:
    try:
        cgroups = open_cgroups(run_id=f"{os.getpid()}-{os.urandom(4).hex()}")
    except UnsupportedError as error:
        none = Feature(name="cgroup", available=False, needed=False, reason=error.reason, cure=error.cure)
        return [
            none,
            *(Feature(name=n, available=False, needed=False, reason="needs cgroup") for n in LIMITS),
        ]
    try:
        detail = f"{cgroups.version}: {', '.join(sorted(cgroups.controllers)) or 'no controllers'}"
        found = Feature(name="cgroup", available=True, needed=False, detail=detail)
        return [found, *(_limit(cgroups, name, limits) for name, limits in LIMITS.items())]
    finally:
        cgroups.close()


def _limit(cgroups: Cgroups, name: str, limits: Limits) -> Feature:
    reason, cure = "", ""
    try:
        cgroups.create(name.replace(" ", "-"), limits).remove()
    except UnsupportedError as error:
        reason, cure = error.reason, error.cure
    except (SetupError, OSError) as error:
        reason = str(error)
    return Feature(name=name, available=not reason, needed=False, reason=reason, cure=cure)

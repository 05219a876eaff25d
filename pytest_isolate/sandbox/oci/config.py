"""A plan as config.json of the OCI runtime specification (opencontainers/runtime-spec, config.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_isolate.kernel.cgroups.base import cpu_quota
from pytest_isolate.kernel.namespaces import Namespace
from pytest_isolate.kernel.overlay import escape
from pytest_isolate.kernel.process import Capability
from pytest_isolate.sandbox import steps
from pytest_isolate.sandbox.masks import HOST_WIDE_PROC, MASKED
from pytest_isolate.sandbox.oci.seccomp import profile
from pytest_isolate.sandbox.oci.stage import HOSTS_FILE
from pytest_isolate.sandbox.plan import Plan
from pytest_isolate.sandbox.reach import MountHosts
from pytest_isolate.spec import Limits, Seccomp

__all__ = ["Machine", "Process", "config"]

VERSION = "1.0.2"  # the oldest with all that is used here: Debian 12's runtimes know it
NAMESPACES = {Namespace.MOUNT: "mount", Namespace.NET: "network"}  # the others are called as in /proc
#: A runtime starts some ten threads of its own in the container's cgroup before the test is there.
RUNTIME_PIDS = 32
#: linux/capability.h, by number.
CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Whom the runtime is to start."""

    args: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    uid: int  #: as it is seen inside
    gid: int
    is_remapped: bool  #: the init, which is root inside, makes the caller of the command
    groups: Sequence[int]
    umask: int
    rlimits: Mapping[str, tuple[int, int]]  #: soft and hard


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What of here and now the plan does not know."""

    name: str  #: as uname(2) tells it
    capabilities: int  #: a mask: what the caller has
    has_swap: bool
    has_cgroups: bool
    cgroup: str | None = field(default=None)  #: where the runtime is to make one; None: where it likes


def config(plan: Plan, process: Process, machine: Machine, layers: str) -> dict[str, Any]:
    """``layers``: the directory of the bundle's ``rootfs``, ``upper``, ``work`` and ``scratch``."""
    return {
        "ociVersion": VERSION,
        "hostname": plan.spec.hostname,
        "root": {"path": f"{layers}/rootfs", "readonly": plan.spec.readonly},
        "mounts": [mount for step in plan.steps for mount in _mounts(step, plan, layers)],
        "process": {
            "terminal": False,
            "user": {
                "uid": process.uid,
                "gid": process.gid,
                "umask": process.umask,
                **({"additionalGids": [*process.groups]} if process.groups else {}),
            },
            "args": [*process.args],
            "env": [f"{name}={value}" for name, value in process.env.items()],
            "cwd": process.cwd,
            "capabilities": _capabilities(plan, process, machine),
            "rlimits": [
                {"type": name, "soft": soft, "hard": hard} for name, (soft, hard) in process.rlimits.items()
            ],
            "noNewPrivileges": True,
        },
        "linux": {
            "namespaces": [{"type": NAMESPACES.get(n, n.value)} for n in Namespace if n in plan.namespaces],
            **_id_mappings(plan),
            **({"cgroupsPath": machine.cgroup} if machine.cgroup is not None else {}),
            "resources": _resources(plan.limits, machine.has_swap) if machine.has_cgroups else {},
            **_sysctl(plan),
            "rootfsPropagation": "private",
            **({"seccomp": profile(machine.name)} if plan.spec.seccomp is Seccomp.DEFAULT else {}),
            "maskedPaths": [*MASKED],
            "readonlyPaths": [f"/proc/{name}" for name in HOST_WIDE_PROC],
        },
    }


def _mounts(step: steps.Step, plan: Plan, layers: str) -> Iterator[dict[str, Any]]:
    match step:
        case steps.MountOverlay(source, target, layer, user_xattrs, below=below):
            upper, work = (f"{layers}/{kind}/{layer}" for kind in ("upper", "work"))
            lower = ":".join(map(escape, (source, *below)))
            options = [f"lowerdir={lower}", f"upperdir={escape(upper)}", f"workdir={escape(work)}"]
            options += ["userxattr"] * user_xattrs + ["ro"] * (steps.MakeReadOnly(target) in plan.steps)
            yield _mount("overlay", target, "nosuid", "nodev", *options)
        case steps.MountBind(source, target, readonly=True, recursive=True, is_file=False):
            # By mount_setattr(2), which leaves other flags alone; crun 1.8 takes directories it can read.
            yield _bind(source, target, "rro", recursive=True)
        case steps.MountBind(source, target, readonly=True):
            # A remount, which in a user namespace has to name the flags that the source may have, too.
            yield _bind(source, target, "ro", "nosuid", "nodev")
        case steps.MountBind(source, target, recursive=recursive):
            yield _bind(source, target, recursive=recursive)
        case MountHosts(target):
            options = ["ro", "nosuid", "nodev"] * (steps.MakeReadOnly(target) in plan.steps)
            yield _bind(f"{layers}/{HOSTS_FILE}", target, *options)
        case steps.MountScratch(target):
            layer_of = steps.layer_of(step)
            assert layer_of is not None
            yield _bind(f"{layers}/{layer_of.directory}", target, "nosuid", "nodev")
        case steps.MountProc(target):
            yield _mount("proc", target, "nosuid", "nodev", "noexec")
        case steps.MountSys(target, fresh=True):
            yield _mount("sysfs", target, "nosuid", "nodev", "noexec", "ro")
        case steps.MountSys(target):
            yield _bind("/sys", target, "rro", recursive=True)
        case steps.MountDev(target):  # runtimes make the devices: those that every container has
            yield _mount("tmpfs", target, "nosuid", "mode=755", "size=64k")
            options = ["newinstance", "ptmxmode=0666", "mode=0620"]
            yield _mount("devpts", f"{target}/pts", "nosuid", "noexec", *options)
            yield _mount("mqueue", f"{target}/mqueue", "nosuid", "nodev", "noexec")


def _mount(kind: str, target: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": [*options]}


def _bind(source: str, target: str, *options: str, recursive: bool = False) -> dict[str, Any]:
    # Private: crun clones the host's mount, and what is mounted on a shared one appears at its source, too.
    how = ("rbind", "rprivate") if recursive else ("bind", "private")
    return {"destination": target, "type": "bind", "source": source, "options": [*how, *options]}


def _capabilities(plan: Plan, process: Process, machine: Machine) -> dict[str, list[str]]:
    kept: set[int] = {*plan.capabilities} if plan.capabilities is not None else {*range(64)}
    if process.is_remapped:
        kept |= {Capability.SETFCAP}  # to map root, since Linux 5.12; the command has it no more
    names = [
        f"CAP_{name}"
        for number, name in enumerate(CAPABILITIES)
        if number in kept and (plan.capabilities is not None or machine.capabilities >> number & 1)
    ]
    return {"bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": []}


def _id_mappings(plan: Plan) -> dict[str, list[dict[str, int]]]:
    return {
        key: [_id_mapping(*map(int, line.split())) for line in lines.splitlines()]
        for step in plan.steps
        if isinstance(step, steps.EnterUserNamespace)
        for key, lines in (("uidMappings", step.uid_map), ("gidMappings", step.gid_map))
    }


def _id_mapping(inside: int, outside: int, count: int) -> dict[str, int]:
    return {"containerID": inside, "hostID": outside, "size": count}


def _resources(limits: Limits, has_swap: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if limits.memory_bytes is not None:
        found["memory"] = {"limit": limits.memory_bytes}
        if has_swap:  # the specification's is the sum of both
            found["memory"]["swap"] = limits.memory_bytes + (limits.swap_bytes or 0)
    if limits.cpus is not None:
        quota, period = cpu_quota(limits.cpus)
        found["cpu"] = {"quota": quota, "period": period}
    if limits.pids is not None:
        found["pids"] = {"limit": limits.pids + RUNTIME_PIDS}
    return found


def _sysctl(plan: Plan) -> dict[str, dict[str, str]]:
    if any(isinstance(step, steps.OpenLowPorts) for step in plan.steps):
        return {"sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"}}
    return {}

"""Building a sandbox, as data: what ``pytest-isolate explain`` prints is what the init runs.

Sources are paths on the host, targets paths inside. While the steps run, the host's root is at ``OLD``,
the new root grows at ``/new``, and both sit on the scratch tmpfs that becomes the root in between: so
nothing is ever made on the host's own file systems, and nothing can be left there. An absolute link in a
path would lead to that tmpfs.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from pytest_isolate import units
from pytest_isolate.kernel import mounts, namespaces, network, overlay, process
from pytest_isolate.kernel.namespaces import Namespace
from pytest_isolate.sandbox import reach
from pytest_isolate.sandbox.masks import HOST_WIDE_PROC, mount_proc, mount_sys
from pytest_isolate.sandbox.oci import stage
from pytest_isolate.sandbox.oci.stage import LendCgroups, Stage
from pytest_isolate.sandbox.written import Layer
from pytest_isolate.syscalls.program import Program

__all__ = ["Step", "apply", "describe", "layer_of"]

#: No link of a root knows its name. One that was not seen when targets were resolved, as it is in a directory
#: that the caller cannot read or has come since, leads to nothing of the host.
OLD = f"/old-{os.urandom(8).hex()}"
NEW = "/new"
SCRATCH_AT = "/tmp"  # any directory that every Linux has: the mount is private and moves away at once


@dataclass(frozen=True, slots=True)
class MakePrivate:
    """Cut the mount namespace off from the host's."""


@dataclass(frozen=True, slots=True)
class MapSelf:
    """Map ids from inside, as an unprivileged user must."""

    uid_map: str
    gid_map: str


@dataclass(frozen=True, slots=True)
class MapByHelpers:
    """Map subordinate ids too, as only root may: by set-user-ID programs that the supervisor runs."""

    uid_map: str
    gid_map: str
    newuidmap: str
    newgidmap: str


@dataclass(frozen=True, slots=True)
class MakeScratch:
    """A tmpfs for all that the test writes, which becomes the root for the time of building."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    target: str
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class MakeSymlink:
    target: str
    points_to: str


@dataclass(frozen=True, slots=True)
class MountOverlay:
    """``source``, and what is ``below`` it, seen at ``target``; what is written goes to layer ``layer`` of
    the scratch tmpfs.

    The top directory of an overlay has the owner and mode of the upper one: ``mode``, and ``owner`` where
    that can be given (None: whoever makes it).
    """

    source: str
    target: str
    layer: str
    user_xattrs: bool
    mode: int = 0o755
    owner: tuple[int, int] | None = None
    make_target: bool = False
    below: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MountBind:
    """``source`` itself seen at ``target``, with ``recursive`` the mounts below it too."""

    source: str
    target: str
    readonly: bool
    recursive: bool = False
    is_file: bool = False
    make_target: bool = False


@dataclass(frozen=True, slots=True)
class MountScratch:
    """A fresh directory of the scratch tmpfs at ``target``."""

    target: str
    mode: int


@dataclass(frozen=True, slots=True)
class MountProc:
    """A /proc of the sandbox's own processes; what in it belongs to the whole host is read-only."""

    target: str = "/proc"


@dataclass(frozen=True, slots=True)
class MountSys:
    """A read-only /sys: a fresh one that shows the sandbox's own network, or the host's."""

    target: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class MountDev:
    """A /dev with the harmless devices only, apart from what the test writes."""

    target: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MakeReadOnly:
    target: str


@dataclass(frozen=True, slots=True)
class ChangeRoot:
    """pivot_root(2): the host's tree is not only hidden but gone."""


@dataclass(frozen=True, slots=True)
class OpenLowPorts:
    """Let root bind ports below 1024, which its user namespace took from it."""


@dataclass(frozen=True, slots=True)
class LoopbackUp:
    pass


@dataclass(frozen=True, slots=True)
class SetHostname:
    name: str


@dataclass(frozen=True, slots=True)
class EnterUserNamespace:
    """After the mounts, which so stay out of reach for the test's capabilities."""

    uid_map: str
    gid_map: str


@dataclass(frozen=True, slots=True)
class LimitNamespaces:
    """``count`` cgroup namespaces in the sandbox: the test's own, if it is made in the user namespace."""

    count: int


@dataclass(frozen=True, slots=True)
class HandOut:
    """Give pytest descriptors of the scratch tmpfs and of the namespaces, to enter them and to read them."""

    namespaces: tuple[Namespace, ...]


@dataclass(frozen=True, slots=True)
class Seal:
    """The init gives up its capabilities and dies with the supervisor."""


Step = (
    MakePrivate
    | MapSelf
    | MapByHelpers
    | MakeScratch
    | MakeDirectory
    | MakeSymlink
    | MountOverlay
    | MountBind
    | MountScratch
    | MountProc
    | MountSys
    | MountDev
    | MakeReadOnly
    | ChangeRoot
    | OpenLowPorts
    | LoopbackUp
    | SetHostname
    | EnterUserNamespace
    | LimitNamespaces
    | HandOut
    | Seal
    | reach.ListenOn
    | reach.MountHosts
    | Stage
    | LendCgroups
)

DEV_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


def apply(step: Step, program: Program) -> None:
    """Append the system calls of one step."""
    program.label = describe(step)
    match step:
        case MakePrivate():
            mounts.make_private(program)
        case MapSelf(uid_map, gid_map):
            namespaces.map_self(program, uid_map, gid_map)
        case MapByHelpers(uid_map, gid_map, newuidmap, newgidmap):
            program.map_ids_by_helpers(uid_map, gid_map, newuidmap, newgidmap)
        case MakeScratch(size_bytes):
            _make_scratch(program, size_bytes)
        case MakeDirectory(target, mode):
            _make_directory(program, target, mode)
        case MakeSymlink(target, points_to):
            mounts.symlink(program, points_to, NEW + target)
        case MountOverlay():
            _mount_overlay(program, step)
        case MountBind():
            _mount_bind(program, step)
        case MountScratch(target, mode):
            _mount_scratch(program, target, mode)
        case MountProc(target):
            mount_proc(program, NEW + target, OLD)
        case MountSys(target, fresh):
            mount_sys(program, NEW + target, fresh, OLD)
        case MountDev(target, devices):
            _mount_dev(program, NEW + target, devices)
        case MakeReadOnly(target):
            mounts.read_only(program, NEW + target)
        case ChangeRoot():
            program.call("openat", mounts.AT_FDCWD, "/", mounts.PATH_ONLY, 0, export=True)
            mounts.pivot_root(program, NEW)
        case OpenLowPorts():
            network.open_low_ports(program, OLD + "/proc")
        case LoopbackUp():
            network.loopback_up(program)
        case SetHostname(name):
            program.call("sethostname", name, len(name))
        case EnterUserNamespace(uid_map, gid_map):
            namespaces.enter_user(program, uid_map, gid_map)
        case LimitNamespaces(count):
            namespaces.limit_cgroup_namespaces(program, count)
        case HandOut(wanted):
            namespaces.export(program, wanted)
        case Seal():
            process.seal(program)
        case reach.ListenOn() | reach.MountHosts():
            reach.apply(step, program, NEW)
        case Stage() | LendCgroups():
            stage.apply(step, program)


def describe(step: Step) -> str:
    """One line for people."""
    match step:
        case MakePrivate():
            return "make all mounts private"
        case MapSelf(uid_map, gid_map) | EnterUserNamespace(uid_map, gid_map):
            return f"enter a user namespace (uid_map {uid_map!r}, gid_map {gid_map!r})"
        case MapByHelpers(uid_map, gid_map, newuidmap, newgidmap):
            maps = f"uid_map {uid_map!r}, gid_map {gid_map!r}"
            return f"enter a user namespace mapped by {newuidmap} and {newgidmap} ({maps})"
        case MakeScratch(size_bytes):
            return f"mount a scratch tmpfs of {units.format_size(size_bytes)} for everything that is written"
        case MakeDirectory(target, mode):
            return f"make directory {target} (mode {mode:o})"
        case MakeSymlink(target, points_to):
            return f"link {target} to {points_to}"
        case MountOverlay(source, target, below=below):
            more = f" and {len(below)} more below it" if below else ""
            return f"mount an overlay of {source}{more} on {target}, writes go to the scratch tmpfs"
        case MountBind(source, target, readonly):
            return f"bind {source} to {target} {'read-only' if readonly else 'read-write'}"
        case MountScratch(target):
            return f"mount an empty {target} on the scratch tmpfs"
        case MountProc():
            return f"mount a fresh /proc, read-only in {', '.join(HOST_WIDE_PROC)}, parts of it masked"
        case MountSys(_, fresh):
            how = "mount a fresh /sys read-only" if fresh else "bind the host's /sys read-only"
            return f"{how}, parts of it masked"
        case MountDev(_, devices):
            return f"mount a minimal /dev ({' '.join(devices)} ptmx pts shm mqueue)"
        case MakeReadOnly(target):
            return f"make {target} read-only"
        case ChangeRoot():
            return "pivot_root to the new root and detach the host's"
        case OpenLowPorts():
            return "allow ports below 1024 to everybody"
        case LoopbackUp():
            return "bring lo up"
        case SetHostname(name):
            return f"set the hostname to {name}"
        case LimitNamespaces():
            return "allow no more cgroup namespaces, whose owner could lift the limits"
        case HandOut(wanted):
            return f"hand out the namespaces {', '.join(n.value for n in wanted)}"
        case Seal():
            return "drop the init's capabilities, set no_new_privs, die with the supervisor"
        case reach.ListenOn() | reach.MountHosts():
            return reach.describe(step)
        case Stage() | LendCgroups():
            return stage.describe(step)


def layer_of(step: Step) -> Layer | None:
    """Where the writes go for which a step makes room."""
    match step:
        case MountOverlay(source, target, layer=layer, below=below):
            return Layer(f"upper/{layer}", target, (source, *below))
        case MountScratch(target):
            return Layer(_scratch_directory(target).lstrip("/"), target)
        case reach.MountHosts(target, text):
            return Layer(stage.HOSTS_FILE, target, text=text)
    return None


def _scratch_directory(target: str) -> str:
    return "/scratch/" + target.strip("/").replace("/", "-")


def _mount_scratch(program: Program, target: str, mode: int) -> None:
    directory = _scratch_directory(target)
    mounts.make_directory(program, directory, mode=mode)
    mounts.bind(program, directory, NEW + target)


def _make_scratch(program: Program, size_bytes: int) -> None:
    mounts.mount(program, "tmpfs", SCRATCH_AT, data=f"size={size_bytes},mode=755")
    for name in (OLD, NEW, "/upper", "/work", "/links", "/scratch"):
        mounts.make_directory(program, SCRATCH_AT + name)
    mounts.switch_root(program, SCRATCH_AT, SCRATCH_AT + OLD)
    # A mount point of its own, or it could not become the root; an overlay on / covers it.
    mounts.bind(program, NEW, NEW)


def _mount_overlay(program: Program, step: MountOverlay) -> None:
    upper, work = f"/upper/{step.layer}", f"/work/{step.layer}"
    mounts.make_directory(program, upper, mode=step.mode)
    if step.owner is not None:
        program.call("fchownat", mounts.AT_FDCWD, upper, *step.owner, 0)
    mounts.make_directory(program, work)
    if step.make_target:
        _make_parents(program, step.target)
    overlay.overlay(
        program,
        lower=[OLD + source for source in (step.source, *step.below)],
        links=f"/links/{step.layer}",
        upper=upper,
        work=work,
        target=NEW + step.target,
        user_xattrs=step.user_xattrs,
    )


def _make_parents(program: Program, target: str) -> None:
    """``target`` as a directory, where a private /tmp or a foreign root may lack it."""
    path = ""
    for part in filter(None, target.split("/")):
        path += "/" + part
        program.call("mkdirat", mounts.AT_FDCWD, NEW + path, 0o755, tolerated=errno.EEXIST)


def _make_directory(program: Program, target: str, mode: int) -> None:
    _make_parents(program, os.path.dirname(target))
    mounts.make_directory(program, NEW + target, mode=mode)


def _mount_bind(program: Program, step: MountBind) -> None:
    if step.make_target and step.is_file:
        _make_parents(program, os.path.dirname(step.target))
        mounts.make_file(program, NEW + step.target)
    elif step.make_target:
        _make_parents(program, step.target)
    mounts.bind(program, OLD + step.source, NEW + step.target, recursive=step.recursive)
    if step.readonly:
        mounts.read_only(program, NEW + step.target, recursive=step.recursive)


def _mount_dev(program: Program, dev: str, devices: tuple[str, ...]) -> None:
    mounts.make_directory(program, "/dev")
    mounts.bind(program, "/dev", dev)
    for name in devices:
        mounts.make_file(program, f"{dev}/{name}")
        mounts.bind(program, f"{OLD}/dev/{name}", f"{dev}/{name}")
        # They are the host's own files, whose mode and owner its root could change; writing goes on.
        mounts.read_only(program, f"{dev}/{name}")
    for name, points_to in DEV_LINKS.items():
        mounts.symlink(program, points_to, f"{dev}/{name}")
    for name in ("pts", "shm", "mqueue"):
        mounts.make_directory(program, f"{dev}/{name}")
    flags = mounts.NOSUID | mounts.NOEXEC
    mounts.mount(program, "devpts", f"{dev}/pts", flags=flags, data="newinstance,ptmxmode=666,mode=620")
    mounts.mount(program, "mqueue", f"{dev}/mqueue", flags=mounts.NOSUID_NODEV | mounts.NOEXEC)

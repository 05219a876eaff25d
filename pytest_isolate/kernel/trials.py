"""The smallest sandboxes that each show one feature, built as sandbox/plan.py builds whole ones."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass

from pytest_isolate.kernel import mounts, namespaces, network, overlay, process
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.namespaces import Namespace
from pytest_isolate.kernel.surroundings import mount_of
from pytest_isolate.syscalls._native import lib
from pytest_isolate.syscalls.program import Program

__all__ = ["Trial", "trials"]

AT = "/tmp"  # any directory that every Linux has: what is mounted there is seen by the child only
OLD, NEW = "/old", "/new"
SYSTEM_TREES = ("/proc", "/sys", "/dev", "/run", "/tmp")
SCRATCH_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A program for the init of a throw-away sandbox. ``after`` are the features that it builds on."""

    name: str
    namespaces: frozenset[Namespace]
    build: Callable[[Program], None]
    after: tuple[str, ...] = ()
    needed: bool = True  #: by a sandbox of which nothing special is asked
    detail: str = ""


def trials(host: Host) -> list[Trial]:
    """In an order in which each comes after what it builds on."""
    make = _Programs(host)
    user = frozenset[Namespace]() if host.privileged else frozenset({Namespace.USER})
    mount, net, pid, ipc = Namespace.MOUNT, Namespace.NET, Namespace.PID, Namespace.IPC

    own_net = {net} if host.privileged else ()  # whose /sys is mounted; without privileges it is the host's

    def trial(
        name: str,
        build: Callable[[Program], None],
        *own: Namespace,
        after: str = "id maps",
        needed: bool = True,
        detail: str = "",
    ) -> Trial:
        needs = (after,) if after else ()
        return Trial(
            name=name, namespaces=user | set(own), build=build, after=needs, needed=needed, detail=detail
        )

    scratch = "scratch tmpfs"
    found = [
        Trial(name="supervisor", namespaces=frozenset(), build=make.nothing),
        trial("user namespace", make.user_namespace, after="supervisor"),
        trial("id maps", make.id_maps, after="user namespace"),
        trial("pid namespace", make.start, pid),
        trial("mount namespace", make.private_mounts, mount),
        trial("network namespace", make.start, net),
        trial("ipc namespace", make.start, ipc),
        trial("uts namespace", make.hostname, Namespace.UTS),
        trial("cgroup namespace", make.cgroup_namespace),
        trial(scratch, make.scratch, mount, after="mount namespace"),
        trial("overlay", make.overlay, mount, after=scratch, detail=make.overlay_of),
        trial("overlay xattrs", make.overlay_marks, mount, after="overlay", needed=False),
        trial("fresh proc", make.proc, mount, pid, after=scratch),
        trial("sysfs", make.sys, mount, *own_net, after=scratch),
        trial("devpts", make.devpts, mount, after=scratch),
        trial("mqueue", make.mqueue, mount, ipc, after=scratch),
        trial("pivot_root", make.pivot_root, mount, after=scratch),
        trial("loopback", make.loopback, net, after="network namespace"),
        trial("no_new_privs", make.seal),
    ]
    if host.privileged:
        found.insert(-1, trial("low ports", make.low_ports, net, after="network namespace"))
    return found


class _Programs:
    """Each appends the calls of its trial, under labels that ``diagnosis`` knows."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._source = "/" if host.privileged else _tree_without_mounts(host)
        self.overlay_of = f"of {self._source}" + (", with privileges" if host.privileged else "")

    def nothing(self, program: Program) -> None:
        """The init alone."""

    def user_namespace(self, program: Program) -> None:
        if self._host.privileged:
            program.label = "enter a user namespace"
            namespaces.unshare_user(program)

    def id_maps(self, program: Program) -> None:
        host = self._host
        self.user_namespace(program)
        program.label = "enter a user namespace"
        if host.privileged:
            uid_map = namespaces.identity_map(host.uid_extents)
            program.map_ids(uid_map, namespaces.identity_map(host.gid_extents))
        else:
            uid_map = namespaces.single_map(host.uid, host.uid)
            namespaces.map_self(program, uid_map, namespaces.single_map(host.gid, host.gid))

    def start(self, program: Program) -> None:
        """What comes before all else: without privileges the maps, with them they come last."""
        if not self._host.privileged:
            self.id_maps(program)

    def private_mounts(self, program: Program) -> None:
        self.start(program)
        program.label = "make all mounts private"
        mounts.make_private(program)

    def hostname(self, program: Program) -> None:
        self.start(program)
        program.label = "set the hostname"
        program.call("sethostname", "isolated", len("isolated"))

    def cgroup_namespace(self, program: Program) -> None:
        self.start(program)
        program.label = "enter a cgroup namespace"
        program.call("unshare", lib.CLONE_NEWCGROUP)

    def scratch(self, program: Program) -> None:
        self.private_mounts(program)
        program.label = "mount a scratch tmpfs"
        mounts.mount(program, "tmpfs", AT, data=f"size={SCRATCH_BYTES},mode=755")
        for path in (OLD, NEW, "/upper", "/work", "/lower", "/lower/seen"):
            mounts.make_directory(program, AT + path)
        mounts.switch_root(program, AT, AT + OLD)
        mounts.bind(program, NEW, NEW)

    def overlay(self, program: Program) -> None:
        self.scratch(program)
        program.label = f"mount an overlay of {self._source} on /new"
        self._overlay(program, OLD + self._source)

    def _overlay(self, program: Program, lower: str) -> None:
        overlay.overlay(
            program,
            lower=[lower],
            links="/links",
            upper="/upper",
            work="/work",
            target=NEW,
            user_xattrs=not self._host.privileged,
        )

    def overlay_marks(self, program: Program) -> None:
        """Make a directory where one was removed: it must be marked as opaque, which takes an xattr."""
        self.scratch(program)
        program.label = "mark removed files in an overlay"
        program.call("mknodat", lib.AT_FDCWD, "/upper/seen", stat.S_IFCHR, 0)  # since Linux 5.8 for everybody
        self._overlay(program, "/lower")
        program.call("mkdirat", lib.AT_FDCWD, f"{NEW}/seen", 0o755)

    def proc(self, program: Program) -> None:
        self.scratch(program)
        program.label = "mount a fresh /proc"
        mounts.mount(program, "proc", NEW, flags=mounts.NOSUID_NODEV | mounts.NOEXEC)
        mounts.bind(program, f"{NEW}/sys", f"{NEW}/sys")
        mounts.read_only(program, f"{NEW}/sys")

    def sys(self, program: Program) -> None:
        self.scratch(program)
        if self._host.privileged:
            program.label = "mount a fresh /sys"
            mounts.mount(program, "sysfs", NEW, flags=mounts.NOSUID_NODEV | mounts.NOEXEC | mounts.RDONLY)
        else:
            program.label = "bind the host's /sys"
            mounts.bind(program, f"{OLD}/sys", NEW, recursive=True)
            mounts.read_only(program, NEW, recursive=True)

    def devpts(self, program: Program) -> None:
        self.scratch(program)
        program.label = "mount a minimal /dev (pts)"
        data = "newinstance,ptmxmode=666,mode=620"
        mounts.mount(program, "devpts", NEW, flags=mounts.NOSUID | mounts.NOEXEC, data=data)

    def mqueue(self, program: Program) -> None:
        self.scratch(program)
        program.label = "mount a minimal /dev (mqueue)"
        mounts.mount(program, "mqueue", NEW, flags=mounts.NOSUID_NODEV | mounts.NOEXEC)

    def pivot_root(self, program: Program) -> None:
        self.scratch(program)
        program.label = "pivot_root to the new root"
        mounts.pivot_root(program, NEW)

    def loopback(self, program: Program) -> None:
        self.start(program)
        program.label = "bring lo up"
        network.loopback_up(program)

    def low_ports(self, program: Program) -> None:
        self.start(program)
        program.label = "allow ports below 1024"
        network.open_low_ports(program, "/proc")

    def seal(self, program: Program) -> None:
        self.start(program)
        program.label = "drop the init's capabilities"
        process.seal(program)


def _tree_without_mounts(host: Host) -> str:
    """A top-level directory that an unprivileged overlay can cover: mounts below it are locked to it."""
    for entry in host.entries("/"):
        path = entry.path
        mount = mount_of(host, path)
        if (
            not entry.is_directory
            or path in SYSTEM_TREES
            or any(m.path.startswith(path + "/") for m in host.mounts)
        ):
            continue
        if mount is not None and mount.fstype in overlay.LOWER_TYPES and host.entries(path):
            return path
    return "/usr"

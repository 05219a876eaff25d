"""The root of a sandbox: where each part of it comes from, and what is mounted in it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from pytest_isolate.errors import ImageError, UnsupportedError
from pytest_isolate.kernel import overlay
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.mounts import MountPoint
from pytest_isolate.kernel.overlay import LOWER_TYPES
from pytest_isolate.kernel.supervisor import CONTAINER_INIT
from pytest_isolate.kernel.tree import Tree
from pytest_isolate.sandbox import hermetic, reach, steps
from pytest_isolate.sandbox.lending import Workspace, is_below, lend, place_in
from pytest_isolate.sandbox.steps import Step
from pytest_isolate.spec import NATIVE, HostRootfs, ImageRootfs, Network, PathRootfs, Spec, User
from pytest_isolate.units import quoted

__all__ = ["root_steps"]

#: Places with a fresh content of the sandbox's own, in every kind of root.
PRIVATE = ("/proc", "/sys", "/dev", "/tmp", "/var/tmp", "/run")
#: Top-level directories in which users own things somewhere below.
USER_TREES = frozenset({"/home", "/opt", "/srv", "/var", "/mnt", "/media", "/usr/local"})
MANY_ENTRIES = 200
#: Of the options of a mount, what an OCI runtime needs for upper and work directory.
SPARE = 300


def root_steps(spec: Spec, host: Host, workspace: Workspace, tree: Tree, user_first: bool) -> Iterator[Step]:
    """Everything up to the change of root. ``user_first``: in a user namespace, without privileges."""
    contained = spec.runtime != NATIVE
    layers = _Layers(host, user_first, contained and spec.user is not User.HOST_ROOT)
    lent: list[hermetic.Placed]
    match spec.rootfs:
        case HostRootfs():
            if user_first or contained:
                yield from layers.tree("/", _writable_trees(host, workspace))
            else:
                yield from layers.mounted(host.mounts)
            needed = [*workspace.needed, *_home_and_path(host), *_name_service(spec, host)]
            covered = [*hermetic.cover(spec, host, workspace, layers)] if spec.strict else []
            own = {step.target for step in covered}
            lent = [
                *(layers.overlay(path, make_target=True) for path in _hidden(needed) if path not in own),
                *covered,
            ]
        case PathRootfs() | ImageRootfs():
            if contained:  # crun cannot mount on / itself
                yield from layers.parts(tree)
            else:
                yield layers.overlay(*tree.layers, target="/")
            lent = [*lend(tree, host, workspace)]
    places = [tree.resolve(place) for place in PRIVATE]
    for place in places:
        if (found := tree.find(place)) is not None and not os.path.isdir(found):
            raise ImageError(f"the root has a file at {quoted(place)}, where a directory is needed")
    yield from (steps.MakeDirectory(place) for place in places)
    yield from _system(spec, host, user_first, places)
    yield from sorted(
        [
            *lent,
            *(
                steps.MountBind(path, _target(spec, tree, path), False, make_target=True)
                for path in workspace.writable
            ),
            *(_container_init(places[-1]) if contained else ()),
            *_sockets(spec, host, tree),
            *_binds(spec, host, tree),
        ],
        key=lambda step: step.target.count("/"),
    )
    if spec.hosts or _has_room_for_hosts(spec, tree):
        yield reach.MountHosts(place_in(tree, reach.HOSTS), reach.hosts_text(spec, tree))


def _system(spec: Spec, host: Host, user_first: bool, places: list[str]) -> Iterator[Step]:
    """What every root gets, in the order of :data:`PRIVATE`."""
    proc, sys, dev, tmp, var_tmp, run = places
    yield steps.MountProc(proc)
    # In a user namespace, as a runtime is, a fresh one takes a network of one's own (sysfs(5)).
    hosts = spec.runtime != NATIVE and spec.network is Network.HOST
    yield steps.MountSys(sys, fresh=not user_first and not hosts)
    yield steps.MountDev(dev, host.devices)
    yield steps.MountScratch(f"{dev}/shm", 0o1777)
    yield steps.MountScratch(tmp, 0o1777)
    yield steps.MountScratch(var_tmp, 0o1777)
    yield steps.MountScratch(run, 0o755)
    yield steps.MakeDirectory(f"{run}/lock", 0o1777)
    if spec.network is not Network.HOST and not user_first:
        yield steps.OpenLowPorts()


def _container_init(run: str) -> Iterator[steps.MountBind]:
    target = f"{run}/pytest-isolate/init"
    yield steps.MountBind(str(CONTAINER_INIT), target, readonly=True, is_file=True, make_target=True)


class _Layers:
    """Makes overlay steps, each with a layer of its own.

    ``inside``: they are mounted in the user namespace, though the caller has privileges.
    """

    def __init__(self, host: Host, user_first: bool, inside: bool) -> None:
        self._host = host
        self._user_first = user_first
        self._inside = inside
        self._count = 0

    def overlay(
        self, source: str, *below: str, target: str | None = None, make_target: bool = False
    ) -> steps.MountOverlay:
        mode, owner = self._host.ownership(source)
        self._count += 1
        if self._user_first and owner[0] != self._host.uid:
            # Whoever mounts owns the top directory: give the owner what others have.
            mode = (mode & 0o7) * 0o111
        return steps.MountOverlay(
            source,
            target or source,
            layer=str(self._count),
            user_xattrs=self._user_first or self._inside,
            mode=mode,
            owner=None if self._user_first else owner,
            make_target=make_target,
            below=below,
        )

    def mounted(self, mounts: Iterable[MountPoint]) -> Iterator[Step]:
        """With privileges: one overlay on ``/``, and one on each other mount, as none shows another."""
        whole: list[str] = []
        for mount in sorted(mounts, key=lambda m: m.path):
            path = mount.path
            if path != "/" and (_is_private(path) or is_below(path, whole) or not self._host.exists(path)):
                continue
            if not self._host.is_directory(path):
                yield steps.MountBind(path, path, readonly=True, is_file=True)
            elif path != "/" and (mount.readonly or mount.fstype not in LOWER_TYPES):
                whole.append(path)
                yield steps.MountBind(path, path, readonly=True, recursive=True)
            else:
                yield self.overlay(path)

    def parts(self, tree: Tree) -> Iterator[Step]:
        """Of a root that is not the host's: each entry of the top directory for itself."""
        for path in tree.names():
            found = tree.layers_of(path)
            if path in PRIVATE:
                continue
            if os.path.islink(found[0]):
                yield steps.MakeSymlink(path, os.readlink(found[0]))
            elif os.path.isdir(found[0]):
                if overlay.lower_bytes(found) > overlay.MOST_OPTIONS - SPARE:
                    raise UnsupportedError(
                        "an OCI runtime for this image",
                        f"the paths of its {len(found)} layers are too long for mount(2)",
                        "make one layer of them: pytest-isolate image export IMAGE FILE --format rootfs",
                    )
                yield self.overlay(*found, target=path, make_target=True)
            else:
                yield steps.MountBind(found[0], path, readonly=True, is_file=True, make_target=True)

    def tree(self, directory: str, writable: frozenset[str]) -> Iterator[Step]:
        """Without privileges an overlay on a tree with mounts below fails (they are locked together,
        mount_namespaces(7)): so go down to trees without, and overlay what the user may write to."""
        for entry in self._host.entries(directory):
            path = entry.path
            if path in PRIVATE:
                continue
            if entry.points_to is not None:
                yield steps.MakeSymlink(path, entry.points_to)
            elif not entry.is_directory:
                yield steps.MountBind(path, path, readonly=True, is_file=True, make_target=True)
            elif not any(is_below(tree, [path]) for tree in writable):
                whole = not self._inside or self._host.is_readable(path)
                yield steps.MountBind(path, path, readonly=True, recursive=whole, make_target=True)
            elif not self._has_mounts(path):
                yield self.overlay(path, make_target=True)
            elif len(inner := self._host.entries(path)) <= MANY_ENTRIES:
                yield steps.MakeDirectory(path)
                yield from self.tree(path, writable | {e.path for e in inner})
            else:
                yield steps.MountBind(path, path, readonly=True, recursive=True, make_target=True)

    def can_overlay(self, path: str) -> bool:
        return not (self._user_first and self._has_mounts(path))

    def _has_mounts(self, path: str) -> bool:
        return any(mount.path.startswith(path + "/") for mount in self._host.mounts)


def _writable_trees(host: Host, workspace: Workspace) -> frozenset[str]:
    """Directories whose top-level tree the caller may write to somewhere."""
    known = {*workspace.needed, os.path.expanduser("~")}
    trees = {path for path in known if host.is_writable(path)}
    trees |= {tree for tree in USER_TREES if tree != "/usr/local" or host.is_writable(tree)}
    trees |= {entry.path for entry in host.entries("/") if host.is_writable(entry.path)}
    return frozenset(trees)


def _is_private(path: str) -> bool:
    return is_below(path, PRIVATE)


def _hidden(paths: Iterable[str]) -> list[str]:
    """Those of ``paths`` that a private /tmp or /run would hide, without those inside another."""
    found: list[str] = []
    for path in sorted(set(paths)):
        if _is_private(path) and path not in PRIVATE and not is_below(path, found):
            found.append(path)
    return found


def _home_and_path(host: Host) -> list[str]:
    """The home directory, and where commands are found: continuous integration may have them below /tmp."""
    places = [os.path.expanduser("~"), *os.environ.get("PATH", "").split(os.pathsep)]
    return [place for place in places if place.startswith("/") and host.is_directory(place)]


def _name_service(spec: Spec, host: Host) -> list[str]:
    """With the host's network: where /etc/resolv.conf leads (systemd-resolved keeps it in /run)."""
    target = os.path.dirname(os.path.realpath("/etc/resolv.conf"))
    return [target] if spec.network is Network.HOST and host.is_directory(target) else []


def _sockets(spec: Spec, host: Host, tree: Tree) -> Iterator[steps.MountBind]:
    for source, target in reach.sockets(spec, host):
        place = _target(spec, tree, target)
        yield steps.MountBind(source, place, readonly=True, is_file=True, make_target=True)


def _has_room_for_hosts(spec: Spec, tree: Tree) -> bool:
    """Whether there is a place for the name of the sandbox itself. Nobody asked for it: nothing fails for it,
    and what the user has bound there stays."""
    if any(is_below(reach.HOSTS, [bind.target.rstrip("/")]) for bind in spec.binds):
        return False
    try:
        place = place_in(tree, reach.HOSTS)
    except ImageError:
        return False
    if (found := tree.at(place)) is not None:
        return os.path.isfile(found) and os.path.getsize(found) <= reach.MOST_BYTES
    outer = tree.at(os.path.dirname(place))
    return not isinstance(spec.rootfs, HostRootfs) and outer is not None and os.path.isdir(outer)


def _binds(spec: Spec, host: Host, tree: Tree) -> Iterator[steps.MountBind]:
    for bind in spec.binds:
        is_file = not host.is_directory(bind.source)
        target = _target(spec, tree, bind.target)
        source = os.path.realpath(bind.source)
        yield steps.MountBind(
            source, target, bind.readonly, recursive=True, is_file=is_file, make_target=True
        )


def _target(spec: Spec, tree: Tree, path: str) -> str:
    return path if isinstance(spec.rootfs, HostRootfs) else place_in(tree, path)

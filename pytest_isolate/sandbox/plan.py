"""From what the user asked to what will be done: a :class:`Plan` is pure data, made once per Spec."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_isolate.errors import SpecError
from pytest_isolate.kernel import namespaces
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.namespaces import Namespace
from pytest_isolate.kernel.process import ROOT_CAPABILITIES, Capability
from pytest_isolate.kernel.tree import Tree
from pytest_isolate.sandbox import hermetic, reach, steps
from pytest_isolate.sandbox.confinement import Confinement
from pytest_isolate.sandbox.guest import Environ, environ_of, user_of
from pytest_isolate.sandbox.homes import with_given
from pytest_isolate.sandbox.lending import Workspace, libraries, loader_command, place_in
from pytest_isolate.sandbox.roots import root_steps
from pytest_isolate.sandbox.steps import Step
from pytest_isolate.sandbox.written import Layer
from pytest_isolate.spec import (
    NATIVE,
    HostRootfs,
    ImageRootfs,
    Limits,
    Network,
    PathRootfs,
    PrivateNetwork,
    Seccomp,
    Spec,
    User,
    Watch,
)
from pytest_isolate.syscalls._native import lib

if TYPE_CHECKING:
    from pytest_isolate.sandbox.images.store import Image

__all__ = ["DEFAULT_TMP_SIZE_BYTES", "Plan", "make_plan", "seen_as"]

DEFAULT_TMP_SIZE_BYTES = 2**30
#: A container's root carries the mounts, and what is written to none of them.
ROOT_LAYER = Layer("rootfs", "/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is done for one Spec on this machine; nothing in it differs from test to test."""

    spec: Spec
    cwd: str
    namespaces: frozenset[Namespace]
    user_first: bool  #: without privileges everything happens inside the user namespace
    steps: tuple[Step, ...]
    capabilities: frozenset[Capability] | None  #: kept by the test; None: all that it has
    user: tuple[int, int]  #: (uid, gid) that the test sees of itself
    tree: Tree  #: what becomes the root, before anything is mounted in it
    loader: tuple[str, ...] = ()  #: what starts a fresh interpreter, where the kernel cannot by itself
    environ: Environ = ()  #: what another root makes of the caller's environment
    homes: tuple[str, ...] = ()  #: where programs look for what is the user's own
    libraries: tuple[str, ...] = ()  #: directories where extension modules find what the host has for them
    missing: tuple[str, ...] = field(default=())  #: what --isolate-missing=degrade did without
    confinement: Confinement | None = None  #: in the place of namespaces, where there are none

    @property
    def limits(self) -> Limits:
        return self.spec.limits

    @property
    def contained(self) -> bool:
        """Whether an OCI runtime takes the steps; each of them is a part of its config.json."""
        return self.spec.runtime != NATIVE and bool(self.steps)

    @property
    def filtered(self) -> bool:
        """Whether entering installs the filter of system calls; a runtime brings the bundle's."""
        return self.spec.seccomp is Seccomp.DEFAULT and self.spec.runtime == NATIVE

    @property
    def has_init(self) -> bool:
        """Whether the end of PID 1 ends all processes of the sandbox."""
        return Namespace.PID in self.namespaces

    @property
    def born_with(self) -> frozenset[Namespace]:
        """What the init is born into: the cgroup namespace is the test's own affair (its root is the cgroup
        that the test is in), and with privileges the user namespace comes after the mounts."""
        late = {Namespace.CGROUP} if self.user_first else {Namespace.CGROUP, Namespace.USER}
        return self.namespaces - late

    @property
    def watched(self) -> int:
        """Of which calls the kernel tells (native/watch.h). Not in a container: its runtime enters."""
        if self.spec.watch is Watch.OFF or not self.steps or self.contained:
            return 0
        leaving = int(lib.WATCH_NETWORK) if Namespace.NET in self.namespaces else 0
        return leaving | (int(lib.WATCH_FILES) if self.spec.strict else 0)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Where on the scratch tmpfs is what the test writes."""
        found = tuple(layer for step in self.steps if (layer := steps.layer_of(step)) is not None)
        return (*found, ROOT_LAYER) if self.contained else found

    @property
    def scaffold(self) -> frozenset[str]:
        """What is in the layers before a test writes to them, for what is mounted there."""
        paths = [step.target for step in self.steps if hasattr(step, "target")]
        return frozenset(path[:end] for path in paths for end in _ends(path))

    @property
    def placeholders(self) -> frozenset[str]:
        """Empty files in the layers that only carry a mount."""
        binds = (step for step in self.steps if isinstance(step, steps.MountBind | reach.MountHosts))
        return frozenset(
            step.target
            for step in binds
            if isinstance(step, reach.MountHosts) or (step.is_file and step.make_target)
        )

    @property
    def forwarded(self) -> tuple[tuple[int, int], ...]:
        """(port of the host, number of sockets) of what the init hands out for ports, in order."""
        found = (step for step in self.steps if isinstance(step, reach.ListenOn))
        return tuple((step.port.host, len(step.addresses)) for step in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What the steps follow from."""

    spec: Spec
    host: Host
    workspace: Workspace
    image: Image | None
    tree: Tree
    own: frozenset[Namespace]
    user: tuple[int, int] | None  #: whom the caller looks like, if not itself
    cwd: str

    @property
    def user_first(self) -> bool:
        return Namespace.USER in self.own and not self.host.privileged


def make_plan(spec: Spec, host: Host, workspace: Workspace, image: Image | None = None) -> Plan:
    """Decide everything; do nothing. ``image``: what the Spec's rootfs stands for, if that is one."""
    reach.check(spec)
    own = frozenset(Namespace)
    if spec.network is Network.HOST:
        own -= {Namespace.NET}
    if spec.user is User.HOST_ROOT:
        own -= {Namespace.USER}
    tree = _tree(spec, image)
    given = _Given(
        spec=spec,
        host=host,
        workspace=workspace,
        image=image,
        tree=tree,
        own=own,
        user=_user(spec, host, tree, image),
        cwd=_cwd(spec, workspace, tree, image),
    )
    return Plan(
        spec=spec,
        cwd=given.cwd,
        namespaces=own,
        user_first=given.user_first,
        steps=tuple(_steps(given) if spec.runtime == NATIVE else _contained_steps(given)),
        capabilities=_capabilities(given),
        user=given.user or (host.uid, host.gid),
        tree=tree,
        loader=loader_command(workspace),
        environ=(environ := _environ(given)),
        homes=with_given(environ, spec.env.changes),
        libraries=libraries(workspace),
    )


def _ends(path: str) -> Iterator[int]:
    """Of each of its directories, and of itself."""
    yield from (at for at, letter in enumerate(path) if letter == "/" and at)
    yield len(path)


def _tree(spec: Spec, image: Image | None) -> Tree:
    match spec.rootfs:
        case HostRootfs():
            return Tree(("/",))
        case PathRootfs(path) if image is None:
            return Tree((os.path.realpath(path),))
        case PathRootfs() | ImageRootfs():
            assert image is not None
            return Tree(image.layers)


def seen_as(spec: Spec, host: Host, image: Image) -> tuple[int, int]:
    """(uid, gid) that the caller looks like in an image. Raises ImageError if that lacks its own user."""
    return _user(spec, host, _tree(spec, image), image) or (host.uid, host.gid)


def _user(spec: Spec, host: Host, tree: Tree, image: Image | None) -> tuple[int, int] | None:
    """(uid, gid) that the caller's look like, if they do not stay as they are."""
    match spec.user:
        case User.ROOT:
            return 0, 0
        case User.IMAGE if image is not None:
            wanted = user_of(tree, image.config)
            return wanted if wanted != (host.uid, host.gid) else None
        case User.IMAGE | User.CALLER | User.HOST_ROOT:
            return None


def _capabilities(given: _Given) -> frozenset[Capability] | None:
    if given.spec.user is User.HOST_ROOT:
        return None
    is_root = given.host.privileged if given.user is None else given.user[0] == 0
    return ROOT_CAPABILITIES if is_root else frozenset()


def _cwd(spec: Spec, workspace: Workspace, tree: Tree, image: Image | None) -> str:
    if spec.workdir is not None:
        return place_in(tree, spec.workdir)
    if image is not None and image.config.working_dir.strip("/"):
        return place_in(tree, f"/{image.config.working_dir.strip('/')}", is_trusted=False)
    return workspace.cwd


def _environ(given: _Given) -> Environ:
    if isinstance(given.spec.rootfs, HostRootfs):
        return hermetic.environ(given.host, given.workspace) if given.spec.strict else ()
    uid = given.host.uid if given.user is None else given.user[0]
    config = given.image.config if given.image is not None else None
    return environ_of(given.tree, config, uid, given.workspace.commands)


def _steps(given: _Given) -> Iterator[Step]:
    spec, own, image = given.spec, given.own, given.image
    uid_map, gid_map = _id_maps(given, given.user)
    if given.user_first and image is not None and (ids := image.ids) is not None:
        if isinstance(spec.network, PrivateNetwork):
            why = "subordinate ids cannot be mapped in the user namespace of a private network"
            raise SpecError(f"{why}; run as root, or in another root", origin="network")
        yield steps.MapByHelpers(uid_map, gid_map, ids.newuidmap, ids.newgidmap)
    elif given.user_first:
        yield steps.MapSelf(uid_map, gid_map)
    yield steps.MakePrivate()
    yield steps.MakeScratch(spec.limits.tmp_size_bytes or DEFAULT_TMP_SIZE_BYTES)
    yield from _in_root(given)
    if Namespace.USER in own and not given.user_first:
        yield steps.EnterUserNamespace(uid_map, gid_map)
    if Namespace.USER in own:
        yield steps.LimitNamespaces(1 if given.user_first else 0)
    yield steps.HandOut(tuple(n for n in Namespace if n in own and n is not Namespace.CGROUP))
    yield steps.Seal()


def _contained_steps(given: _Given) -> Iterator[Step]:
    """For an OCI runtime, which enters the user namespace first, as root too, and seals by itself."""
    if Namespace.USER in given.own:
        # Without privileges runc wants to be root; the container's init makes the caller of it again.
        seen = (0, 0) if given.user_first else given.user
        yield steps.EnterUserNamespace(*_id_maps(replace(given, image=None), seen))
    yield from _in_root(given)


def _in_root(given: _Given) -> Iterator[Step]:
    root = [*root_steps(given.spec, given.host, given.workspace, given.tree, given.user_first)]
    yield from root
    if given.cwd != given.workspace.cwd:
        yield steps.MakeDirectory(given.cwd)
    if given.spec.readonly:
        written = steps.MountOverlay | reach.MountHosts
        yield from (steps.MakeReadOnly(s.target) for s in root if isinstance(s, written))
    elif given.spec.strict:
        yield from hermetic.read_only(root, given.workspace)
    yield steps.ChangeRoot()
    if Namespace.NET in given.own:
        yield steps.LoopbackUp()
        yield from reach.listeners(given.spec, given.host)
    yield steps.SetHostname(given.spec.hostname)


def _id_maps(given: _Given, user: tuple[int, int] | None) -> tuple[str, str]:
    """``user``: (uid, gid) that the caller's look like, if they do not stay as they are."""
    host, image = given.host, given.image
    if given.user_first and image is not None and image.ids is not None:
        return image.ids.maps(host, user or (host.uid, host.gid))
    if user is not None:
        return namespaces.single_map(user[0], host.uid), namespaces.single_map(user[1], host.gid)
    if given.user_first:
        return namespaces.single_map(host.uid, host.uid), namespaces.single_map(host.gid, host.gid)
    return namespaces.identity_map(host.uid_extents), namespaces.identity_map(host.gid_extents)

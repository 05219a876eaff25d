"""Where this process is in the cgroup hierarchies, and whether it may make cgroups there.

Only /proc/self/cgroup and /proc/self/mountinfo are believed (cgroups(7), proc_pid_mountinfo(5)):
distributions, containers and v1 each mount elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pytest_isolate.errors import UnsupportedError
from pytest_isolate.kernel.cgroups.base import Cgroups, Problem, Version
from pytest_isolate.kernel.cgroups.cures import delegated_scope
from pytest_isolate.kernel.cgroups.files import read
from pytest_isolate.kernel.cgroups.leaf import Leaf, enter_leaf
from pytest_isolate.kernel.cgroups.v1 import CONTROLLERS as V1_CONTROLLERS
from pytest_isolate.kernel.cgroups.v1 import open_v1
from pytest_isolate.kernel.cgroups.v2 import open_v2

__all__ = [
    "Mount",
    "Place",
    "find_directories",
    "find_place",
    "open_cgroups",
    "parse_membership",
    "parse_mounts",
    "prepare_leaf",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One cgroup line of mountinfo."""

    root: str  #: which cgroup is seen at ``point``; starts with /.. if it is outside our cgroup namespace
    point: str
    readonly: bool
    controllers: frozenset[str]  #: of v1, among other words; cgroup2 has the empty name here as below


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The directories of the cgroups that this process is in, as far as it may write there."""

    version: Version
    v1: Mapping[str, str]  #: by controller
    v2: str | None
    problems: Mapping[str, Problem]  #: by v1 controller; "" is cgroup2


def open_cgroups(*, proc: str = "/proc", run_id: str) -> Cgroups:
    """Make this session's directories below the own cgroup; UnsupportedError if that is nowhere allowed.

    Call it before forking helpers: on v2 this process must be alone in its cgroup (see ``leaf.py``).
    """
    place = find_place(proc)
    has_swap = len((read(f"{proc}/swaps") or "").splitlines()) > 1  # proc_swaps(5): a heading first
    try:
        if place.v1:
            return open_v1(
                place.v1,
                place.problems,
                version=place.version,
                run_id=run_id,
                has_swap=has_swap,
                devices=next(iter(find_directories("devices", proc)), None),
            )
        if place.v2 is not None:
            return open_v2(place.v2, place.problems, run_id=run_id, has_swap=has_swap)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise UnsupportedError("cgroup", reason, delegated_scope()) from error
    reasons = dict.fromkeys(problem.reason for problem in place.problems.values())
    reason = ", ".join(reasons) or "no cgroup file system is mounted"
    raise UnsupportedError("cgroup", reason, delegated_scope())


def prepare_leaf(*, proc: str = "/proc") -> Callable[[], None]:
    """For a process that will not run tests itself but start those that do (the xdist controller).

    On v2 it moves this process to the leaf, if it is alone, so that its children are born there and
    find room for controllers.  Cheap, does nothing the second time, and never fails: the workers'
    ``open_cgroups`` says what is wrong.  The result moves it back; call it when the workers are gone.
    """
    place = find_place(proc)
    if place.v1 or place.v2 is None:
        return lambda: None
    entered = enter_leaf(place.v2)
    return entered.leave if isinstance(entered, Leaf) else lambda: None


def find_place(proc: str = "/proc") -> Place:
    """Read where we are, and check each place with access(2)."""
    membership = parse_membership(read(f"{proc}/self/cgroup") or "")
    mounts = parse_mounts(read(f"{proc}/self/mountinfo") or "")
    directories: dict[str, str] = {}
    problems: dict[str, Problem] = {}
    for controller in (*V1_CONTROLLERS, ""):
        if controller not in membership:
            continue
        candidates = [mount for mount in mounts if controller in mount.controllers]
        found = _own_directory(candidates, membership[controller])
        if isinstance(found, Problem):
            problems[controller] = found
        else:
            directories[controller] = found
    v2 = directories.pop("", None)
    unified = any("" in mount.controllers for mount in mounts)
    version: Version = "v2" if not directories else "hybrid" if unified else "v1"
    return Place(version=version, v1=directories, v2=v2, problems=problems)


def find_directories(controller: str, proc: str = "/proc") -> list[str]:
    """The directory of the own cgroup and of those above it, as far as a mount shows them.

    ``controller``: of v1, or "" for cgroup2.
    """
    path = parse_membership(read(f"{proc}/self/cgroup") or "").get(controller)
    for mount in parse_mounts(read(f"{proc}/self/mountinfo") or ""):
        below = _relative(path, mount.root) if path is not None and controller in mount.controllers else None
        if below is not None:
            parts = below.strip("/").split("/") if below else []
            point = mount.point.rstrip("/")
            return ["/".join([point, *parts[:count]]) for count in range(len(parts), -1, -1)]
    return []


def parse_membership(text: str) -> dict[str, str]:
    """/proc/self/cgroup: our path by v1 controller, and by "" for cgroup2."""
    paths = {}
    for line in text.splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if hierarchy != "0" else [""]:
            paths[controller] = path
    return paths


def parse_mounts(text: str) -> list[Mount]:
    """/proc/self/mountinfo: its cgroup file systems, those that a later mount hides left out."""
    mounts: dict[str, Mount | None] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        _, _, _, root, point, options, *_ = left.split(" ")
        fstype, _, super_options = right.split(" ", 2)
        point = _unescape(point)
        mounts[point] = None
        if fstype in ("cgroup", "cgroup2"):
            mounts[point] = Mount(
                root=_unescape(root),
                point=point,
                readonly="ro" in options.split(",") or "ro" in super_options.split(","),
                controllers=frozenset(super_options.split(",") if fstype == "cgroup" else [""]),
            )
    return [mount for mount in mounts.values() if mount is not None]


def _own_directory(mounts: list[Mount], path: str) -> str | Problem:
    """Where the cgroup ``path`` can be written to, over all mounts of its hierarchy."""
    problem = Problem(f"no mount shows cgroup {path}", delegated_scope())
    for mount in mounts:
        below = _relative(path, mount.root)
        directory = mount.point.rstrip("/") + (below or "")
        if below is None:
            reason = f"{mount.point} shows {mount.root}, and this process is in {path}"
        elif mount.readonly:
            reason = f"{mount.point} is mounted read-only"
        elif not os.access(directory, os.W_OK, effective_ids=True):
            reason = f"{directory} is not writable for uid {os.geteuid()}"
        else:
            return directory
        problem = Problem(reason, delegated_scope())
    return problem


def _relative(path: str, root: str) -> str | None:
    """``path`` below ``root``, "" if it is the same; None if it is elsewhere.

    A path that starts with /.. is outside our cgroup namespace, and not to be found.
    """
    if path.startswith("/..") or root.startswith("/.."):
        return None
    if root == "/":
        return path.rstrip("/")
    return path.removeprefix(root) if f"{path}/".startswith(f"{root}/") else None


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)

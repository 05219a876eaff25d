"""What ``--isolate-strict`` changes of the host's tree: the home is empty, the project is read-only.

The home is covered by an empty directory, under its own name, so that programs which ask getpwuid(3) find
nothing there either. What the run itself needs of it is bound back: the project, Python, sys.path.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Iterator
from typing import Protocol

from pytest_isolate.errors import SpecError, UnsupportedError
from pytest_isolate.kernel.host import Host
from pytest_isolate.sandbox import steps
from pytest_isolate.sandbox.guest import Environ
from pytest_isolate.sandbox.lending import Workspace, is_below
from pytest_isolate.sandbox.steps import Step
from pytest_isolate.spec import Spec

__all__ = ["cover", "environ", "find_homes", "read_only"]

#: Where the caller's own is not to be had: it is /, is not there, or is the project.
SPARE_HOME = "/run/pytest-isolate/home"
WILDCARDS = frozenset("*?[")

MOST_LINKS = 40  # MAXSYMLINKS of linux/namei.h: more are a loop

Placed = steps.MountOverlay | steps.MountBind | steps.MountScratch | steps.MakeDirectory | steps.MakeSymlink


class Overlays(Protocol):
    """Makes overlay steps, as ``roots.py`` does."""

    def overlay(self, source: str, *, make_target: bool = False) -> steps.MountOverlay: ...

    def can_overlay(self, path: str) -> bool: ...


def cover(spec: Spec, host: Host, workspace: Workspace, layers: Overlays) -> Iterator[Placed]:
    """Homes and projects. Raises SpecError and UnsupportedError for what cannot be both."""
    homes = find_homes(host, workspace)
    for home in homes:
        yield steps.MakeDirectory(home)
        yield steps.MountScratch(home, 0o755)
    if environ(host, workspace):
        yield steps.MakeDirectory(SPARE_HOME)
        yield steps.MountScratch(SPARE_HOME, 0o755)
    projects = _projects(workspace)
    back = sorted({os.path.realpath(path) for path in workspace.needed})
    lent: list[str] = []
    for path in back:
        is_in_home = is_below(path, homes) and path not in homes
        if is_in_home and not is_below(path, [*lent, *projects]) and host.exists(path):
            lent.append(path)
    for path in lent:
        is_file = not host.is_directory(path)
        yield steps.MountBind(path, path, readonly=True, recursive=True, is_file=is_file, make_target=True)
    yield from _links(workspace, homes, [*lent, *projects])
    for project in projects:
        yield from _project(project, spec, host, workspace, layers)


def find_homes(host: Host, workspace: Workspace) -> list[str]:
    """Directories to be covered, the outermost only. Raises UnsupportedError."""
    projects = _projects(workspace)
    found: list[str] = []
    for path in (_of_user(host), os.path.realpath(os.path.expanduser("~"))):
        if path == "/" or not host.is_directory(path) or is_below(path, found):
            continue
        around = [project for project in projects if is_below(path, [project])]
        if around and path == _of_user(host):
            raise UnsupportedError(
                "an empty home",
                f"the project {around[0]} holds the home directory {path}",
                f"start pytest in a directory below {path}",
            )
        if not around:
            found = [path, *(home for home in found if not is_below(home, [path]))]
    return found


def environ(host: Host, workspace: Workspace) -> Environ:
    """Another HOME, where the caller's cannot be covered."""
    home = os.path.realpath(os.path.expanduser("~"))
    return () if is_below(home, find_homes(host, workspace)) else (("HOME", SPARE_HOME),)


def read_only(root: Iterable[Step], workspace: Workspace) -> Iterator[steps.MakeReadOnly]:
    """When all that is mounted below has its place."""
    projects = _projects(workspace)
    for step in root:
        if isinstance(step, steps.MountOverlay) and step.target in projects:
            yield steps.MakeReadOnly(step.target)


def _of_user(host: Host) -> str:
    """The home of the user database, "/" if that does not know the caller."""
    try:
        return os.path.realpath(pwd.getpwuid(host.uid).pw_dir)
    except KeyError:
        return "/"


def _projects(workspace: Workspace) -> list[str]:
    found: list[str] = []
    for path in sorted({os.path.realpath(path) for path in workspace.project}):
        if path != "/" and not is_below(path, found):
            found.append(path)
    return found


def _project(
    project: str, spec: Spec, host: Host, workspace: Workspace, layers: Overlays
) -> Iterator[Placed]:
    declared = [*_artifact_places(project, spec)]
    for place in map(os.path.realpath, workspace.tools):
        is_possible = host.is_directory(place) or layers.can_overlay(project)
        if is_possible and place.startswith(project + "/") and not is_below(place, declared):
            declared.append(place)
    targets = [bind.target for bind in spec.binds if is_below(bind.target, [project])]
    if layers.can_overlay(project) and not all(map(host.exists, [*declared, *targets])):
        # What is missing is made in the layer, before that is read-only.
        yield layers.overlay(project, make_target=True)
    else:
        yield steps.MountBind(project, project, readonly=True, recursive=True, make_target=True)
    for place in declared:
        if host.is_directory(place) and layers.can_overlay(place):
            yield layers.overlay(place)
        else:
            yield steps.MakeDirectory(place)
            yield steps.MountScratch(place, 0o755)


def _artifact_places(project: str, spec: Spec) -> Iterator[str]:
    """Directories of the project where declared artifacts are made: writable. Raises SpecError."""
    found: list[str] = []
    for glob in sorted(spec.artifacts):
        *directories, _ = glob.split("/")
        fixed = next((n for n, part in enumerate(directories) if WILDCARDS & {*part}), len(directories))
        place = os.path.realpath("/".join(directories[:fixed]) or "/")
        if is_below(project, [place]):
            raise SpecError(
                f"{glob} would make the whole project writable; name a directory, as in out/*.png",
                origin="artifacts",
            )
        if is_below(place, [project]) and not is_below(place, found):
            found.append(place)
    yield from found


def _links(workspace: Workspace, homes: list[str], lent: list[str]) -> Iterator[Placed]:
    """Links of a home by which the run names what it needs, as in ~/venv that leads to /opt/venv."""
    found: dict[str, str] = {}
    for path in workspace.needed:
        at, rest = "/", [part for part in path.split("/") if part]
        links = 0
        while rest and links < MOST_LINKS:
            place = os.path.join(at, rest.pop(0))
            if os.path.islink(place):
                links += 1
                points_to = os.readlink(place)
                if is_below(place, homes) and not is_below(place, lent):
                    found[place] = points_to
                target = os.path.normpath(os.path.join(at, points_to))
                at, rest = "/", [*(part for part in target.split("/") if part), *rest]
            else:
                at = place
    for place, points_to in sorted(found.items()):
        yield steps.MakeDirectory(os.path.dirname(place))
        yield steps.MakeSymlink(place, points_to)

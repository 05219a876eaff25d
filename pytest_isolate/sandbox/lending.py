"""What the host lends to a root that is not its own: Python, the project, and libraries for both."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pytest_isolate.errors import ImageError
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.loader import LAUNCHER, Loader
from pytest_isolate.kernel.tree import Tree
from pytest_isolate.sandbox.steps import MountBind
from pytest_isolate.units import quoted

__all__ = ["Workspace", "is_below", "lend", "libraries", "loader_command", "place_in"]

#: Where the interpreter and its libraries are (native/interpreter.c).
LENT = "/run/pytest-isolate"
LIBRARIES = f"{LENT}/libraries"
#: Of the host's C library, which has it as files: the locale that a root gets without asking (guest.py).
LOCALE = "/usr/lib/locale/C.utf8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Host paths that the test run needs, whatever the root is."""

    cwd: str
    project: tuple[str, ...]  #: rootdir and what else holds tests: seen, and written to in vain
    interpreter: tuple[str, ...]  #: Python, its library, sys.path
    writable: tuple[str, ...]  #: tmp_path's base directory: the one place that is really written
    commands: str = ""  #: where the interpreter and its environment have their commands
    tools: tuple[
        str, ...
    ] = ()  #: where test tools keep what they know: written to in vain, in strict mode too
    loader: Loader | None = None  #: of the interpreter, for a root that is not the host's

    @property
    def needed(self) -> list[str]:
        return [*self.project, *self.interpreter, self.cwd]


def lend(tree: Tree, host: Host, workspace: Workspace) -> Iterator[MountBind]:
    """Read-only, each at its own path, but for what the root may have its own of."""
    found: list[str] = []
    for path in sorted(set(workspace.needed)):  # the outermost only
        if path != "/" and host.exists(path) and not is_below(path, found):
            found.append(path)
    loader = workspace.loader
    if loader is not None and loader.has_argv0:
        yield from _launched(tree, host, loader, found)
        found = [path for path in found if not _leads_to(path, loader.interpreter)]
    yield from (_bind(tree, host, path) for path in found)
    yield from (_bind(tree, host, source, target) for source, target in _libraries(workspace).items())
    if host.is_directory(LOCALE) and tree.find(LOCALE) is None:
        yield _bind(tree, host, LOCALE)


def libraries(workspace: Workspace) -> tuple[str, ...]:
    """Where the root has the libraries of the host's interpreter."""
    return tuple(_libraries(workspace).values())


def loader_command(workspace: Workspace) -> tuple[str, ...]:
    """ld.so(8) as a program, told where the libraries are; nothing where a launcher does that."""
    places = _libraries(workspace)
    if not places or workspace.loader is None or workspace.loader.has_argv0:
        return ()
    directory, name = os.path.split(workspace.loader.path)
    return (f"{places[directory]}/{name}", "--library-path", ":".join(places.values()))


def is_below(path: str, directories: Iterable[str]) -> bool:
    return any(path == d or path.startswith(d + "/") for d in directories)


def place_in(tree: Tree, path: str, *, is_trusted: bool = True) -> str:
    """Where in the root ``path`` is. Raises ImageError if the root leads it to what the kernel mounts there:
    links such as /proc/self/root and /proc/self/fd/9 go anywhere. ``is_trusted``: who named ``path`` may name
    such a place."""
    place = tree.resolve(path)
    if is_trusted and place == os.path.normpath(path):
        return place
    if is_below(place, (tree.resolve("/proc"), tree.resolve("/sys"))):
        raise ImageError(f"the root has {quoted(path)} at {quoted(place)}, which is the kernel's")
    return place


def _libraries(workspace: Workspace) -> dict[str, str]:
    """Host directories and where the root has them. Not at their own places: those are of the root's own
    programs."""
    directories = workspace.loader.directories if workspace.loader is not None else ()
    return {path: f"{LIBRARIES}/{i}" for i, path in enumerate(directories)}


def _launched(tree: Tree, host: Host, loader: Loader, lent: list[str]) -> Iterator[MountBind]:
    """What lets ``subprocess.run([sys.executable])`` start the host's interpreter, whatever C library the
    root has: a launcher in its place, and in that of links to it."""
    yield _bind(tree, host, loader.path, f"{LENT}/loader")
    yield _bind(tree, host, loader.interpreter, f"{LENT}/interpreter")
    # The root may have such a link too: two of them are one place then.
    places = {place_in(tree, path) for path in lent if _leads_to(path, loader.interpreter)}
    for place in sorted(places):
        yield MountBind(LAUNCHER, place, readonly=True, is_file=True, make_target=True)
    place = place_in(tree, loader.interpreter)
    if place not in places:  # it is there already, with a directory
        yield MountBind(LAUNCHER, place, readonly=True, is_file=True)


def _leads_to(path: str, target: str) -> bool:
    return os.path.realpath(path) == target


def _bind(tree: Tree, host: Host, source: str, target: str | None = None) -> MountBind:
    return MountBind(
        os.path.realpath(source),
        place_in(tree, target or source),
        readonly=True,
        recursive=True,
        is_file=not host.is_directory(source),
        make_target=True,
    )

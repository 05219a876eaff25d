"""Directories of a bundle, and the steps that make room for an OCI runtime.

A bundle is a directory with config.json, an empty root file system that carries the mounts (``rootfs``), and
the layers of all that is written (``upper``, ``work`` and ``scratch``, as :class:`Layer` names them).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_isolate import units
from pytest_isolate.kernel import mounts
from pytest_isolate.syscalls.program import Program

if TYPE_CHECKING:
    from pytest_isolate.sandbox.steps import Step

__all__ = [
    "BUNDLE",
    "LAYERS",
    "STATE",
    "Directory",
    "File",
    "LendCgroups",
    "Link",
    "Stage",
    "apply",
    "describe",
    "layout",
    "make",
]

HOSTS_FILE = "hosts"  #: names of hosts, outside of all layers: it is nothing that the test wrote
#: Below the stage.
BUNDLE, LAYERS, STATE, CGROUPS = "bundle", "layers", "state", "cgroups"
BUNDLE_BYTES = 2**24  # config.json and what the runtime notes: some 100 KiB
CGROUP_ROOT = "/sys/fs/cgroup"  # where runtimes look for it


@dataclass(frozen=True, slots=True)
class Directory:
    path: str
    mode: int = 0o755
    owner: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Link:
    path: str
    points_to: str


@dataclass(frozen=True, slots=True)
class File:
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A place at ``path`` for a bundle and for what its runtime notes, gone with the namespaces; and a /proc
    that shows the processes of the own pid namespace."""

    path: str
    size_bytes: int
    entries: tuple[Directory | Link | File, ...]


@dataclass(frozen=True, slots=True)
class LendCgroups:
    """Show a runtime no cgroups but pytest's: directories by name in /sys/fs/cgroup, "" for all of it."""

    stage: str
    directories: tuple[tuple[str, str], ...]


def layout(steps: Iterable[Step]) -> Iterator[Directory | Link | File]:
    """What must be in a bundle before a runtime mounts anything."""
    from pytest_isolate.sandbox.reach import MountHosts
    from pytest_isolate.sandbox.steps import (
        MakeDirectory,
        MakeSymlink,
        MountBind,
        MountOverlay,
        MountScratch,
        layer_of,
    )

    yield from map(Directory, ("rootfs", "upper", "work", "scratch"))
    places = {"": "rootfs"}  # where a path inside is made; None: the runtime makes it, on the mount
    for step in steps:
        layer = layer_of(step)
        match step:
            case MountOverlay(mode=mode, owner=owner):
                assert layer is not None
                yield Directory(layer.directory, mode, owner)
                yield Directory(layer.directory.replace("upper/", "work/", 1))
                places[layer.target.rstrip("/")] = ""
            case MountScratch(mode=mode):
                assert layer is not None
                yield Directory(layer.directory, mode)
                places[layer.target] = layer.directory
            case MountBind(target=target):
                places[target] = ""
            case MountHosts(text=text):
                yield File(HOSTS_FILE, text)
            case MakeDirectory(target, mode) if (place := _place(target, places)) is not None:
                yield from (Directory(parent) for parent in _parents(place))
                yield Directory(place, mode)
            case MakeSymlink(target, points_to) if (place := _place(target, places)) is not None:
                yield Link(place, points_to)


def _place(path: str, places: dict[str, str]) -> str | None:
    covering = max((p for p in places if path == p or path.startswith(p + "/")), key=len)
    return places[covering] + path[len(covering) :] if places[covering] else None


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(2, len(parts))]


def apply(step: Stage | LendCgroups, program: Program) -> None:
    match step:
        case Stage():
            _apply_stage(step, program)
        case LendCgroups(stage, directories):
            for name, directory in directories:
                place = f"{stage}/{CGROUPS}/{name}".rstrip("/")
                mounts.make_directory(program, place)
                mounts.bind(program, directory, place)
            # runc takes all hierarchies that mountinfo has. Without privileges they cannot be unmounted, and
            # there are none of v1 to be had.
            program.call("umount2", CGROUP_ROOT, mounts.DETACH, tolerated=errno.EINVAL)
            mounts.bind(program, f"{stage}/{CGROUPS}", CGROUP_ROOT, recursive=True)


def describe(step: Stage | LendCgroups) -> str:
    match step:
        case Stage(size_bytes=size_bytes):
            size = units.format_size(size_bytes)
            return f"mount a scratch tmpfs of {size} for a bundle and for all that is written"
        case LendCgroups():
            return "hide all cgroups from the runtime but pytest's own"


def _apply_stage(step: Stage, program: Program) -> None:
    stage = step.path
    mounts.mount(program, "tmpfs", stage, data=f"size={BUNDLE_BYTES},mode=755")
    for name in (BUNDLE, LAYERS, STATE, CGROUPS):
        mounts.make_directory(program, f"{stage}/{name}")
    mounts.mount(program, "tmpfs", f"{stage}/{LAYERS}", data=f"size={step.size_bytes},mode=755")
    for entry in step.entries:
        path = f"{stage}/{LAYERS}/{entry.path}"
        match entry:
            case Link(points_to=points_to):
                mounts.symlink(program, points_to, path)
            case File(text=text):
                mounts.make_file(program, path)
                program.write_file(path, text)
            case Directory(mode=mode, owner=owner):
                mounts.make_directory(program, path, mode=mode)
                if owner is not None:
                    program.call("fchownat", mounts.AT_FDCWD, path, *owner, 0)
    program.label = "mount a fresh /proc for the runtime"
    mounts.mount(program, "proc", "/proc", flags=mounts.NOSUID_NODEV | mounts.NOEXEC)
    program.call("openat", mounts.AT_FDCWD, f"{stage}/{LAYERS}", mounts.PATH_ONLY, 0, export=True)


def make(directory: str, entries: Iterable[Directory | Link | File]) -> None:
    """The same by hand, in a directory that is there. Raises OSError."""
    for entry in entries:
        path = f"{directory}/{entry.path}"
        match entry:
            case Link(points_to=points_to):
                os.symlink(points_to, path)
            case File(text=text):
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
            case Directory(mode=mode, owner=owner):
                if os.path.isdir(path):
                    continue
                os.mkdir(path)
                if owner is not None:
                    os.chown(path, *owner)
                os.chmod(path, mode)

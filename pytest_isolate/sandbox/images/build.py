"""Recipes become images. Nothing is installed on the host: packages go into a work directory of the store."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pytest_isolate.errors import ImageError
from pytest_isolate.kernel.loader import requested_loader
from pytest_isolate.sandbox.images.archives import add_manifest
from pytest_isolate.sandbox.images.blobs import digest_of
from pytest_isolate.sandbox.images.contents import (
    Contents,
    add_file,
    clamped,
    difference,
    directory,
    opened,
    symlink,
    write_tar,
)
from pytest_isolate.sandbox.images.manifest import OCI_LAYER, Descriptor, own_platform
from pytest_isolate.sandbox.images.recipe import Busybox, Debian, Recipe
from pytest_isolate.sandbox.images.store import Store, Stored

__all__ = ["Say", "build", "build_missing"]

#: Told what is being done, for a person who waits.
Say = Callable[[str], None]

DIRECTORIES = ("bin", "etc", "home", "proc", "run", "sbin", "sys", "usr/bin", "usr/sbin", "var/log", "dev")
#: Of mmdebstrap: a merged /usr from the start, and not by the package usrmerge, which brings all of Perl.
MERGED_USR = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"
#: mmdebstrap copies them from the host, or writes the host's mirror into them.
OF_THE_HOST = ("etc/hostname", "etc/resolv.conf", "etc/apt/sources.list")


def build(recipe: Recipe, store: Store, name: str, say: Say) -> Stored:
    """Make the image and name it so in the store; those that it builds on too, under the names of their
    recipes, if they are missing. Raises ImageError."""
    base = None if recipe.base is None else build_missing(recipe.base, store, recipe.base.name, say)
    say(f"building {recipe.name}")
    with store.work_directory() as work, contextlib.ExitStack() as stack:
        below: Contents = {}
        if base is not None:
            blobs = store.manifest(base.manifest.digest).layers
            paths = [store.blobs.path(blob.digest) for blob in blobs]
            below = stack.enter_context(opened(paths, _made(work / "below")))
        whole, version = stack.enter_context(_whole(recipe, _made(work / "whole"), say))
        for path, text in recipe.files:
            add_file(whole, path.strip("/"), text.encode())
        layer = _add_layer(difference(below, clamped(whole, recipe.source_date_epoch)), store, work)
    return store.add(name, _add_image(recipe, version, store, base, layer), stamp=recipe.state)


def build_missing(recipe: Recipe, store: Store, name: str, say: Say) -> Stored:
    """Only if the store has none of this name that was made by the recipe as it is now."""
    found = store.find(name, own_platform())
    if found is not None and found.stamp == recipe.state:
        return found
    return build(recipe, store, name, say)


@contextlib.contextmanager
def _whole(recipe: Recipe, work: Path, say: Say) -> Iterator[tuple[Contents, str]]:
    """All of the root, and in words the version of what it is made of."""
    match recipe.builder:
        case Busybox(package):
            program, version = _busybox(package, work)
            yield _root_of(program), version
        case Debian() as debian:
            archive = work / "root.tar"
            say(f"mmdebstrap {debian.suite} {' '.join(debian.packages)}".rstrip())
            _mmdebstrap(debian, recipe.source_date_epoch, archive)
            with opened([archive], work) as contents:
                yield _without_host(contents), _point_release(contents) or debian.suite


# ---- busybox ------------------------------------------------------------------------------------


def _busybox(package: str, work: Path) -> tuple[Path, str]:
    """(the program, the package's version): the installed one, or one that is only downloaded."""
    with contextlib.suppress(ImageError):  # it is not installed
        program = _program(_run(["dpkg-query", "--listfiles", package]).splitlines())
        if program is not None:
            return program, _run(["dpkg-query", "--show", "--showformat=${Version}", package])
    _run(["apt-get", "-qq", "download", package], cwd=work)
    archives = [*work.glob("*.deb")]
    if len(archives) != 1:
        raise ImageError(f"apt-get download {package} has brought {len(archives)} packages")
    _run(["dpkg-deb", "--extract", os.fspath(archives[0]), os.fspath(work / "files")])
    program = _program([os.fspath(path) for path in (work / "files").rglob("busybox")])
    if program is None:
        raise ImageError(f"the package {package} has no static busybox; busybox-static has")
    return program, _run(["dpkg-deb", "--field", os.fspath(archives[0]), "Version"]).strip()


def _program(paths: Sequence[str]) -> Path | None:
    """The static one: another needs libraries, which the root will not have."""
    for path in paths:
        if path.endswith("/bin/busybox") and os.path.isfile(path) and requested_loader(path) is None:
            return Path(path)
    return None


def _root_of(program: Path) -> Contents:
    contents: Contents = {"": directory(), "root": directory(0o700), "var": directory(), "usr": directory()}
    contents |= {path: directory() for path in DIRECTORIES}
    contents |= {path: directory(0o1777) for path in ("tmp", "var/tmp")}
    add_file(contents, "bin/busybox", program.read_bytes(), 0o755)
    for path in _run([os.fspath(program), "--list-full"]).splitlines():
        if path not in contents and "/" in path:  # but linuxrc, which is for the boot
            contents[path] = symlink("/bin/busybox")
    return contents


# ---- Debian -------------------------------------------------------------------------------------


def _mmdebstrap(debian: Debian, source_date_epoch: int, archive: Path) -> None:
    command = ["mmdebstrap", "--format=tar", "--skip=output/dev", f"--variant={debian.variant}"]
    if os.path.isdir(MERGED_USR):
        command.append(f"--hook-dir={MERGED_USR}")
    command += [f"--include={package}" for package in debian.packages]
    command.append("--dpkgopt=force-unsafe-io")  # no fsync(2) of each file: a torn root is thrown away
    # dpkg lets the last one decide that matches.
    command += [f"--dpkgopt=path-exclude={glob}" for glob in debian.path_exclude]
    command += [f"--dpkgopt=path-include={glob}" for glob in debian.path_include]
    command += [debian.suite, "-", *_mirrors(debian.suite)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(source_date_epoch), "LC_ALL": "C.UTF-8"}
    cure = "" if os.geteuid() == 0 else _without_root()
    _run(command, _apart(), package="mmdebstrap", environment=environment, output=archive, cure=cure)


def _apart() -> list[str]:
    """Ahead of mmdebstrap, which mounts as root: nobody else sees its mounts, and they end as it does."""
    command = ["unshare", "--mount"]
    if os.geteuid() != 0 or not _is_there("mmdebstrap") or not _is_there("unshare"):
        return []
    tried = subprocess.run([*command, "true"], stderr=subprocess.DEVNULL, check=False)
    return command if tried.returncode == 0 else []


def _without_root() -> str:
    user = os.environ.get("USER") or os.geteuid()
    return (
        "without root it needs apt-get install fakechroot fakeroot, or uidmap and a range of ids for you: "
        f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
    )


def _mirrors(suite: str) -> list[str]:
    """Those that the host has this suite from. None if it has it from nowhere: mmdebstrap chooses then."""
    if not _is_there("apt-get"):
        return []
    form = "$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)"
    known = _run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"]).splitlines()
    releases = (suite, f"{suite}-updates", f"{suite}-security")
    found = [line.split("\t") for line in dict.fromkeys(known)]
    return [f"deb {uri} {release} {part}" for uri, release, part in found if release in releases]


def _without_host(contents: Contents) -> Contents:
    lists = "etc/apt/sources.list.d/"
    return {
        path: entry
        for path, entry in contents.items()
        if path not in OF_THE_HOST and not path.startswith(lists) and not path.startswith("dev/")
    }


def _point_release(contents: Contents) -> str:
    """As in 12.11."""
    found = contents.get("etc/debian_version")
    if found is None:
        return ""
    with found.open() as file:
        return file.read(100).decode(errors="replace").strip()


# ---- documents ----------------------------------------------------------------------------------


def _add_layer(contents: Contents, store: Store, work: Path) -> Descriptor:
    """Without compression: what zlib makes of the same differs from one build of Python to another."""
    path = work / "layer.tar"
    with open(path, "wb") as file:
        write_tar(contents, file)
    size_bytes, digest = digest_of(path)
    layer = Descriptor(OCI_LAYER, digest, size_bytes)
    with store.blobs.being_written(digest) as partial:
        if partial is not None:
            os.rename(path, partial)
            store.blobs.finish(partial, layer)
    return layer


def _add_image(
    recipe: Recipe, version: str, store: Store, base: Stored | None, layer: Descriptor
) -> Descriptor:
    manifest = None if base is None else store.manifest(base.manifest.digest)
    labels = {"org.opencontainers.image.title": recipe.name, "org.opencontainers.image.version": version}
    runtime = {"Env": recipe.env, "User": recipe.user, "WorkingDir": recipe.workdir, "Labels": labels}
    config = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(recipe.source_date_epoch)),
        **own_platform().to_json(),
        "config": {key: value for key, value in runtime.items() if value},
        "rootfs": {
            "type": "layers",
            "diff_ids": [*(store.config(manifest).diff_ids if manifest else ()), layer.digest],
        },
        "history": [{"created_by": f"pytest-isolate image build {name}"} for name in _chain(recipe)],
    }
    return add_manifest(store, json.dumps(config).encode(), [*(manifest.layers if manifest else ()), layer])


def _chain(recipe: Recipe) -> list[str]:
    """The names of the recipes that made the layers, the lowest first."""
    return [*(_chain(recipe.base) if recipe.base is not None else ()), recipe.name]


# ---- programs -----------------------------------------------------------------------------------


def _run(
    command: Sequence[str],
    prefix: Sequence[str] = (),
    *,
    package: str = "",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    output: Path | None = None,
    cure: str = "",
) -> str:
    """What a program prints. Raises ImageError, which says what to install or ends in ``cure``."""
    with contextlib.ExitStack() as stack:
        out = subprocess.PIPE if output is None else stack.enter_context(open(output, "wb"))
        try:
            ran = subprocess.run(
                [*prefix, *command],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                check=False,
            )
        except FileNotFoundError:
            get = f"run: apt-get install {package}" if package else "build the image on Debian or Ubuntu"
            raise ImageError(f"{command[0]} is not there; {get}") from None
        except OSError as error:
            raise ImageError(f"cannot run {command[0]}: {error.strerror}") from None
    if ran.returncode != 0:
        said = ran.stderr.decode(errors="replace").strip().splitlines()
        why = next((line for line in said if line.startswith("E: ")), said[-1] if said else "it says nothing")
        raise ImageError(
            f"{command[0]} failed with status {ran.returncode}: {why.strip()}{cure and '; '}{cure}"
        )
    return (ran.stdout or b"").decode(errors="replace")


def _is_there(program: str) -> bool:
    return shutil.which(program) is not None


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory

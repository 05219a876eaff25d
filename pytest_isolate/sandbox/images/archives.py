"""Images from files: a root file system's tar archive, an OCI image layout, what ``docker save`` writes."""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_isolate.errors import ImageError
from pytest_isolate.kernel.in_root import open_in_root
from pytest_isolate.sandbox.images.blobs import CHUNK_BYTES, digest_of
from pytest_isolate.sandbox.images.compression import decompressed, suffix_of
from pytest_isolate.sandbox.images.manifest import (
    MAX_DOCUMENT_BYTES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    load_json,
    parse_document,
)
from pytest_isolate.sandbox.images.members import TAR_ERRORS, read_members, reading_tar
from pytest_isolate.sandbox.images.store import Store, Stored
from pytest_isolate.sandbox.images.unpack import Unpacked, unpack
from pytest_isolate.units import quoted

__all__ = ["add_manifest", "import_image", "is_layout"]

#: First parts of paths in archives of images; a system's root has others.
_IMAGE_NAMES = ("blobs", "index.json", "manifest.json", "oci-layout", "repositories")


def is_layout(path: Path) -> bool:
    return (path / "oci-layout").is_file()


def import_image(path: Path, store: Store, platform: Platform, *, name: str = "", wanted: str = "") -> Stored:
    """Bring what is at ``path`` into the store, unless it is there as it is now.

    ``name``: of the image in the store (default: the path). ``wanted``: the one of several in the file,
    by the name or tag that it has there. Raises ImageError.
    """
    name = name or os.fspath(path) + (f"#{wanted}" if wanted else "")
    stamp = _stamp(path)
    known = store.find(name, platform)
    if known is not None and known.stamp == stamp and store.has_all(known):
        return known
    if path.is_dir():
        descriptor = _from_layout(path, path, store, platform, wanted)
    elif _is_root(path):
        descriptor = _from_root(path, store, platform)
    else:
        with store.work_directory() as work:
            inside = work / "archive"
            inside.mkdir()
            unpack(path, inside)
            if is_layout(inside):
                descriptor = _from_layout(inside, path, store, platform, wanted)
            else:
                descriptor = _from_docker(inside, path, store, wanted)
    return store.add(name, descriptor, stamp=stamp)


def _stamp(path: Path) -> str:
    """Tells one state of a file from another."""
    if path.is_dir() and not is_layout(path) and not (path / "index.json").exists():
        raise ImageError(
            f'{path} is a directory, and no OCI layout; rootfs="{path}" has it as the root as it is; '
            f"or pack it: tar -C {shlex.quote(os.fspath(path))} -cf root.tar ."
        )
    try:
        status = (path / "index.json" if path.is_dir() else path).stat()
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):  # a FIFO would be waited for
        raise ImageError(f"cannot read {path}: it is no file")
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


def _is_root(path: Path) -> bool:
    """Whether an archive holds a root file system, and no image. Mostly its first entry tells."""
    last = ""
    try:
        with decompressed(path) as plain:
            for member, _ in read_members(plain, Unpacked()):
                last = member.name.lstrip("./")
                first, _, rest = last.partition("/")
                if first and first not in _IMAGE_NAMES and not _is_of_docker(first, rest):
                    return True
    except TAR_ERRORS as error:
        raise ImageError(f"{path} is no tar archive of a root file system or an image: {error}") from None
    if not last:
        raise ImageError(f"{path} is an archive of nothing")
    return False


def _is_of_docker(first: str, rest: str) -> bool:
    """``<id>/layer.tar``, ``<digest>.json``, ``<digest>.tar`` of the older forms."""
    stem = first.partition(".")[0]
    is_id = len(stem) == 64 and set(stem) <= set("0123456789abcdef")
    return is_id and rest in ("", "VERSION", "json", "layer.tar")


# ---- a root file system ---------------------------------------------------------------------------------


def _from_root(path: Path, store: Store, platform: Platform) -> Descriptor:
    size_bytes, digest = digest_of(path)
    layer = Descriptor(OCI_LAYER + suffix_of(path), digest, size_bytes)
    with open(path, "rb") as file:
        store.blobs.add(_chunks(file.fileno()), layer)
    members = Unpacked()
    with reading_tar(), decompressed(store.blobs.path(digest)) as plain:
        for _ in read_members(plain, members):
            pass
    config = {**platform.to_json(), "rootfs": {"type": "layers", "diff_ids": [members.diff_id]}, "config": {}}
    return add_manifest(store, json.dumps(config).encode(), [layer])


def add_manifest(store: Store, config: bytes, layers: list[Descriptor]) -> Descriptor:
    """Of an image whose layers are there; the same gives the same digest."""
    described = store.blobs.add_document(config, OCI_CONFIG)
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    return store.blobs.add_document(json.dumps(document).encode(), OCI_MANIFEST)


# ---- an OCI image layout --------------------------------------------------------------------------------


def _from_layout(directory: Path, path: Path, store: Store, platform: Platform, wanted: str) -> Descriptor:
    """``path``: where the user has it, as an archive maybe."""
    files = _Files(directory)
    try:
        index = parse_document(files.read("index.json"), OCI_INDEX)
        if not isinstance(index, Index):
            raise ImageError(f"index.json of {path} is no index")
        descriptor = _choose(index, wanted, path)
        document: Index | Manifest = index
        while not isinstance(document, Manifest):
            files.add_to(store, descriptor)
            document = parse_document(store.blobs.read_document(descriptor.digest), descriptor.media_type)
            if isinstance(document, Index):
                descriptor = document.choose(platform)
        for blob in (document.config, *document.layers):
            files.add_to(store, blob)
    finally:
        files.close()
    return descriptor


def _choose(index: Index, wanted: str, path: Path) -> Descriptor:
    """An image may be there several times, once for each of its names."""
    found = {d.digest: d for d in index.manifests if not wanted or wanted in d.names()}
    if len(found) == 1:
        return next(iter(found.values()))
    raise _not_one(path, wanted, len(found), [d.names()[0] for d in index.manifests])


def _not_one(path: Path, wanted: str, count: int, names: list[str]) -> ImageError:
    """Not one image, but ``count``, are what was ``wanted`` of all that there is."""
    if count:
        problem = f"has {count} images" + (f" named {quoted(wanted)}" if wanted else "")
    else:
        problem = "has no image" + (f" {quoted(wanted)}" if wanted else "")
    known = ", ".join(dict.fromkeys(names)) or "none with a name"
    return ImageError(
        f"{path} {problem}; name one as in {path}#NAME, or import it with --ref NAME; there is: {known}"
    )


# ---- docker save ----------------------------------------------------------------------------------------


def _from_docker(directory: Path, path: Path, store: Store, wanted: str) -> Descriptor:
    """manifest.json is a list of ``{"Config": path, "RepoTags": [name], "Layers": [path]}``
    (Docker image specification 1.2)."""
    files = _Files(directory)
    try:
        image = _docker_image(files.read("manifest.json"), wanted, path)
        config = files.read(image["Config"])
        layers = [files.add_layer(store, layer) for layer in image["Layers"]]
    except KeyError as error:
        raise ImageError(f"manifest.json of the archive has no {error}") from None
    finally:
        files.close()
    return add_manifest(store, config, layers)


def _docker_image(data: bytes, wanted: str, path: Path) -> dict[str, Any]:
    images = load_json(data, "manifest.json of the archive")
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
        raise ImageError("manifest.json of the archive is no list of images")
    tags = [image.get("RepoTags") or [] for image in images]
    if not all(isinstance(names, list) for names in tags):
        raise ImageError("manifest.json of the archive has RepoTags that are no list")
    found = [image for image, names in zip(images, tags, strict=True) if not wanted or wanted in names]
    if len(found) != 1:
        raise _not_one(path, wanted, len(found), [str(tag) for names in tags for tag in names])
    image: dict[str, Any] = found[0]
    layers = image.get("Layers")
    if not isinstance(image.get("Config"), str) or not isinstance(layers, list):
        raise ImageError("manifest.json of the archive names no configuration or no layers")
    if not all(isinstance(layer, str) for layer in layers):
        raise ImageError("manifest.json of the archive names layers by something else than paths")
    return image


# ---- files of an untrusted directory ---------------------------------------------------------------------


class _Files:
    """Its links lead nowhere outside."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._fd)

    def read(self, path: str) -> bytes:
        fd = self._open(path)
        with open(fd, "rb") as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
        if len(data) > MAX_DOCUMENT_BYTES:
            raise ImageError(f"{path} of the image has more than {MAX_DOCUMENT_BYTES} bytes")
        return data

    def add_to(self, store: Store, blob: Descriptor) -> None:
        if store.blobs.has(blob.digest):
            return
        fd = self._open("blobs/" + blob.digest.replace(":", "/"))
        with open(fd, "rb"):
            store.blobs.add(_chunks(fd), blob)

    def add_layer(self, store: Store, path: str) -> Descriptor:
        """A layer that is known by its path only."""
        fd = self._open(path)
        with open(fd, "rb"):
            inside = Path(f"/proc/self/fd/{fd}")
            size_bytes, digest = digest_of(inside)
            layer = Descriptor(OCI_LAYER + suffix_of(inside), digest, size_bytes)
            store.blobs.add(_chunks(fd), layer)
        return layer

    def _open(self, path: str) -> int:
        try:
            # A FIFO must not block.
            fd = open_in_root(self._fd, path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise ImageError(
                f"cannot read {quoted(path)} of the image: {error.strerror}; get the image again"
            ) from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ImageError(f"{quoted(path)} of the image is no file")
        return fd


def _chunks(fd: int) -> Iterator[bytes]:
    offset = 0
    while chunk := os.pread(fd, CHUNK_BYTES, offset):
        yield chunk
        offset += len(chunk)

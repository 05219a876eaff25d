"""An image of the store as one file: for other tools, or for a store on another machine."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import tarfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import IO

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images.blobs import digest_of
from pytest_isolate.sandbox.images.compression import decompressed
from pytest_isolate.sandbox.images.contents import opened, write_tar
from pytest_isolate.sandbox.images.manifest import OCI_INDEX
from pytest_isolate.sandbox.images.reference import naming
from pytest_isolate.sandbox.images.store import LAYOUT, Store, Stored
from pytest_isolate.units import quoted

__all__ = ["Format", "export"]

CHUNK_BYTES = 2**20


class Format(Enum):
    """What the file is."""

    OCI = "oci"  #: an archive of an OCI image layout, with the same digests
    DOCKER = "docker"  #: what ``docker load`` reads
    ROOTFS = "rootfs"  #: a tar archive of what the layers show together


def export(store: Store, stored: Stored, path: Path, form: Format) -> None:
    """Write it; the same image gives the same bytes. Raises ImageError, OSError."""
    with store.work_directory() as work, _replaced(path) as file, naming(stored.name):
        match form:
            case Format.OCI:
                _write_oci(store, stored, file)
            case Format.DOCKER:
                _write_docker(store, stored, file, work)
            case Format.ROOTFS:
                store.image(stored)  # unpacks the layers, which checks them
                blobs = store.manifest(stored.manifest.digest).layers
                with opened([store.blobs.path(blob.digest) for blob in blobs], work) as contents:
                    write_tar(contents, file)


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
    """There is no half of a file, whatever happens."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(partial, "xb"))  # in /tmp others may have left a link there
        except OSError as error:
            raise ImageError(f"cannot write {path}: {error.strerror}") from None
        stack.callback(partial.unlink, missing_ok=True)
        yield file
        file.flush()
        os.replace(partial, path)


def _write_oci(store: Store, stored: Stored, file: IO[bytes]) -> None:
    manifest = store.manifest(stored.manifest.digest)
    named = dataclasses.replace(stored.manifest, name=_given_name(stored) or None)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [named.to_json()]}
    digests = {stored.manifest.digest, manifest.config.digest, *(blob.digest for blob in manifest.layers)}
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "oci-layout", json.dumps(LAYOUT).encode())
        _add(archive, "index.json", json.dumps(index).encode())
        # Without root skopeo cannot make those that are not named.
        for directory in ("blobs", "blobs/sha256"):
            member = tarfile.TarInfo(directory)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
        for digest in sorted(digests):
            _add_file(archive, "blobs/" + digest.replace(":", "/"), store.blobs.path(digest))


def _write_docker(store: Store, stored: Stored, file: IO[bytes], work: Path) -> None:
    """Docker image specification 1.2, with layers without compression, by which they are known."""
    manifest = store.manifest(stored.manifest.digest)
    diff_ids = store.config(manifest).diff_ids
    config = f"{manifest.config.digest.partition(':')[2]}.json"
    described = {
        "Config": config,
        "RepoTags": [*_tags(stored)],
        "Layers": [f"{diff_id.partition(':')[2]}.tar" for diff_id in diff_ids],
    }
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "manifest.json", json.dumps([described]).encode())
        _add(archive, config, store.blobs.read_document(manifest.config.digest))
        done: set[str] = set()
        for blob, diff_id in zip(manifest.layers, diff_ids, strict=True):
            if diff_id not in done:
                plain = work / "layer.tar"
                _decompress(store.blobs.path(blob.digest), plain, diff_id)
                _add_file(archive, f"{diff_id.partition(':')[2]}.tar", plain)
                done.add(diff_id)


def _decompress(source: Path, target: Path, diff_id: str) -> None:
    with decompressed(source) as stream, open(target, "wb") as file:
        while chunk := stream.read(CHUNK_BYTES):
            file.write(chunk)
    if digest_of(target)[1] != diff_id:
        raise ImageError(f"layer {source.name} is not what the image promises, {quoted(diff_id)}")


def _given_name(stored: Stored) -> str:
    """Nothing of an image that is known by the path of a file."""
    return "" if stored.name.startswith("/") else stored.name


def _tags(stored: Stored) -> Iterator[str]:
    """As Docker writes names: always with a tag, never with a digest."""
    name = _given_name(stored).partition("@")[0]
    if name:
        yield name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _add_file(archive: tarfile.TarFile, name: str, path: Path) -> None:
    member = tarfile.TarInfo(name)
    member.size = path.stat().st_size
    with open(path, "rb") as file:
        archive.addfile(member, file)

"""Archives of roots and images, made by hand: good ones, and such as nobody means well with."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_isolate.sandbox.images.manifest import own_platform

__all__ = ["Entry", "Layout", "device", "directory", "fifo", "file", "hardlink", "symlink", "tar_bytes"]

Entry = tuple[tarfile.TarInfo, bytes]
OCI = "application/vnd.oci.image"


def file(name: str, content: str | bytes = "", **fields: Any) -> Entry:
    data = content.encode() if isinstance(content, str) else content
    return _entry(name, tarfile.REGTYPE, data, mode=fields.pop("mode", 0o644), **fields)


def directory(name: str, mode: int = 0o755, **fields: Any) -> Entry:
    return _entry(name, tarfile.DIRTYPE, mode=mode, **fields)


def symlink(name: str, target: str) -> Entry:
    return _entry(name, tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> Entry:
    return _entry(name, tarfile.LNKTYPE, linkname=target)


def fifo(name: str) -> Entry:
    return _entry(name, tarfile.FIFOTYPE)


def device(name: str) -> Entry:
    return _entry(name, tarfile.CHRTYPE, devmajor=1, devminor=3)


def _entry(name: str, kind: bytes, data: bytes = b"", **fields: Any) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime = kind, len(data), 1_700_000_000
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_bytes(entries: Iterable[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Layout:
    """An OCI image layout in a directory, to which images are added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._manifests: list[dict[str, Any]] = []
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def add(
        self,
        *layers: Sequence[Entry],
        config: Mapping[str, Any] | None = None,
        name: str = "",
        platform: Mapping[str, str] | None = None,
    ) -> str:
        """The digest of the image's manifest; ``layers``: the lowest first."""
        where = platform if platform is not None else own_platform().to_json()
        tars = [tar_bytes(entries) for entries in layers]
        diff_ids = [_digest(tar) for tar in tars]
        document = {**where, "config": dict(config or {}), "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": self.blob(json.dumps(document).encode(), f"{OCI}.config.v1+json"),
            "layers": [self.blob(gzip.compress(tar, 1, mtime=0), f"{OCI}.layer.v1.tar+gzip") for tar in tars],
        }
        descriptor = self.blob(json.dumps(manifest).encode(), f"{OCI}.manifest.v1+json")
        if name:
            descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
        self._manifests.append(descriptor | ({"platform": dict(where)} if platform is not None else {}))
        self.write_index(self._manifests)
        return str(descriptor["digest"])

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        digest = _digest(data)
        self.blob_path(digest).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def blob_path(self, digest: str) -> Path:
        return self.path / "blobs" / digest.replace(":", "/")

    def write_index(self, manifests: Sequence[Mapping[str, Any]]) -> None:
        index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": list(manifests)}
        (self.path / "index.json").write_text(json.dumps(index))

    def pack(self, path: Path) -> Path:
        """The layout as one archive."""
        with tarfile.open(path, "w") as archive:
            archive.add(self.path, ".")
        return path


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()

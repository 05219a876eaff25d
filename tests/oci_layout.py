"""Small images for tests, made by hand: layers, configuration, manifest and index as an OCI image layout."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_isolate.sandbox.images.manifest import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    REF_NAME,
    Platform,
)

__all__ = ["PLATFORMS", "Layout", "digest_of_bytes", "make_layout", "tar_layer"]

PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm64", "v8"))


def digest_of_bytes(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_layer(files: Mapping[str, bytes]) -> bytes:
    """A tar without compression. A name that ends in / is a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name.rstrip("/"))
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            member.mode = 0o755 if name.endswith("/") else 0o644
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@dataclass
class Layout:
    """All blobs by digest; ``top`` is what ``index.json`` names."""

    tag: str = "latest"
    blobs: dict[str, bytes] = field(default_factory=dict)
    top: dict[str, Any] = field(default_factory=dict)
    manifests: dict[Platform, dict[str, Any]] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)  #: digests of all, the lowest first, platform by platform

    def add(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """The descriptor."""
        digest = digest_of_bytes(data)
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def add_json(self, document: Mapping[str, Any], media_type: str, **more: Any) -> dict[str, Any]:
        return self.add(json.dumps(document, sort_keys=True).encode(), media_type, **more)

    def write(self, directory: Path) -> Path:
        (directory / "blobs/sha256").mkdir(parents=True)
        for digest, data in self.blobs.items():
            (directory / "blobs" / digest.replace(":", "/")).write_bytes(data)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        top = {**self.top, "annotations": {REF_NAME: self.tag}}
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [top]}
        (directory / "index.json").write_text(json.dumps(index))
        return directory


def make_layout(
    layers: Sequence[Mapping[str, bytes]] = ({"etc/": b"", "etc/name": b"lower"}, {"etc/name": b"upper"}),
    *,
    platforms: Sequence[Platform] = PLATFORMS,
    config: Mapping[str, Any] | None = None,
    tag: str = "latest",
) -> Layout:
    """One platform: a manifest. Several: an index, and a file in each image that names its platform.

    ``config``: as in the image specification, such as ``{"Env": ["PATH=/bin"], "WorkingDir": "/srv"}``.
    """
    layout = Layout(tag)
    for platform in platforms:
        own = {"etc/platform": str(platform).encode()} if len(platforms) > 1 else {}
        tars = [tar_layer(files) for files in (*layers, own) if files]
        found = [layout.add(gzip.compress(tar, mtime=0), OCI_LAYER + "+gzip") for tar in tars]
        layout.layers += [each["digest"] for each in found]
        where = {"os": platform.os, "architecture": platform.architecture}
        where |= {"variant": platform.variant} if platform.variant else {}
        document = {
            **where,
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest_of_bytes(tar) for tar in tars]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": layout.add_json(document, OCI_CONFIG),
            "layers": found,
        }
        layout.manifests[platform] = layout.add_json(manifest, OCI_MANIFEST, platform=where)
    (layout.top, *others) = layout.manifests.values()
    if others:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [layout.top, *others]}
        layout.top = layout.add_json(index, OCI_INDEX)
    return layout

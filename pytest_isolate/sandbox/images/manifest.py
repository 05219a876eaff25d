"""The JSON documents of images (OCI image specification 1.1, Docker's schema 2), checked and as values.

They come from strangers: what is not of the right form, or is absurdly large, is an :class:`ImageError`.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pytest_isolate.errors import ImageError
from pytest_isolate.units import quoted

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "MAX_LAYERS",
    "Config",
    "Descriptor",
    "Index",
    "Manifest",
    "Platform",
    "check_digest",
    "load_json",
    "own_platform",
    "parse_config",
    "parse_document",
    "parse_manifest",
    "parse_platform",
]

MAX_DOCUMENT_BYTES = 4 * 2**20  # what registries accept for a manifest at least, and most accept at most
MAX_LAYERS = 500  # OVL_MAX_STACK of fs/overlayfs/params.h
MAX_BLOB_BYTES = 2**40

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
#: What a registry is told to be understood.
DOCUMENT_TYPES = (OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""

    def to_json(self) -> dict[str, str]:
        found = {"os": self.os, "architecture": self.architecture, "variant": self.variant}
        return {key: value for key, value in found.items() if value}

    def runs_on(self, machine: Platform) -> bool:
        same_variant = not self.variant or not machine.variant or self.variant == machine.variant
        return same_variant and (self.os, self.architecture) == (machine.os, machine.architecture)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob: what it is, the sha256 of its bytes, and how many they are."""

    media_type: str
    digest: str
    size_bytes: int
    platform: Platform | None = None
    #: Annotation org.opencontainers.image.ref.name; of Docker's archives, the tag alone.
    name: str | None = None
    docker_name: str | None = None  #: annotation io.containerd.image.name, which Docker's archives have

    def names(self) -> tuple[str, ...]:
        """By which a person may mean it, the one to show first."""
        full = self.docker_name or ""
        short = full.removeprefix("docker.io/")
        known = (short.removeprefix("library/"), full, short, self.name, self.digest)
        return tuple(name for name in known if name)

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size_bytes,
        }
        if self.platform is not None:
            found["platform"] = self.platform.to_json()
        if self.name is not None:
            found["annotations"] = {REF_NAME: self.name}
        return found


REF_NAME = "org.opencontainers.image.ref.name"
DOCKER_NAME = "io.containerd.image.name"


@dataclass(frozen=True, slots=True)
class Index:
    """Images of one name for several platforms, or of several names."""

    manifests: tuple[Descriptor, ...]

    def choose(self, wanted: Platform) -> Descriptor:
        """The first that runs on ``wanted``. Raises ImageError."""
        for descriptor in self.manifests:
            if descriptor.platform is not None and descriptor.platform.runs_on(wanted):
                return descriptor
        known = ", ".join(str(d.platform) for d in self.manifests if d.platform is not None)
        raise ImageError(
            f"there is no image for {wanted}; there is: {known or 'none that names its platform'}"
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its configuration and its layers, the lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What of an image's configuration means something to a test."""

    diff_ids: tuple[str, ...]  #: sha256 of each layer's tar without compression, the lowest first
    platform: Platform
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: str = ""  #: name or uid, with ":" and group or gid
    labels: tuple[tuple[str, str], ...] = ()
    created: str = ""


#: What uname(2) says, and what images say (GOARCH).
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def own_platform() -> Platform:
    machine = platform.machine()
    return Platform("linux", _ARCHITECTURES.get(machine, machine))


def parse_platform(text: str) -> Platform:
    """As in linux/arm64 and linux/arm/v7. Raises ImageError."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ImageError(f"{quoted(text)} is no platform; one is OS/ARCH[/VARIANT], as in linux/arm64")
    return Platform(*parts)


def check_digest(value: object) -> str:
    """Raises ImageError for all but ``sha256:`` and 64 hexadecimal digits: digests become file names."""
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value
    raise ImageError(f"{quoted(value)} is no sha256 digest")


def parse_document(data: bytes, media_type: str = "") -> Index | Manifest:
    """An index or a manifest. ``media_type``: as the place it comes from has it. Raises ImageError."""
    document = _load(data, "manifest")
    kind = document.get("mediaType") or media_type
    if (
        "manifests" in document and "layers" in document
    ):  # CVE-2021-41190: read as one here, as the other there
        raise ImageError("the manifest of the image is an index and a manifest at once")
    if kind in (OCI_INDEX, DOCKER_INDEX) or (not kind and "manifests" in document):
        manifests = _list(document, "manifests", _descriptor, "index")
        return Index(tuple(d for d in manifests if d.media_type in DOCUMENT_TYPES))
    if document.get("schemaVersion") == 1:
        raise ImageError("the manifest is of Docker's schema 1, which has no digests; push the image again")
    return parse_manifest(data)


def parse_manifest(data: bytes) -> Manifest:
    document = _load(data, "manifest")
    layers = _list(document, "layers", _descriptor, "manifest")
    if len(layers) > MAX_LAYERS:
        raise ImageError(f"the manifest has {len(layers)} layers; the kernel mounts {MAX_LAYERS} at most")
    foreign = [d.media_type for d in layers if "foreign" in d.media_type or ".tar" not in d.media_type]
    if foreign:
        raise ImageError(
            f"the manifest has a layer of the type {quoted(foreign[0])}, which is no tar archive"
        )
    if "encrypted" in "".join(d.media_type for d in layers):
        raise ImageError("the manifest has encrypted layers; decrypt the image first")
    return Manifest(_descriptor(document.get("config")), tuple(layers))


def parse_config(data: bytes) -> Config:
    document = _load(data, "configuration")
    rootfs, config = document.get("rootfs"), document.get("config") or {}
    if not isinstance(rootfs, dict) or not isinstance(config, dict):
        raise ImageError("the configuration of the image has no list of layers (rootfs.diff_ids)")
    labels = config.get("Labels") or {}
    return Config(
        diff_ids=tuple(_list(rootfs, "diff_ids", check_digest, "configuration")),
        platform=Platform(
            _text(document, "os") or "linux", _text(document, "architecture"), _text(document, "variant")
        ),
        env=tuple(_list(config, "Env", _variable, "configuration")) if config.get("Env") else (),
        working_dir=_text(config, "WorkingDir"),
        user=_text(config, "User"),
        labels=tuple((str(k), str(v)) for k, v in labels.items()) if isinstance(labels, dict) else (),
        created=_text(document, "created"),
    )


def load_json(data: bytes, what: str) -> Any:
    """Raises ImageError, for texts too that are none (half of a surrogate pair): no file has such a name."""
    try:
        document = json.loads(data)
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is not JSON: {error}") from None
    return document


def _load(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ImageError(f"the {what} of the image has {len(data)} bytes, more than {MAX_DOCUMENT_BYTES}")
    document = load_json(data, f"the {what} of the image")
    if not isinstance(document, dict):
        raise ImageError(f"the {what} of the image is not a JSON object")
    return document


def _list(document: dict[str, Any], key: str, parse: Callable[[object], _Value], what: str) -> list[_Value]:
    found = document.get(key)
    if not isinstance(found, list):
        raise ImageError(f"the {what} of the image has no list {quoted(key)}")
    return [parse(each) for each in found]


def _descriptor(found: object) -> Descriptor:
    if not isinstance(found, dict):
        raise ImageError(f"{quoted(found)} describes no blob")
    size = found.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_BLOB_BYTES:
        raise ImageError(f"{quoted(size)} is no size of a blob")
    where, annotations = found.get("platform"), found.get("annotations")
    annotations = annotations if isinstance(annotations, dict) else {}
    return Descriptor(
        media_type=_text(found, "mediaType"),
        digest=check_digest(found.get("digest")),
        size_bytes=size,
        platform=Platform(_text(where, "os"), _text(where, "architecture"), _text(where, "variant"))
        if isinstance(where, dict)
        else None,
        name=_text(annotations, REF_NAME) or None,
        docker_name=_text(annotations, DOCKER_NAME) or None,
    )


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key) or ""
    if not isinstance(value, str) or not value.isprintable():  # terminals obey what is not
        raise ImageError(f"{quoted(key)} of the image is {quoted(value)}, which is no text")
    return value


def _variable(entry: object) -> tuple[str, str]:
    name, equals, value = entry.partition("=") if isinstance(entry, str) else ("", "", "")
    if not name or not equals or "\0" in value + name:
        raise ImageError(f"the image sets the environment variable {quoted(entry)}, which is not NAME=VALUE")
    return name, value

"""The store: images as an OCI image layout, and beside it each layer unpacked, once.

    oci-layout index.json blobs/sha256/…     the layout: other tools read it too
    layers/sha256/…                          a directory, and a .json that says what it has become; with
                                             the range in its name if it is for subordinate ids; and
                                             beside it a .used that sessions hold
    partial/ work/                           what is being written, or a killed process was writing

Many processes may use one store. What is in blobs/ and layers/ is whole: it is renamed to there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_isolate.errors import ImageError
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.subids import SubordinateIds, usable_subordinate_ids
from pytest_isolate.kernel.tree import is_opaque
from pytest_isolate.sandbox.images.apart import Ownership
from pytest_isolate.sandbox.images.blobs import Blobs, locked, make_private
from pytest_isolate.sandbox.images.holds import READ_ONLY, Holds
from pytest_isolate.sandbox.images.manifest import (
    DOCUMENT_TYPES,
    OCI_INDEX,
    Config,
    Descriptor,
    Index,
    Manifest,
    Platform,
    check_digest,
    parse_config,
    parse_document,
    parse_manifest,
)
from pytest_isolate.sandbox.images.unpack import Unpacked, unpack

__all__ = ["Image", "Store", "Stored", "default_store"]

LAYOUT = {"imageLayoutVersion": "1.0.0"}  # of the file oci-layout
STAMP = "dev.pytest-isolate.stamp"  # annotation: of what state of a file an image was made


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry of the store's index."""

    name: str
    manifest: Descriptor
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is ready to be mounted."""

    name: str
    digest: str  #: of its manifest
    layers: tuple[str, ...]  #: directories, the topmost first, as overlayfs has them
    config: Config
    skipped: tuple[str, ...] = ()  #: what was left away when it was unpacked, in words
    ids: SubordinateIds | None = None  #: that own its files; without: all are the caller's, or root's to give


def default_store() -> Path:
    """Below $XDG_CACHE_HOME (XDG Base Directory Specification), or ~/.cache. Raises ImageError."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(cache) if cache.startswith("/") else Path.home() / ".cache"
    except RuntimeError:  # as a uid without a name, in a container
        raise ImageError(
            "there is no home directory to have the store of images in; set XDG_CACHE_HOME"
        ) from None
    return base / "pytest-isolate" / "images"


class Store:
    """``directory`` is made when something is first put in. Its own path has no links: they would be followed
    beside the host's root when a layer is mounted."""

    def __init__(self, directory: Path | None = None, holds: Holds | None = None) -> None:
        """``holds`` gets each layer that comes out of the store, for a session that will mount it."""
        self.directory = (directory if directory is not None else default_store()).resolve()
        self.blobs = Blobs(self.directory)
        self._holds = holds

    @cached_property
    def ownership(self) -> Ownership | None:
        """Of the layers that are unpacked here and now; None: as far as the caller may give files away."""
        ids = usable_subordinate_ids(Host())
        return None if ids is None else Ownership(ids)

    # ---- the index ------------------------------------------------------------------------------

    def images(self) -> list[Stored]:
        """In the order in which they came."""
        self._check_owner()
        try:
            data = (self.directory / "index.json").read_bytes()
        except FileNotFoundError:
            return []
        try:
            index = parse_document(data, OCI_INDEX)
        except ImageError as error:
            raise ImageError(f"{self.directory}/index.json is damaged: {error}; remove it") from None
        if not isinstance(index, Index):
            raise ImageError(f"{self.directory}/index.json is no index; have the store elsewhere")
        listed = [raw for raw in json.loads(data)["manifests"] if raw.get("mediaType") in DOCUMENT_TYPES]
        return [
            Stored(descriptor.name or "", descriptor, _stamp(raw))
            for raw, descriptor in zip(listed, index.manifests, strict=True)
        ]

    def _check_owner(self) -> None:
        """Layers that somebody else may change are not to be mounted, least of all by root."""
        if self.directory.is_dir() and (owner := self.directory.stat().st_uid) != os.geteuid():
            raise ImageError(
                f"the store {self.directory} belongs to uid {owner}, and this is uid {os.geteuid()}; "
                "name another with --isolate-store"
            )

    def find(self, name: str, platform: Platform) -> Stored | None:
        for stored in self.images():
            where = stored.manifest.platform
            if stored.name == name and (where is None or where.runs_on(platform)):
                return stored
        return None

    def add(self, name: str, manifest: Descriptor, *, stamp: str = "") -> Stored:
        """Name an image whose blobs are there; another of this name and platform loses it."""
        platform: Platform | None = self.config(self.manifest(manifest.digest)).platform
        if platform is not None and not platform.architecture:
            platform = None  # it does not say: it is for all
        named = dataclasses.replace(manifest, name=name, docker_name=None, platform=platform)
        stored = Stored(name, named, stamp)
        with self._changing_index() as images:
            images[:] = [s for s in images if (s.name, s.manifest.platform) != (name, platform)]
            images.append(stored)
        return stored

    def remove(self, name: str) -> bool:
        """Forget a name, for all platforms; what only it needed stays until the store is pruned."""
        with self._changing_index() as images:
            before = len(images)
            images[:] = [stored for stored in images if stored.name != name]
            return len(images) < before

    @contextlib.contextmanager
    def _changing_index(self) -> Iterator[list[Stored]]:
        make_private(self.directory)
        with locked(self.directory / "index.lock"):
            images = self.images()
            yield images
            _replace(self.directory / "oci-layout", LAYOUT)
            manifests = [_to_json(stored) for stored in images]
            _replace(
                self.directory / "index.json",
                {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests},
            )

    # ---- images ---------------------------------------------------------------------------------

    def manifest(self, digest: str) -> Manifest:
        return parse_manifest(self.blobs.read_document(digest))

    def has_all(self, stored: Stored) -> bool:
        """Whether each blob of the image is there, as far as names tell."""
        try:
            manifest = self.manifest(stored.manifest.digest)
        except ImageError:
            return False
        return all(
            self.blobs.has(blob.digest) for blob in (stored.manifest, manifest.config, *manifest.layers)
        )

    def config(self, manifest: Manifest) -> Config:
        config = parse_config(self.blobs.read_document(manifest.config.digest))
        if len(config.diff_ids) != len(manifest.layers):
            raise ImageError(
                f"the image has {len(manifest.layers)} layers, "
                f"and its configuration tells of {len(config.diff_ids)}"
            )
        return config

    def image(self, stored: Stored) -> Image:
        """The image with all its layers unpacked. Raises ImageError."""
        return self._image(stored.name, stored.manifest.digest, (0, 0))

    def seen_as(self, image: Image, own: tuple[int, int]) -> Image:
        """The image for a caller who looks like ``own`` (uid, gid) in it. Raises ImageError."""
        return self._image(image.name, image.digest, own)

    def _image(self, name: str, digest: str, own: tuple[int, int]) -> Image:
        manifest = self.manifest(digest)
        config = self.config(manifest)
        pairs = [*zip(manifest.layers, config.diff_ids, strict=True)]
        layers = [self.layer(blob, diff_id, own) for blob, diff_id in pairs]
        skipped: dict[str, int] = {}
        for diff_id in config.diff_ids:
            unpacked = self.unpacked(diff_id) or Unpacked()
            for what, count in unpacked.skipped.items():
                skipped[what] = skipped.get(what, 0) + count
        return Image(
            name,
            digest,
            _shown(layers),
            config,
            tuple(f"{count} {what}{'s' * (count > 1)}" for what, count in skipped.items()),
            None if self.ownership is None else self.ownership.ids,
        )

    # ---- layers ---------------------------------------------------------------------------------

    def layer_path(self, diff_id: str, ownership: Ownership | None = None) -> Path:
        """``ownership``: another than what is usual here."""
        ownership = ownership or self.ownership
        path = self.directory / "layers" / check_digest(diff_id).replace(":", "/")
        return path if ownership is None else path.with_name(path.name + ownership.name)

    def unpacked(self, diff_id: str) -> Unpacked | None:
        """What is known of an unpacked layer; None if it is not unpacked."""
        try:
            return Unpacked(**json.loads(_note(self.layer_path(diff_id)).read_bytes()))
        except FileNotFoundError:
            return None

    def layer(self, blob: Descriptor, diff_id: str, own: tuple[int, int] = (0, 0)) -> Path:
        """The directory of a layer, unpacked by whoever comes first; ``own``: as whom the caller will be seen
        with it. Raises ImageError."""
        path = self._layer(blob, diff_id, self.ownership)
        if self.ownership is not None and own != (0, 0):
            unpacked = self.unpacked(diff_id) or Unpacked()
            path = self._layer(blob, diff_id, self.ownership.seen_as(own, unpacked))
        return path

    def _layer(self, blob: Descriptor, diff_id: str, ownership: Ownership | None) -> Path:
        path = self.layer_path(diff_id, ownership)
        note = _note(path)
        if self._holds is not None:
            self._holds.add(path)  # before the look at what is there, which nobody removes from now on
        if _touch(note):
            return path
        with locked(path.with_suffix(".lock")):
            if not note.exists():
                self._unpack(blob, diff_id, path, ownership)
        return path

    def _unpack(self, blob: Descriptor, diff_id: str, path: Path, ownership: Ownership | None) -> None:
        """Under the layer's lock: what is there without a note is of a process that was killed."""
        self.remove_directory(path)
        with self.work_directory() as work:
            root = work / "layer"
            root.mkdir(mode=0o755)
            archive = self.blobs.path(blob.digest)
            if not archive.exists():
                raise ImageError(f"blob {blob.digest} of a layer is not there; get the image again")
            unpacked = unpack(archive, root) if ownership is None else ownership.unpack(archive, root)
            if unpacked.diff_id != diff_id:
                raise ImageError(
                    f"layer {blob.digest} is not what the image promises: "
                    f"unpacked it has the digest {unpacked.diff_id} where {diff_id} was expected"
                )
            mode = stat.S_IMODE(root.stat().st_mode)
            root.chmod(mode | stat.S_IWUSR)  # rename(2) writes to a directory that gets another parent
            os.rename(root, path)
        path.chmod(mode)
        _replace(_note(path), dataclasses.asdict(unpacked))

    @contextlib.contextmanager
    def work_directory(self) -> Iterator[Path]:
        """A directory on the store's disk, locked. One that nobody has a lock on is of a process that was
        killed, and removed."""
        base = self.directory / "work"
        make_private(self.directory)
        make_private(base)
        with locked(base / ".lock"):
            for entry in base.iterdir():
                if entry.is_dir() and (fd := _try_lock(entry)) is not None:
                    os.close(fd)
                    with contextlib.suppress(ImageError):  # of a range that is the caller's no more
                        self.remove_directory(entry)
            work = Path(tempfile.mkdtemp(dir=base))
            fd = _try_lock(work)
        try:
            yield work
        finally:
            self.remove_directory(work)
            if fd is not None:
                os.close(fd)

    def remove_directory(self, path: Path) -> None:
        """Also what has files of subordinate ids. Raises ImageError."""
        try:
            remove_tree(path)
        except PermissionError as error:
            failure = ImageError(f"cannot remove {path}: {error.strerror}; run: sudo rm -rf {path}")
            if self.ownership is None:
                raise failure from None
            try:
                self.ownership.remove(path, remove_tree)
            except ImageError:  # of a range that is the caller's no more
                raise failure from None


def _shown(layers: Sequence[Path]) -> tuple[str, ...]:
    """Topmost first, down to one that hides all below it: overlayfs does not look at the mark of a root. Each
    once: overlayfs refuses a layer that comes twice."""
    found: dict[str, None] = {}
    for layer in map(str, reversed(layers)):
        found[layer] = None
        if is_opaque(layer):
            break
    return tuple(found)


def _stamp(raw: dict[str, Any]) -> str:
    annotations = raw.get("annotations")
    return str(annotations.get(STAMP, "")) if isinstance(annotations, dict) else ""


def _to_json(stored: Stored) -> dict[str, Any]:
    found = stored.manifest.to_json()
    if stored.stamp:
        found.setdefault("annotations", {})[STAMP] = stored.stamp
    return found


def _note(layer: Path) -> Path:
    """Written last: a layer without it is not whole."""
    return layer.with_suffix(".json")


def _touch(note: Path) -> bool:
    """Whether the note is there. If so, it was used just now."""
    try:
        os.utime(note)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        return note.exists()
    return True


def _replace(path: Path, document: object) -> None:
    """Write a JSON file that others see as it was or as it will be."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(temporary, path)


def _try_lock(directory: Path) -> int | None:
    """flock(2) on the directory itself, for as long as the descriptor is open."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def remove_tree(path: Path) -> None:
    """Also what has directories that their owner may not write to, as images have."""
    if path.is_symlink() or not path.is_dir():
        return
    os.chmod(path, 0o700)
    for _, names, _, fd in os.fwalk(path):
        for name in names:
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                os.chmod(name, 0o700, dir_fd=fd)
    shutil.rmtree(path)

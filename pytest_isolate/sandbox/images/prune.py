"""Clearing a store up: what no named image needs goes, unless somebody is using it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_isolate.sandbox.images.blobs import locked
from pytest_isolate.sandbox.images.holds import unless_held
from pytest_isolate.sandbox.images.reference import naming
from pytest_isolate.sandbox.images.store import Store, Stored
from pytest_isolate.sandbox.images.unpack import Unpacked

__all__ = ["IN_USE_S", "Pruned", "prune"]

#: What was used so recently may be of an image that is just being got, and has no name yet.
IN_USE_S = 3600.0


@dataclass(slots=True)
class Pruned:
    """What has become of that which no named image needs."""

    freed_bytes: int = 0
    recent_bytes: int = 0  #: kept, as it was used a short time ago
    held_bytes: int = 0  #: kept, as sessions that run may mount it


def prune(store: Store, *, in_use_s: float = IN_USE_S) -> Pruned:
    """Remove what no named image needs, no session holds, and was not used within the last ``in_use_s``."""
    pruned, before = Pruned(), time.time() - in_use_s
    with locked(store.directory / "index.lock"):
        blobs, diff_ids = _needed(store, store.images())
        layers = tuple(f"{store.layer_path(diff_id).name}-" for diff_id in diff_ids)
        for path in _entries(store.directory / "blobs" / "sha256"):
            if f"sha256:{path.name}" not in blobs:
                _prune_file(path, before, pruned)
        for note in _entries(store.directory / "layers" / "sha256"):
            if note.suffix == ".json" and not f"{note.stem}-".startswith(layers):
                _prune_layer(store, note, before, pruned)
        for path in _entries(store.directory / "partial"):
            if path.suffix != ".lock":
                _prune_file(path, before, pruned)
    return pruned


def _needed(store: Store, images: Sequence[Stored]) -> tuple[set[str], set[str]]:
    """Digests of blobs, and diff_ids of layers."""
    blobs: set[str] = set()
    layers: set[str] = set()
    for stored in images:
        with naming(stored.name):
            manifest = store.manifest(stored.manifest.digest)
            layers |= set(store.config(manifest).diff_ids)
        blobs |= {stored.manifest.digest, manifest.config.digest, *(d.digest for d in manifest.layers)}
    return blobs, layers


def _entries(directory: Path) -> Iterator[Path]:
    yield from sorted(directory.iterdir()) if directory.is_dir() else ()


def _prune_file(path: Path, before: float, pruned: Pruned) -> None:
    status = path.stat()
    if status.st_mtime > before:
        pruned.recent_bytes += status.st_size
        return
    path.unlink()
    pruned.freed_bytes += status.st_size


def _prune_layer(store: Store, note: Path, before: float, pruned: Pruned) -> None:
    layer = note.with_suffix("")
    with unless_held(layer) as is_free:
        status = note.stat()  # now: a session may have had it since the lock was asked for
        size_bytes = status.st_size + Unpacked(**json.loads(note.read_bytes())).size_bytes
        if not is_free:
            pruned.held_bytes += size_bytes
        elif status.st_mtime > before:
            pruned.recent_bytes += size_bytes
        else:
            note.unlink()
            store.remove_directory(layer)
            pruned.freed_bytes += size_bytes

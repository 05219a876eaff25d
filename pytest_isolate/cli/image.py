"""``pytest-isolate image``: the store of images, from the command line."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pytest_isolate.errors import ImageError, IsolateError
from pytest_isolate.sandbox.images.archives import import_image
from pytest_isolate.sandbox.images.manifest import (
    Config,
    Descriptor,
    Manifest,
    Platform,
    own_platform,
    parse_platform,
)
from pytest_isolate.sandbox.images.prune import IN_USE_S, Pruned, prune
from pytest_isolate.sandbox.images.reference import check_name, naming, parse_reference, toml_key
from pytest_isolate.sandbox.images.store import Store, Stored
from pytest_isolate.sandbox.images.unpack import Unpacked
from pytest_isolate.units import format_size

__all__ = ["image"]

SCHEMA = 1
SHORT_DIGEST = len("sha256:") + 12
HEADINGS = ("name", "digest", "platform", "layers", "stored", "unpacked", "created")


def image(arguments: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """One action on the store; 1 if it fails."""
    try:
        store = Store(Path(arguments.store).absolute() if arguments.store else None)
        _act(store, arguments, out, err)
    except IsolateError as error:
        err.write(f"pytest-isolate: error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130  # as shells have it: 128 + SIGINT
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        err.write(f"pytest-isolate: error: {where}{error.strerror or error}\n")
        return 1
    return 0


def _act(store: Store, arguments: argparse.Namespace, out: TextIO, err: TextIO) -> None:
    match arguments.action:
        case "pull":
            _pull(store, arguments.reference, arguments.platform, out, err)
        case "import":
            _import(store, arguments, out)
        case "build":
            _build(store, arguments, out, err)
        case "ls":
            _list(store, out, as_json=arguments.json)
        case "inspect":
            _inspect(store, arguments.name, out, as_json=arguments.json)
        case "rm":
            _remove(store, arguments.names, out)
        case "prune":
            _tell_pruned(prune(store, in_use_s=0.0 if arguments.all else IN_USE_S), out)
        case "export":
            _export(store, arguments.name, Path(arguments.file), arguments.format)


# ---- images come --------------------------------------------------------------------------------


def _pull(store: Store, text: str, platform: str | None, out: TextIO, err: TextIO) -> None:
    from pytest_isolate.sandbox.images.progress import ProgressLine
    from pytest_isolate.sandbox.images.registry import pull

    reference = parse_reference(text)
    wanted = own_platform() if platform is None else parse_platform(platform)
    with naming(text), ProgressLine(err, str(reference)) as progress:
        pulled = pull(reference, store.blobs, wanted, progress=progress)
        stored = store.add(str(reference), pulled)
    _tell(stored, out)
    if reference.digest is None:
        short = reference.repository.rpartition("/")[2]
        out.write(
            f"\nto have the same every time, write into pyproject.toml:\n\n[tool.pytest-isolate.images]\n"
            f'{toml_key(short)} = "{stored.name}@{stored.manifest.digest}"\n'
        )


def _import(store: Store, arguments: argparse.Namespace, out: TextIO) -> None:
    path = Path(os.path.abspath(arguments.path))  # as a marker's rootfs is called
    name = check_name(arguments.name) if arguments.name is not None else ""
    with naming(arguments.path):
        stored = import_image(path, store, own_platform(), name=name, wanted=arguments.ref)
    _tell(stored, out)


def _build(store: Store, arguments: argparse.Namespace, out: TextIO, err: TextIO) -> None:
    from pytest_isolate.sandbox.images.build import build, build_missing
    from pytest_isolate.sandbox.images.export import Format, export
    from pytest_isolate.sandbox.images.recipe import find_recipe, read_recipe

    recipe = read_recipe(find_recipe(arguments.recipe, Path.cwd()))
    name = check_name(recipe.name if arguments.name is None else arguments.name)
    make = build_missing if arguments.missing else build
    stored = make(recipe, store, name, lambda text: print(text, file=err, flush=True))
    if arguments.output is not None:
        export(store, stored, Path(arguments.output), Format.OCI)
    _tell(stored, out)


def _tell(stored: Stored, out: TextIO) -> None:
    out.write(f"{stored.name} {stored.manifest.digest}\n")


# ---- images are looked at -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layer:
    blob: Descriptor
    diff_id: str
    path: Path
    unpacked: Unpacked | None  #: None until something needs it


@dataclass(frozen=True, slots=True)
class _Known:
    """All that the store knows of an image."""

    stored: Stored
    manifest: Manifest
    config: Config
    layers: tuple[_Layer, ...]

    @property
    def stored_bytes(self) -> int:
        blobs = (self.stored.manifest, self.manifest.config, *self.manifest.layers)
        return sum(blob.size_bytes for blob in blobs)

    @property
    def unpacked_bytes(self) -> int | None:
        """None if some layer is not unpacked yet."""
        sizes = [layer.unpacked.size_bytes for layer in self.layers if layer.unpacked is not None]
        return sum(sizes) if len(sizes) == len(self.layers) else None


def _known(store: Store, stored: Stored) -> _Known:
    manifest = store.manifest(stored.manifest.digest)
    config = store.config(manifest)
    layers = (
        _Layer(blob, diff_id, store.layer_path(diff_id), store.unpacked(diff_id))
        for blob, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
    )
    return _Known(stored, manifest, config, tuple(layers))


def _list(store: Store, out: TextIO, *, as_json: bool) -> None:
    images = store.images()
    if as_json:
        document = {
            "schema": SCHEMA,
            "store": os.fspath(store.directory),
            "images": [_json_or_damage(store, stored) for stored in images],
        }
        out.write(json.dumps(document, indent=2) + "\n")
        return
    if not images:
        out.write(f"no images in {store.directory}\n")
        return
    rows = [HEADINGS, *(_row(store, stored) for stored in images)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            f"{cell:>{width}}" if heading in ("layers", "stored", "unpacked") else f"{cell:{width}}"
            for cell, width, heading in zip(row, widths, HEADINGS, strict=True)
        )
        out.write("  ".join(cells).rstrip() + "\n")


def _row(store: Store, stored: Stored) -> tuple[str, ...]:
    try:
        known = _known(store, stored)
    except ImageError:
        return (stored.name, stored.manifest.digest[:SHORT_DIGEST], "damaged: get it again", "", "", "", "")
    return (
        known.stored.name,
        known.stored.manifest.digest[:SHORT_DIGEST],
        str(known.config.platform),
        str(len(known.layers)),
        format_size(known.stored_bytes),
        "not yet" if known.unpacked_bytes is None else format_size(known.unpacked_bytes),
        known.config.created[:10],
    )


def _inspect(store: Store, name: str, out: TextIO, *, as_json: bool) -> None:
    found = _named(store, name)
    with naming(name):
        known = [_known(store, stored) for stored in found]
    if as_json:
        document = {"schema": SCHEMA, "images": [_json(each) for each in known]}
        out.write(json.dumps(document, indent=2) + "\n")
        return
    out.write("\n".join("".join(f"{line}\n" for line in _lines(each)) for each in known))


def _lines(known: _Known) -> Iterator[str]:
    config = known.config
    yield known.stored.name
    facts = [
        ("digest", known.stored.manifest.digest),
        ("platform", str(config.platform)),
        ("created", config.created),
        ("user", config.user),
        ("workdir", config.working_dir),
        *(("env", f"{name}={value}") for name, value in config.env),
        *(("label", f"{name}={value}") for name, value in config.labels),
    ]
    yield from (f"  {fact:8}  {_visible(value)}" for fact, value in facts if value)
    yield "  layers, the lowest first"
    for layer in known.layers:
        yield f"    {layer.blob.digest}  {format_size(layer.blob.size_bytes)}"
        if layer.unpacked is None:
            yield "      not unpacked yet"
            continue
        size = format_size(layer.unpacked.size_bytes)
        yield f"      {size} in {layer.unpacked.entries} entries: {layer.path}"
        for what, count in layer.unpacked.skipped.items():
            yield f"      left away: {count} {what}{'s' * (count > 1)}"


def _visible(text: str) -> str:
    """On one line, and without what a terminal obeys: an image may say anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _json_or_damage(store: Store, stored: Stored) -> dict[str, Any]:
    try:
        return _json(_known(store, stored))
    except ImageError as error:
        return {"name": stored.name, "digest": stored.manifest.digest, "error": str(error)}


def _json(known: _Known) -> dict[str, Any]:
    config = known.config
    return {
        "name": known.stored.name,
        "digest": known.stored.manifest.digest,
        "platform": str(config.platform),
        "created": config.created,
        "stored_bytes": known.stored_bytes,
        "unpacked_bytes": known.unpacked_bytes,
        "env": dict(config.env),
        "user": config.user,
        "workdir": config.working_dir,
        "labels": dict(config.labels),
        "layers": [_layer_json(layer) for layer in known.layers],
    }


def _layer_json(layer: _Layer) -> dict[str, Any]:
    unpacked = layer.unpacked
    return {
        "digest": layer.blob.digest,
        "diff_id": layer.diff_id,
        "media_type": layer.blob.media_type,
        "stored_bytes": layer.blob.size_bytes,
        "path": None if unpacked is None else os.fspath(layer.path),
        "unpacked_bytes": None if unpacked is None else unpacked.size_bytes,
        "entries": None if unpacked is None else unpacked.entries,
        "skipped": None if unpacked is None else unpacked.skipped,
    }


# ---- images go ----------------------------------------------------------------------------------


def _remove(store: Store, names: list[str], out: TextIO) -> None:
    found = dict.fromkeys(stored for name in names for stored in _named(store, name))  # all, or none
    for stored in found:
        store.remove(stored.name)
        out.write(f"removed {stored.name} {stored.manifest.digest}\n")


def _tell_pruned(pruned: Pruned, out: TextIO) -> None:
    kept = [
        (pruned.recent_bytes, "was used within the last hour (--all removes it, too)"),
        (pruned.held_bytes, "running sessions use"),
    ]
    parts = [f"; kept {format_size(size_bytes)} that {why}" for size_bytes, why in kept if size_bytes]
    out.write(f"freed {format_size(pruned.freed_bytes)}{''.join(parts)}\n")


def _export(store: Store, name: str, path: Path, form: str) -> None:
    from pytest_isolate.sandbox.images.export import Format, export

    found = _named(store, name)
    stored = next((s for s in found if _platform(s).runs_on(own_platform())), found[0])
    export(store, stored, path, Format(form))


def _platform(stored: Stored) -> Platform:
    return stored.manifest.platform or own_platform()


def _named(store: Store, name: str) -> list[Stored]:
    """One for each platform."""
    images = store.images()
    # Imported without a name it has that of a file.
    found = [stored for stored in images if stored.name in (name, os.path.abspath(name))]
    if not found:
        names = ", ".join(dict.fromkeys(stored.name for stored in images))
        raise ImageError(f"no image {name} is in the store {store.directory}; there is: {names or 'none'}")
    return found

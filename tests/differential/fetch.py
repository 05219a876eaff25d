"""A suite of others from PyPI, as its sdist ships it, in a virtual environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.differential.explained import explanations
from tests.differential.suite import Suite

__all__ = ["build_wheel", "prepare"]

ROOT = Path(__file__).parents[2]
PYTEST = "pytest==9.2.0"
PIP = (sys.executable, "-m", "pip")


def build_wheel(work: Path) -> Path:
    """The plugin as the checkout has it."""
    _call(*PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", work / "wheel", ROOT)
    (wheel,) = (work / "wheel").glob("pytest_isolate_ns-*.whl")
    return wheel


def prepare(work: Path, row: dict[str, Any], wheel: Path) -> Suite:
    """Fetch, unpack and install, unless that is done already; the plugin anew each time."""
    name, version = row["name"], row["version"]
    place = work / "sources" / f"{name}-{version}"
    python = place / "environment" / "bin" / "python"
    ready = place / "ready.json"
    if not ready.exists() or json.loads(ready.read_text()) != _needs(row):
        source = _unpack(work, place, name, version)
        _call(sys.executable, "-m", "venv", "--clear", place / "environment")
        for what in (*_needs(row), str(wheel)):
            target = f"{source}{what[1:]}" if what.startswith(".") else what
            _call(python, "-m", "pip", "install", "--quiet", target)
        ready.write_text(json.dumps(_needs(row)))
    _call(python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", wheel)
    return Suite(
        name=name,
        source=next(path for path in (place / "source").iterdir() if path.is_dir()),
        python=str(python),
        runs=(tuple(row.get("arguments", ())),),
        env=row.get("env", {}),
        explained=tuple(explanations(row.get("explained", ()))),
    )


def _needs(row: dict[str, Any]) -> list[str]:
    """What pip is to install, one after the other: a suite may want another pytest than ours, which has the
    last word."""
    return [
        row.get("install", "."),
        *row.get("requirements", ()),
        "pytest-xdist",
        row.get("pytest", PYTEST),
    ]


def _unpack(work: Path, place: Path, name: str, version: str) -> Path:
    downloads = work / "downloads" / f"{name}-{version}"
    if not [*downloads.glob("*.tar.gz")]:
        # Not `:all:`, which would have pip build setuptools and all it needs from sources too.
        only = ("--no-binary", name, "--no-deps")
        _call(*PIP, "download", "--quiet", *only, "--dest", downloads, f"{name}=={version}")
    (sdist,) = downloads.glob("*.tar.gz")
    # Not by tarfile: without its filters, which 3.11.4 brings, a member may lead out of the directory.
    (place / "source").mkdir(parents=True, exist_ok=True)
    _call("tar", "--extract", "--no-same-owner", "--directory", place / "source", "--file", sdist)
    (source,) = (path for path in (place / "source").iterdir() if path.is_dir())
    return source


def _call(*command: object) -> None:
    subprocess.run([*map(str, command)], check=True)

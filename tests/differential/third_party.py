"""Suites of others: fetched from PyPI as sdists, each in a virtual environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.differential.examine import Examiner, Verdict
from tests.differential.explained import explanations, load_toml
from tests.differential.modes import MODES
from tests.differential.suite import Suite

__all__ = ["main", "prepare", "prepare_pytest"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = HERE / "suites.toml"
RESULTS = HERE / "suites_results.json"
PYTEST = "pytest==9.2.0"
PAGE = ROOT / "docs" / "explanation" / "third-party-suites.md"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    version: str
    about: str
    tests: int
    differences: int
    explained: int
    unsteady: int
    plain_s: float
    isolated_s: float


def main(work: Path, names: Collection[str]) -> int:
    """Run them, and write the table; rows of suites that are not among ``names`` stay as they are."""
    rows = _chosen(load_toml(DATA)["suite"], names)
    examiner = Examiner(work)
    wheel = build_wheel(work)
    good = True
    for row in rows:
        verdict = examiner.examine(prepare(work, row, wheel), "isolated", MODES["isolated"])
        print(*verdict.lines(), sep="\n", flush=True)
        good = good and verdict.good
        _keep(_row(row, verdict))
    _write_page()
    return 0 if good else 1


def prepare_pytest(work: Path, names: Collection[str]) -> list[Suite]:
    """pytest's own tests, of the version that is installed, in parts: the parts that ``pytest.toml`` names."""
    import pytest

    data = load_toml(HERE / "pytest.toml")
    whole = data["suite"] | {"version": pytest.__version__}
    suite = prepare(work, whole, build_wheel(work))
    known = explanations(data.get("explained", ()))
    return [
        Suite(
            name=f"pytest-{part['name']}",
            source=suite.source,
            python=suite.python,
            runs=((*whole["arguments"], *part["arguments"]),),
            explained=tuple(known),
            timeout_s=3600.0,
        )
        for part in _chosen(data["part"], names)
        if names or part.get("default", True)
    ]


def _chosen(rows: Iterable[dict[str, Any]], names: Collection[str]) -> list[dict[str, Any]]:
    found = [row for row in rows if not names or row["name"] in names]
    if unknown := set(names) - {row["name"] for row in found}:
        raise SystemExit(f"not in the data: {', '.join(sorted(unknown))}")
    return found


def build_wheel(work: Path) -> Path:
    """The plugin as the checkout has it."""
    _call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", work / "wheel", ROOT)
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
        for what in _needs(row):
            target = f"{source}{what[1:]}" if what.startswith(".") else what
            _call(python, "-m", "pip", "install", "--quiet", target)
        _call(python, "-m", "pip", "install", "--quiet", wheel)
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
    """What pip is to install, in order. One command each: a suite may pin an older pytest than ours."""
    return [
        row.get("install", "."),
        *row.get("requirements", ()),
        "pytest-xdist",
        row.get("pytest", PYTEST),
    ]


def _unpack(work: Path, place: Path, name: str, version: str) -> Path:
    downloads = work / "downloads" / f"{name}-{version}"
    if not [*downloads.glob("*.tar.gz")]:
        _call(
            sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps",
            "--dest", downloads, f"{name}=={version}",
        )  # fmt: skip
    (sdist,) = downloads.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(place / "source", filter="data")
    (source,) = (path for path in (place / "source").iterdir() if path.is_dir())
    return source


def _call(*command: object) -> None:
    subprocess.run([*map(str, command)], check=True)


# ---- the table --------------------------------------------------------------------------------------


def _row(row: dict[str, Any], verdict: Verdict) -> Row:
    found = verdict.comparison
    assert verdict.plain is not None
    return Row(
        name=row["name"],
        version=row["version"],
        about=row["about"],
        tests=verdict.plain.tests,
        differences=len(found.unexplained),
        explained=len({difference.nodeid for difference, _ in found.explained}),
        unsteady=len(found.unsteady),
        plain_s=round(verdict.plain.wall_s, 1),
        isolated_s=round(verdict.isolated.wall_s, 1),
    )


def _keep(row: Row) -> None:
    rows = {old.name: old for old in _results()} | {row.name: row}
    text = json.dumps([asdict(rows[name]) for name in sorted(rows)], indent=1)
    RESULTS.write_text(text + "\n")


def _results() -> list[Row]:
    return [Row(**row) for row in json.loads(RESULTS.read_text())] if RESULTS.exists() else []


def _write_page() -> None:
    rows = _results()
    total = sum(row.tests for row in rows)
    lines = [
        "<!-- Generated by `python -m tests.differential suites`: change tests/differential/, not this page. -->",
        "",
        "# Third-party suites",
        "",
        f"The tests of {len(rows)} projects, {total:,} together, run plain and with `--isolate-all`, and compared",
        "test by test: phases, outcomes, failure texts, captured output, properties, warnings, keywords, and the",
        "exit code. A difference counts unless a reason for it stands below.",
        "",
        "| suite | what it is like | tests | unexplained differences | tests explained | plain | isolated |",
        "|---|---|---:|---:|---:|---:|---:|",
        *(
            f"| {row.name} {row.version} | {row.about} | {row.tests:,} | {row.differences} | {row.explained} "
            f"| {row.plain_s:.1f} s | {row.isolated_s:.1f} s |"
            for row in rows
        ),
        f"| **together** | | **{total:,}** | **{sum(row.differences for row in rows)}** "
        f"| **{sum(row.explained for row in rows)}** | | |",
        "",
        "## Differences with a reason",
        "",
    ]
    for suite in load_toml(DATA)["suite"]:
        for explanation in explanations(suite.get("explained", ())):
            lines.append(f"- {suite['name']}, `{explanation.tests}`: {explanation.reason}")
    PAGE.write_text("\n".join(lines) + "\n")

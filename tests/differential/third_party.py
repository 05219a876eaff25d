"""The suites of ``suites.toml``, and pytest's own with ``pytest.toml``."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.differential.examine import Verdict
from tests.differential.explained import explanations, load_toml
from tests.differential.fetch import build_wheel, prepare
from tests.differential.suite import Suite
from tests.differential.table import Row, keep, write_page

__all__ = ["PYTEST_DATA", "SUITES_DATA", "record", "suites", "suites_of_pytest"]

HERE = Path(__file__).parent
SUITES_DATA = HERE / "suites.toml"
PYTEST_DATA = HERE / "pytest.toml"


def suites(work: Path, names: Collection[str]) -> Iterable[Suite]:
    """Each is fetched when its turn has come."""
    rows = _chosen(load_toml(SUITES_DATA)["suite"], names)
    wheel = build_wheel(work)
    return (prepare(work, row, wheel) for row in rows)


def suites_of_pytest(work: Path, names: Collection[str]) -> list[Suite]:
    """pytest's own tests, of the version that is installed, in the parts that ``pytest.toml`` names."""
    data = load_toml(PYTEST_DATA)
    whole = prepare(work, data["suite"] | {"version": pytest.__version__}, build_wheel(work))
    known = tuple(explanations(data.get("explained", ())))
    return [
        replace(
            whole,
            name=f"pytest-{part['name']}",
            runs=(tuple(part["arguments"]),),
            explained=known,
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


def record(verdict: Verdict) -> None:
    """A line of the table in the documentation; those of other suites stay as they are."""
    assert verdict.plain is not None
    found = verdict.comparison
    rows = {row["name"]: row for row in load_toml(SUITES_DATA)["suite"]}
    about = {"version": pytest.__version__} | load_toml(PYTEST_DATA)["suite"]
    row = rows.get(verdict.suite.name, about)
    keep(
        Row(
            name=verdict.suite.name,
            version=row["version"],
            about=row["about"],
            tests=verdict.plain.tests,
            differences=len(found.unexplained),
            explained=len({difference.nodeid for difference, _ in found.explained}),
            unsteady=len({name.rpartition(": ")[0] for name in found.unsteady}),
            plain_s=round(verdict.plain.wall_s, 1),
            isolated_s=round(verdict.isolated.wall_s, 1),
        )
    )
    write_page({name: row.get("explained", []) for name, row in rows.items()} | {"pytest": _of_pytest()})


def _of_pytest() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = load_toml(PYTEST_DATA).get("explained", [])
    return rows

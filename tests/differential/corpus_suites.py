"""The suites that were written for the purpose: directories of ``suites/``, with what is special about each in
``corpus.toml``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from tests.differential.explained import explanations, load_toml
from tests.differential.suite import Expected, Suite
from tests.on_demand import ALL_OFF

__all__ = ["suites"]

HERE = Path(__file__).parent
SOURCE = HERE / "corpus"


def suites(names: Collection[str] = ()) -> list[Suite]:
    """Those of these names; all without names. Raises SystemExit for a name that is none."""
    rows = load_toml(HERE / "corpus.toml")["suite"]
    if unknown := set(names) - {row["name"] for row in rows}:
        raise SystemExit(f"no suite {', '.join(sorted(unknown))} in corpus.toml")
    return [
        Suite(
            name=row["name"],
            source=SOURCE / row.get("source", row["name"]),
            runs=tuple((*ALL_OFF, *run) for run in row.get("runs", [[]])),
            files=tuple(row.get("files", ())),
            lines=row.get("lines", ""),
            modes=tuple(row.get("modes", ())),
            env=row.get("env", {}),
            explained=tuple(explanations(row.get("explained", ()))),
            expected={
                nodeid: Expected(outcome=tuple(test["outcome"]), says=test.get("says", ""))
                for nodeid, test in row.get("expected", {}).items()
            },
            timeout_s=120.0,
        )
        for row in rows
        if not names or row["name"] in names
    ]

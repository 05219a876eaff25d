"""``pytest-isolate baseline``: from the records of a strict run to a file of known violations."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TextIO

from pytest_isolate.account import Account, AccountError, read
from pytest_isolate.baseline import Baseline, BaselineError, Known, known_as

__all__ = ["add_arguments", "baseline"]

RECORDS = "isolate.jsonl"
OUTPUT = "isolate-baseline.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        default=Path(RECORDS),
        help=f"what --isolate-json wrote in a run with --isolate-strict (default: {RECORDS})",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        default=Path(OUTPUT),
        help=f"for the option isolate_baseline (default: {OUTPUT})",
    )
    parser.add_argument(
        "--shrink", action="store_true", help="only take away what no longer occurs, and add nothing"
    )


def baseline(arguments: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Write the file; what it has of tests that the records do not know stays. 1 if that fails."""
    try:
        account = read(arguments.json)
        before = Baseline.read(arguments.output) if arguments.output.exists() or arguments.shrink else None
    except (AccountError, BaselineError) as error:
        err.write(f"{error}\n")
        return 1
    after = _merge(before or Baseline(), account, shrink=arguments.shrink)
    try:
        _replace(arguments.output, after.to_json())
    except OSError as error:
        err.write(f"cannot write {arguments.output}: {error.strerror}\n")
        return 1
    old, new = (_entries(each) for each in (before or Baseline(), after))
    changes = f"{len(new - old)} added, {len(old - new)} taken away"
    out.write(f"{arguments.output}: {after.count} known violations of {len(after.tests)} tests; {changes}\n")
    return 0


def _merge(before: Baseline, account: Account, *, shrink: bool) -> Baseline:
    tests = dict(before.tests)
    found: dict[str, set[Known]] = {}
    for record in account.records:
        nodeid, violations = record["nodeid"], record["violations"] or ()
        seen = found.setdefault(nodeid, set())  # with several workers a test may have run several times
        seen |= {known_as(violation["kind"], violation["what"]) for violation in violations}
        is_degraded = bool((record["enforced"] or {}).get("missing"))
        if record["outcome"] != "passed" or record["violations"] is None or is_degraded:
            seen |= before.tests.get(nodeid, frozenset())  # it may not have come to them, or nobody saw
    for nodeid, seen in found.items():
        known = before.tests.get(nodeid, frozenset())
        tests[nodeid] = frozenset(seen & known if shrink else seen)
    return Baseline({nodeid: known for nodeid, known in tests.items() if known})


def _entries(baseline: Baseline) -> set[tuple[str, Known]]:
    return {(nodeid, each) for nodeid, known in baseline.tests.items() for each in known}


def _replace(path: Path, text: str) -> None:
    """A reader finds the old file or the new one."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)

"""Rounds of interleaved runs: what differs within a round is the runners', and not the machine's."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runners import PLAIN, Runner, Timing
from benchmarks.suite import write_suite

__all__ = ["Case", "Result", "measure"]

#: Of a runner that starts an interpreter per test.
MOST_STARTS = 5


@dataclass(frozen=True, slots=True)
class Case:
    body: str
    tests: int
    ballast_mb: int


@dataclass(frozen=True, slots=True)
class Result:
    """Medians over the rounds. ``ratio``: of the run's wall time to plain pytest's of the same round."""

    runner: str
    case: Case
    wall_s: float
    ratio: float
    added_wall_ms: float  #: per test, over plain pytest
    added_cpu_ms: float


def measure(case: Case, runners: Sequence[Runner], work: Path, rounds: int) -> list[Result]:
    """A runner that fails is said so, and left out."""
    # Below a path that every user may enter.
    suite = work / "suites" / f"{case.body}-{case.tests}-{case.ballast_mb}".replace(" ", "-")
    write_suite(suite, case.body, case.tests, case.ballast_mb)
    suite.chmod(0o777)
    taken: dict[str, list[Timing]] = {}
    ordered = [PLAIN, *(runner for runner in runners if runner is not PLAIN)]
    for number in range(rounds + 1):  # the first compiles, and is not counted
        for runner in ordered:
            if number and runner.name not in taken:
                continue
            try:
                timing = runner.run(suite, work, _count(case, runner))
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                print(f"{runner.name}: {error}", file=sys.stderr)
                taken.pop(runner.name, None)
                continue
            taken.setdefault(runner.name, []).extend([timing] if number else [])
    plain = taken[PLAIN.name]
    return [_result(case, each, taken[each.name], plain) for each in ordered if each.name in taken]


def _count(case: Case, runner: Runner) -> int:
    return min(case.tests, MOST_STARTS) if runner.each else case.tests


def _result(case: Case, runner: Runner, taken: list[Timing], plain: list[Timing]) -> Result:
    count = _count(case, runner)
    pairs = [*zip(taken, plain, strict=True)]
    # One that starts an interpreter for each test pays for that with each.
    added = [(t, Timing(0, 0) if runner.each else p) for t, p in pairs]
    return Result(
        runner=runner.name,
        case=case,
        wall_s=statistics.median(t.wall_s * case.tests / count for t in taken),
        ratio=statistics.median(t.wall_s * case.tests / count / p.wall_s for t, p in pairs),
        added_wall_ms=statistics.median((t.wall_s - p.wall_s) / count * 1e3 for t, p in added),
        added_cpu_ms=statistics.median((t.cpu_s - p.cpu_s) / count * 1e3 for t, p in added),
    )

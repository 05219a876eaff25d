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


@dataclass(frozen=True, slots=True)
class Case:
    body: str
    tests: int
    ballast_mb: int
    runners: tuple[str, ...] = ()  #: only these, where the others would take too long


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
    taken: dict[str, list[tuple[Timing, Timing]]] = {}  # beside plain pytest's of the same round
    for number in range(rounds + 1):
        plain = PLAIN.run(suite, work, case.tests)
        for runner in runners:
            if number and runner.name not in taken:
                continue
            # The first round compiles, and makes environments: it is not counted, and need not be long.
            count = min(case.tests, runner.most or case.tests, case.tests if number else 5)
            try:
                timing = plain if number and runner is PLAIN else runner.run(suite, work, count)
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                print(f"{runner.name}: {error}", file=sys.stderr)
                taken.pop(runner.name, None)
                continue
            taken.setdefault(runner.name, []).extend([(timing, plain)] if number else [])
    return [_result(case, each, taken[each.name]) for each in runners if each.name in taken]


def _result(case: Case, runner: Runner, taken: list[tuple[Timing, Timing]]) -> Result:
    count = min(case.tests, runner.most or case.tests)
    # One that starts an interpreter for each test pays for that with each. A part of the tests is compared
    # with a part of plain pytest's time, start-up included, which is little beside what such a runner adds.
    share = 0 if runner.each else count / case.tests
    whole = [(t.wall_s * case.tests / count, p.wall_s) for t, p in taken]
    return Result(
        runner=runner.name,
        case=case,
        wall_s=statistics.median(wall_s for wall_s, _ in whole),
        ratio=statistics.median(wall_s / plain_s for wall_s, plain_s in whole),
        added_wall_ms=statistics.median((t.wall_s - p.wall_s * share) / count * 1e3 for t, p in taken),
        added_cpu_ms=statistics.median((t.cpu_s - p.cpu_s * share) / count * 1e3 for t, p in taken),
    )

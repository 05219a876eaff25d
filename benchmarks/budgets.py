"""What the project has set itself as a goal, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.flatness import Flatness
from benchmarks.measure import Result

__all__ = ["Budget", "budgets"]


class Budget(NamedTuple):
    what: str
    goal: str
    measured: str


def budgets(results: Sequence[Result], flatness: Flatness) -> Iterator[Budget]:
    """Those whose runs are among the results."""
    by_place = {(r.case.body, r.case.tests, r.case.ballast_mb, r.runner): r for r in results}

    def find(body: str, tests: int, ballast_mb: int, *names: str) -> list[Result]:
        return [
            by_place[body, tests, ballast_mb, n] for n in names if (body, tests, ballast_mb, n) in by_place
        ]

    trivial = ("trivial", 1000, 0)
    match find(*trivial, "isolated", "fork only"):
        case [ours, fork]:
            yield Budget("one test, against the fork-only runner", "1.2", _both(ours, fork))
    match find("trivial", 50, 960, "isolated", "fork only"):
        case [ours, fork]:
            yield Budget("the same, pytest holding 960 MB", "1.1", _both(ours, fork))
    match find(*trivial, "isolated", "isolated, 2 jobs", "pytest-forked 1.7.5"):
        case [ours, jobs, forked]:
            yield Budget("one test, against pytest-forked, wall", "0.85", _ratio(ours, forked))
            yield Budget("the same with `--isolate-jobs=2`", "0.5", _ratio(jobs, forked))
    names = ("isolated", "fork only")
    quiet = zip(find("25 ms of sleep", 100, 0, *names), find("trivial", 100, 0, *names), strict=False)
    match [after.added_wall_ms - without.added_wall_ms for after, without in quiet]:
        case [more_ms, fork_ms]:
            measured = f"{more_ms:+.1f} ms, fork only {fork_ms:+.1f} ms"
            yield Budget("one test after 25 ms of quiet, more than without", "0.5 ms", measured)
    for tool in ("bwrap, each test", "runc, each test"):
        match find(*trivial, "isolated", tool):
            case [ours, each]:
                yield Budget(
                    f"one test, against {tool.split(',')[0]} with a pytest of its own",
                    "1/30",
                    f"1/{each.added_wall_ms / ours.added_wall_ms:.0f}",
                )
    match find("25 ms of cpu", 100, 0, "isolated, 2 jobs", "pytest-xdist -n2"):
        case [jobs, xdist]:
            yield Budget("100 tests of 25 ms on 2 processors, of plain pytest", "0.6", f"{jobs.ratio:.2f}")
            yield Budget("the same, of pytest-xdist -n2", "1", f"{jobs.wall_s / xdist.wall_s:.2f}")
    change = flatness.last_ms / flatness.first_ms - 1
    tenth = f"{flatness.tests // 10:,}"
    yield Budget(f"last {tenth} of {flatness.tests:,} tests, more than the first", "10 %", f"{change:+.1%}")
    yield Budget(
        "memory of pytest, per test after the first tenth",
        f"{flatness.plain_growth_bytes / 1024:.1f} KiB, as plain",
        f"{flatness.growth_bytes / 1024:.1f} KiB",
    )


def _both(ours: Result, other: Result) -> str:
    cpu = ours.added_cpu_ms / other.added_cpu_ms
    return f"{_ratio(ours, other)} wall, {cpu:.2f} cpu"


def _ratio(ours: Result, other: Result) -> str:
    return f"{ours.added_wall_ms / other.added_wall_ms:.2f}"

"""Whether the last tests of a long session cost what its first ones do, and pytest as much memory."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from benchmarks.runners import RUNNERS
from benchmarks.suite import write_suite

__all__ = ["Flatness", "measure_flatness"]


@dataclass(frozen=True, slots=True)
class Flatness:
    tests: int
    first_ms: float  #: median from one test's end to the next one's, in the first tenth
    last_ms: float
    growth_bytes: float  #: of pytest's memory per test, after the first tenth
    plain_growth_bytes: float  #: the same without isolation: pytest keeps the reports


def measure_flatness(tests: int, work: Path) -> Flatness:
    suite = work / "suites" / f"flatness-{tests}"
    write_suite(suite, "trivial", tests, 0)
    isolated, plain = (_samples(name, suite, work, tests) for name in ("isolated", "plain pytest"))
    tenth = tests // 10
    steps = [later - earlier for (earlier, _), (later, _) in pairwise(isolated)]
    return Flatness(
        tests=tests,
        first_ms=statistics.median(steps[:tenth]) * 1e3,
        last_ms=statistics.median(steps[-tenth:]) * 1e3,
        growth_bytes=_growth(isolated, tenth),
        plain_growth_bytes=_growth(plain, tenth),
    )


def _growth(samples: list[tuple[float, int]], tenth: int) -> float:
    return (samples[-1][1] - samples[tenth][1]) / (len(samples) - 1 - tenth)


def _samples(name: str, suite: Path, work: Path, tests: int) -> list[tuple[float, int]]:
    """(when, resident bytes) at the end of each test."""
    (runner,) = (each for each in RUNNERS if each.name == name)
    samples = suite / "samples.json"
    sampling = replace(runner, arguments=(*runner.arguments, "-p", "sampling"), env={"SAMPLES": str(samples)})
    sampling.run(suite, work, tests)
    return [(at, size_bytes) for at, size_bytes in json.loads(samples.read_text())]

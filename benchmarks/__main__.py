"""``python -m benchmarks``: this plugin and others over the same suites, and what isolation adds."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.flatness import measure_flatness
from benchmarks.measure import Case, measure
from benchmarks.page import table, write
from benchmarks.runners import RUNNERS
from benchmarks.suite import BODIES

#: In CI.
SMALL_RUNNERS = ("plain pytest", "fork only", "isolated", "isolated, 2 jobs", "pytest-xdist -n2")
SMALL = (Case("trivial", 100, 0, SMALL_RUNNERS), Case("25 ms of cpu", 40, 0, SMALL_RUNNERS))
FEW = ("plain pytest", "fork only", "isolated", "isolated, 2 jobs", "pytest-forked 1.7.5")
LARGE = (
    Case("trivial", 1000, 0),
    Case("trivial", 10_000, 0, ("plain pytest", "fork only", "isolated")),
    Case("trivial", 200, 160, FEW),
    Case("trivial", 50, 960, FEW),
    Case("trivial", 100, 0, ("plain pytest", "fork only", "isolated")),
    Case("25 ms of cpu", 100, 0),
    Case("25 ms of sleep", 100, 0),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--small", action="store_true", help="few tests and no other plugins, as in CI")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--runner", action="append", metavar="NAME", help="only these; as often as wished")
    parser.add_argument("--body", choices=[*BODIES], help="one suite of this kind")
    parser.add_argument("--tests", type=int, default=1000, metavar="N")
    parser.add_argument("--ballast", type=int, default=0, metavar="MB", help="memory that pytest holds")
    parser.add_argument("--write", action="store_true", help="into docs/explanation/benchmarks.md")
    options = parser.parse_args()
    cases: tuple[Case, ...] = SMALL if options.small else LARGE
    if options.body:
        cases = (Case(options.body, options.tests, options.ballast),)
    results = []
    with tempfile.TemporaryDirectory(prefix="isolate-benchmarks-", dir="/var/tmp") as directory:
        work = Path(directory)
        work.chmod(0o755)
        for case in cases:
            wanted = options.runner or case.runners or [runner.name for runner in RUNNERS]
            found = measure(case, [r for r in RUNNERS if r.name in wanted], work, options.rounds)
            print(
                f"\n{case.tests:,} tests, {case.body}, {case.ballast_mb} MB held",
                table(found),
                sep="\n\n",
                flush=True,
            )
            results += found
        if options.write:
            write(results, measure_flatness(10_000, work), options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m benchmarks``: this plugin and others over the same suites, and what isolation adds."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Case, measure
from benchmarks.page import table, write
from benchmarks.runners import RUNNERS
from benchmarks.suite import BODIES

#: In CI: who needs no environment of its own.
SMALL = ("plain pytest", "fork only", "isolated", "isolated, 2 jobs", "pytest-xdist -n2")
LARGE = (
    Case("trivial", 200, 0),
    Case("trivial", 200, 150),
    Case("trivial", 50, 1000),
    Case("25 ms of cpu", 100, 0),
    Case("25 ms of sleep", 100, 0),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--small", action="store_true", help="few tests and no other plugins, as in CI")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--runner", action="append", metavar="NAME", help="only these; as often as wished")
    parser.add_argument("--body", choices=[*BODIES], help="one suite of this kind")
    parser.add_argument("--tests", type=int, default=1000, metavar="N")
    parser.add_argument("--ballast", type=int, default=0, metavar="MB", help="memory that pytest holds")
    parser.add_argument("--write", action="store_true", help="into docs/explanation/benchmarks.md")
    options = parser.parse_args()
    cases: tuple[Case, ...] = (Case(options.body, options.tests, options.ballast),) if options.body else LARGE
    if options.small:
        cases = (Case("trivial", 100, 0), Case("25 ms of cpu", 40, 0))
    wanted = options.runner or (SMALL if options.small else [runner.name for runner in RUNNERS])
    runners = [runner for runner in RUNNERS if runner.name in wanted]
    results = []
    with tempfile.TemporaryDirectory(prefix="isolate-benchmarks-", dir="/var/tmp") as work:
        Path(work).chmod(0o755)
        for case in cases:
            suited = [runner for runner in runners if not runner.slow or case is cases[0]]
            found = measure(case, suited, Path(work), options.rounds)
            print(f"\n{case.tests} tests, {case.body}, {case.ballast_mb} MB held", table(found), sep="\n\n")
            results += found
    if options.write:
        write(results, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())

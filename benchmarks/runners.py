"""Whoever runs the suites: each a command, and the environment that it needs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.on_demand import ALL_OFF

__all__ = ["PLAIN", "RUNNERS", "Runner", "Timing"]

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Timing:
    wall_s: float
    cpu_s: float  #: of the run and all that it waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    name: str
    arguments: tuple[str, ...] = ()  #: of pytest
    requirements: tuple[str, ...] = ()  #: of an environment of its own; none: the one that runs this
    env: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()  #: a command that runs commands
    each: bool = False  #: a command for each test, and not for the suite
    slow: bool = False  #: by seconds: for the first case only
    user: int | None = None

    def python(self, work: Path) -> str:
        """Its interpreter; makes the environment when it is wanted first."""
        if not self.requirements:
            return sys.executable
        directory = work / "environments" / self.name.replace(" ", "-")
        python = directory / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", directory], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", *self.requirements], check=True)
        return str(python)

    def run(self, suite: Path, work: Path, tests: int) -> Timing:
        """Once. Raises RuntimeError if not all passed."""
        pytest = [self.python(work), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        prefix = [word.format(here=suite) for word in self.prefix]
        command = [*prefix, *pytest, *self.arguments]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        env = inherited | {"PYTHONPATH": str(HERE), **self.env}
        if not self.each:
            return _timed(command, suite, env, f"{tests} passed", self.user)
        timings = [
            _timed([*command, f"test_suite.py::test_it[{n}]"], suite, env, "1 passed", self.user)
            for n in range(tests)
        ]
        return Timing(sum(t.wall_s for t in timings), sum(t.cpu_s for t in timings))


def _timed(command: list[str], suite: Path, env: dict[str, str], expected: str, user: int | None) -> Timing:
    log = suite / "log.txt"
    log.unlink(missing_ok=True)
    started = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=suite, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, user=user
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - started
    said = log.read_text(errors="replace")
    if process.returncode != 0 or expected not in said:
        raise RuntimeError(f"{' '.join(command)} did not end with {expected!r}:\n{said[-2000:]}")
    return Timing(wall_s, usage.ru_utime + usage.ru_stime)


#: Without what would slow every run.
QUIET = (*ALL_OFF, "-p", "no:hypothesispytest")
PLAINLY = (*QUIET, "-p", "no:isolate", "-p", "no:xdist")
ISOLATED = (*QUIET, "-p", "no:xdist", "--isolate-all", "--isolate-top=0")
FORKING = (*PLAINLY, "-p", "fork_only")
BWRAP = "bwrap --unshare-all --ro-bind / / --dev /dev --proc /proc --bind {here} {here}"
NOBODY = 65534

PLAIN = Runner(name="plain pytest", arguments=PLAINLY)
RUNNERS = (
    PLAIN,
    Runner(name="bare fork", arguments=FORKING, env={"FORK_ONLY": "bare"}),
    Runner(name="fork only", arguments=FORKING),
    Runner(name="isolated", arguments=ISOLATED),
    Runner(name="isolated, 2 jobs", arguments=(*ISOLATED, "--isolate-jobs=2")),
    Runner(name="isolated, 4 jobs", arguments=(*ISOLATED, "--isolate-jobs=4")),
    Runner(name="isolated, rootless", arguments=ISOLATED, user=NOBODY),
    Runner(name="pytest-xdist -n2", arguments=(*QUIET, "-p", "no:isolate", "-n2")),
    Runner(
        name="pytest-forked 1.7.5",
        arguments=("--forked",),
        requirements=("pytest-forked==1.7.5", "pytest==9.1.*"),
    ),
    Runner(
        name="pytest-isolate 0.0.17",
        arguments=("--isolate",),
        requirements=("pytest-isolate==0.0.17", "pytest==9.1.*"),
    ),
    Runner(
        name="pytest-isolated 0.6.0",
        arguments=("--isolated",),
        requirements=("pytest-isolated==0.6.0", "pytest==9.2.*"),
        slow=True,
    ),
    Runner(name="bwrap, each test", arguments=PLAINLY, prefix=tuple(BWRAP.split()), each=True),
)

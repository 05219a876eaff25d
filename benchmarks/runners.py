"""Whoever runs the suites: each a command, and the environment that it needs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.containers import in_bwrap, in_runc

__all__ = ["PLAIN", "RUNNERS", "Runner", "Timing"]

HERE = Path(__file__).parent
#: One environment for all that can share it, with nothing in it that would slow or enlarge a run.
COMMON = (str(HERE.parent), "pytest==9.2.*", "pytest-xdist==3.8.*")
#: The newest pytest on which pytest-forked and pytest-isolate pass a test.
OLDER = "pytest==9.1.*"


@dataclass(frozen=True, slots=True)
class Timing:
    wall_s: float
    cpu_s: float  #: of the run and all that it waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    name: str
    arguments: tuple[str, ...] = ()  #: of pytest
    requirements: tuple[str, ...] = COMMON  #: of its environment
    env: Mapping[str, str] = field(default_factory=dict)
    wrap: Callable[[list[str], Path], list[str]] | None = None  #: the command that runs a command on a suite
    each: bool = False  #: a command for each test, and not for the suite
    most: int | None = None  #: tests of a suite, for one that takes long
    user: int | None = None

    def python(self, work: Path) -> str:
        """Its interpreter; makes the environment when it is wanted first."""
        names = ("common",) if self.requirements == COMMON else (self.name,)
        directory = work.joinpath("environments", *names).with_name(names[0].replace(" ", "-"))
        python = directory / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", directory], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", *self.requirements], check=True)
        return str(python)

    def run(self, suite: Path, work: Path, tests: int) -> Timing:
        """Once. Raises RuntimeError if not all passed."""
        command = [self.python(work), "-m", "pytest", "-q", "-p", "no:cacheprovider", *self.arguments]
        unwanted = ("PYTEST_", "PYTHON")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        env = inherited | {"PYTHONPATH": str(HERE), "TESTS": str(tests), **self.env}
        if not self.each:
            return self._timed(command, suite, env, f"{tests} passed")
        timings = [
            self._timed([*command, f"test_suite.py::test_it[{n}]"], suite, env, "1 passed")
            for n in range(tests)
        ]
        return Timing(sum(t.wall_s for t in timings), sum(t.cpu_s for t in timings))

    def _timed(self, command: list[str], suite: Path, env: dict[str, str], expected: str) -> Timing:
        if self.wrap is not None:
            command = self.wrap(command, suite)
        log = suite / "log.txt"
        log.unlink(missing_ok=True)
        started = time.perf_counter()
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=suite, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, user=self.user
            )
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.perf_counter() - started
        said = log.read_text(errors="replace")
        if process.returncode != 0 or expected not in said:
            raise RuntimeError(f"{' '.join(command)} did not end with {expected!r}:\n{said[-2000:]}")
        return Timing(wall_s, usage.ru_utime + usage.ru_stime)


NO_XDIST = ("-p", "no:xdist")
PLAINLY = ("-p", "no:isolate", *NO_XDIST)
ISOLATED = (*NO_XDIST, "--isolate-all", "--isolate-top=0")
FORKING = (*PLAINLY, "-p", "fork_only")
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
    Runner(name="pytest-xdist -n2", arguments=("-p", "no:isolate", "-n2")),
    Runner(name="pytest-forked 1.7.5", arguments=("--forked",), requirements=("pytest-forked==1.7.5", OLDER)),
    Runner(
        name="pytest-isolate 0.0.17",
        arguments=("--isolate",),
        requirements=("pytest-isolate==0.0.17", OLDER),
        most=200,
    ),
    Runner(
        name="pytest-isolated 0.6.0",
        arguments=("--isolated",),
        requirements=("pytest-isolated==0.6.0", "pytest==9.2.*"),
        most=10,
    ),
    Runner(name="pytest, each test", arguments=PLAINLY, each=True, most=5),
    Runner(name="bwrap, each test", arguments=PLAINLY, wrap=in_bwrap, each=True, most=5),
    Runner(name="runc, each test", arguments=PLAINLY, wrap=in_runc, each=True, most=5),
)

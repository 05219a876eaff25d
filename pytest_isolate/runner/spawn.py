"""``start="spawn"``, first half: the forked child, in its sandbox already, becomes a fresh interpreter.

It runs ``python -m pytest`` with the arguments of the session, so that every plugin and conftest file finds
its options. What else there is to know is a :class:`Job`: JSON in a memfd, whose number an environment
variable names. ``fresh.py`` takes it from there.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

from pytest_isolate.runner import JOB_VARIABLE, coverage_data, pytest_private
from pytest_isolate.runner.isolation import Isolation
from pytest_isolate.runner.worker import Assignment
from pytest_isolate.sandbox.roles import Child

__all__ = ["Job", "Wanted", "pass_on_arguments", "run", "session_environ"]

#: Where a worker of xdist finds what its session was started with.
WORKER_ARGUMENTS = "isolate_arguments"
#: pytest's own variables decide about plugins and options, which are the session's: the test's ``env``
#: changes them when its protocol begins.
PYTEST_VARIABLES = "PYTEST_"
#: These are meant for what the test starts: they would start coverage in the fresh interpreter a second time.
COVERAGE_VARIABLES = ("COV_CORE_", "COVERAGE_PROCESS_")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One item: several may have the same nodeid, and then their order tells them apart."""

    place: int  #: in the session that reports
    nodeid: str
    index: int  #: among those of the same nodeid


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that the fresh interpreter cannot find out by itself. Of JSON's own types."""

    items: list[Wanted]  #: the test, and those that may follow it in the same sandbox
    first: int  #: its place
    next: int | None
    earlier_attempts: int
    failed_tests: int  #: by now, for --maxfail
    path: str  #: the file to collect
    cwd: str  #: of the test; pytest itself starts where the session was started
    script_directory: str  #: first of sys.path, as in the session
    options: dict[str, Any]  #: the session's, as far as JSON knows them: plugins change them
    environ: dict[str, str | None]  #: to be set, or removed, when the protocol begins
    basetemp: str | None
    color: bool
    faulthandler: bool
    coverage: dict[str, Any] | None  #: if nobody but us starts it there
    isolation: dict[str, Any]
    worker_input: dict[str, Any] | None  #: of xdist
    born_s: float
    channel_fd: int
    faulthandler_fd: int
    output_fds: list[int]  #: stdout and stderr
    capture_fds: list[int]  #: where the session's capture keeps both
    log_file_fd: int | None

    @property
    def descriptors(self) -> list[int]:
        """All that the fresh interpreter gets, but for the job's own."""
        numbers = (
            self.channel_fd,
            self.faulthandler_fd,
            self.log_file_fd,
            *self.capture_fds,
            *self.output_fds,
        )
        return [fd for fd in numbers if fd is not None]

    def renumbered(self, moved: Mapping[int, int]) -> Job:
        """With other numbers for the same descriptors."""
        return dataclasses.replace(
            self,
            channel_fd=moved[self.channel_fd],
            faulthandler_fd=moved[self.faulthandler_fd],
            output_fds=[moved[fd] for fd in self.output_fds],
            capture_fds=[moved[fd] for fd in self.capture_fds],
            log_file_fd=moved[self.log_file_fd] if self.log_file_fd is not None else None,
        )

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode("utf-8", "surrogatepass")

    @classmethod
    def from_json(cls, data: bytes) -> Job:
        fields = json.loads(data.decode("utf-8", "surrogatepass"))
        return cls(**{**fields, "items": [Wanted(**item) for item in fields["items"]]})


def session_environ() -> dict[str, str]:
    """pytest's own variables, before the test's ``env`` changes them."""
    return {name: value for name, value in os.environ.items() if name.startswith(PYTEST_VARIABLES)}


def pass_on_arguments(config: pytest.Config, worker_input: dict[str, Any]) -> None:
    """In the controller of xdist: its workers do not know what the session was started with."""
    worker_input[WORKER_ARGUMENTS] = [*map(str, config.invocation_params.args)]


def run(
    assignment: Assignment,
    items: Mapping[int, pytest.Item],
    child: Child,
    session_environ: Mapping[str, str],
    loader: Sequence[str],
) -> NoReturn:
    """In the forked child: become the fresh interpreter. The environment is the test's by now.

    ``items``: those that may come to run, by their place in the session.
    """
    config = assignment.item.config
    assignment.adopt(stdin=False)
    isolation = assignment.isolation(child.channel)
    job = _job(assignment, items, child, isolation, session_environ)
    stdin_fd = pytest_private.uncaptured_fd(config, 0)
    job_fd = os.memfd_create("job", 0)
    os.chdir(config.invocation_params.dir)
    command = [*loader, sys.executable, *_interpreter_flags(), "-m", "pytest", *_arguments(config)]
    environ = _environ(job, isolation, session_environ)
    # What pytest says about itself is of interest only if it does not come to the test.
    out_fd = child.faulthandler_fd
    if child.handover is None:
        _write(job, job_fd)
        for fd in job.descriptors:
            os.set_inheritable(fd, True)
        if stdin_fd is not None:
            os.dup2(stdin_fd, 0)
        os.dup2(out_fd, 1)
        os.dup2(out_fd, 2)
        os.execve(command[0], command, environ | {JOB_VARIABLE: str(job_fd)})
    os.dup2(out_fd, 2)  # the runtime's own words
    stdin_fd = 0 if stdin_fd is None else stdin_fd
    fds = [*job.descriptors, job_fd]
    numbers = child.handover.numbers(fds)
    _write(job.renumbered(numbers), job_fd)
    environ[JOB_VARIABLE] = str(numbers[job_fd])
    child.handover.become(command, environ, fds, (stdin_fd, out_fd))


def _write(job: Job, fd: int) -> None:
    with open(fd, "wb", closefd=False) as file:
        file.write(job.to_json())


def _job(
    assignment: Assignment,
    items: Mapping[int, pytest.Item],
    child: Child,
    isolation: Isolation,
    session_environ: Mapping[str, str],
) -> Job:
    item, nextitem = assignment.item, assignment.nextitem
    config = item.config
    worker_input: dict[str, Any] | None = getattr(config, "workerinput", None)
    places = {other: place for place, other in items.items()}
    return Job(
        items=[*_wanted(item.session.items, items)],
        first=places[item],
        next=places[nextitem] if nextitem is not None else None,
        earlier_attempts=assignment.earlier_attempts,
        failed_tests=item.session.testsfailed,
        path=str(_file_of(item)),
        cwd=os.getcwd() if child.handover is None else child.handover.plan.cwd,
        script_directory=_script_directory(config, worker_input or {}),
        options=_plain(vars(config.option)),
        environ={name: os.environ.get(name) for name in _held_back({*os.environ, *session_environ})},
        basetemp=pytest_private.basetemp(config),
        color=pytest_private.has_color(config),
        faulthandler=faulthandler.is_enabled(),
        coverage=None if config.pluginmanager.hasplugin("_cov") else coverage_data.settings(),
        isolation={
            "limits": dataclasses.asdict(isolation.limits),
            "cgroup_version": isolation.cgroup_version,
            "cgroup_paths": isolation.cgroup_paths,
            "missing": isolation.missing,
            "peers": dict(isolation.peers),
        },
        worker_input=_plain(worker_input) if worker_input is not None else None,
        born_s=child.born_s,
        channel_fd=child.channel.fileno(),
        faulthandler_fd=child.faulthandler_fd,
        output_fds=[os.dup(1), os.dup(2)],
        capture_fds=pytest_private.capture_fds(config),
        log_file_fd=pytest_private.log_file_fd(config),
    )


def _wanted(session_items: Sequence[pytest.Item], items: Mapping[int, pytest.Item]) -> Iterator[Wanted]:
    nodeids = {item.nodeid for item in items.values()}
    seen: Counter[str] = Counter()
    for place, item in enumerate(session_items):
        if place in items:
            yield Wanted(place, item.nodeid, seen[item.nodeid])
        if item.nodeid in nodeids:
            seen[item.nodeid] += 1


def _file_of(item: pytest.Item) -> os.PathLike[str]:
    """The file that is collected for an item, which may itself say that it is elsewhere."""
    files = (node for node in reversed(item.listchain()) if isinstance(node, pytest.File))
    return next(files, item).path


def _script_directory(config: pytest.Config, worker_input: Mapping[str, Any]) -> str:
    argv: list[str] = worker_input.get("mainargv", sys.argv)
    if os.path.basename(argv[0]) == "__main__.py":  # python -m pytest
        return str(config.invocation_params.dir)
    return os.path.dirname(os.path.realpath(argv[0]))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that JSON knows."""
    return {name: value for name, value in values.items() if _is_plain(value)}


def _is_plain(value: object) -> bool:
    match value:
        case None | bool() | int() | float() | str():
            return True
        case list():
            return all(map(_is_plain, value))
        case dict():
            return all(isinstance(name, str) and _is_plain(inner) for name, inner in value.items())
        case _:
            return False


def _interpreter_flags() -> list[str]:
    # What multiprocessing gives to its children as well; there is no public name for it.
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    for name, value in sys._xoptions.items():  # of these it takes CPython's own
        option = name if value is True else f"{name}={value}"
        if option not in flags:
            flags += ["-X", option]
    return flags


def _arguments(config: pytest.Config) -> list[str]:
    worker_input: dict[str, Any] = getattr(config, "workerinput", {})
    arguments: Iterable[object] = worker_input.get(WORKER_ARGUMENTS, config.invocation_params.args)
    # pytest-cov begins with emptying the data files, which without a mount namespace are the session's.
    extra = ["--cov-append"] if config.pluginmanager.hasplugin("_cov") else []
    return [*extra, *map(str, arguments)]


def _held_back(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if name.startswith((PYTEST_VARIABLES, *COVERAGE_VARIABLES)))


def _environ(job: Job, isolation: Isolation, session_environ: Mapping[str, str]) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if name not in job.environ}
    environ.update(session_environ)
    if not any(name == "PYTHONHASHSEED" for name, _ in isolation.spec.env.changes):
        environ["PYTHONHASHSEED"] = "0"
    return environ

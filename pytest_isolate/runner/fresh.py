"""``start="spawn"``, second half: what the fresh interpreter does other than a pytest of its own.

It collects one file, picks the test from it and runs its protocol as the forked child does (``worker.py``).
It ends there: what plugins do at the end of a session is done by the session that reports.
"""

from __future__ import annotations

import atexit
import io
import os
import socket
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pytest_isolate.runner import FRESH_PLUGIN, JOB_VARIABLE, coverage_data, pytest_private, reruns, worker
from pytest_isolate.runner.isolation import Isolation, enter_isolation
from pytest_isolate.runner.spawn import Job, Wanted
from pytest_isolate.sandbox.channel import ChildEnd
from pytest_isolate.sandbox.messages import LONGEST_TEXT, End, NotFound
from pytest_isolate.sandbox.roles import Child
from pytest_isolate.spec import Limits, Spec

__all__ = ["begin"]

MAX_OUTPUT_BYTES = 2**14


def begin(pluginmanager: pytest.PytestPluginManager, planned: Callable[[pytest.Item], object]) -> None:
    """First of all in the fresh interpreter, as soon as pytest loads its plugins."""
    job_fd = int(os.environ.pop(JOB_VARIABLE))
    with open(job_fd, "rb") as file:
        file.seek(0)
        job = Job.from_json(file.read())
    for fd in job.descriptors:
        os.set_inheritable(fd, False)
    channel = ChildEnd(socket.socket(fileno=job.channel_fd))
    channel.claim()
    child = Child(channel, job.faulthandler_fd, job.born_s)
    worker.enter(child, use_faulthandler=job.faulthandler)
    _set_script_directory(job.script_directory)
    if job.coverage is not None:
        coverage_data.start(job.coverage)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in order with stderr, should pytest give up
    session = _FreshSession(job, child, planned)
    atexit.register(session.give_up)  # however pytest ends before the test
    pluginmanager.register(session, FRESH_PLUGIN)


def _set_script_directory(directory: str) -> None:
    """``-m`` has put the working directory first, which a session of the command ``pytest`` has not."""
    cwd = os.getcwd()
    if cwd in sys.path and not getattr(sys.flags, "safe_path", sys.flags.isolated):
        sys.path[sys.path.index(cwd)] = directory


class _FreshSession:
    """The plugin that makes a session of one test."""

    def __init__(self, job: Job, child: Child, planned: Callable[[pytest.Item], object]) -> None:
        self._job = job
        self._child = child
        self._planned = planned
        self._items: dict[int, pytest.Item] = {}  # by their place in the session that reports
        self._collected = 0
        self._failures: list[str] = []
        self._write_bytecode = sys.dont_write_bytecode
        sys.dont_write_bytecode = True  # or it would count as written by the test

    # ---- before the test ------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> Generator[None, Any, Any]:
        """Plugins have read the command line; from here on the options are the session's."""
        reruns.count_alone(config)
        vars(config.option).update(self._job.options)
        config.option.basetemp = None  # given, it would be emptied
        config.option.cacheclear = False
        config.option.log_file = os.devnull
        config.option.color = "yes" if self._job.color else "no"
        config.args = [self._job.path]
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        pytest_private.divert_hooks(session, {"pytest_sessionfinish": worker.ignore})
        if self._job.basetemp is not None:
            pytest_private.adopt_basetemp(session.config, Path(self._job.basetemp))
        if self._job.log_file_fd is not None:
            pytest_private.adopt_log_file(session.config, self._job.log_file_fd)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, Any, Any]:
        """The session has chosen the test; plugins that choose may see too little here to do so again."""
        collected = [*items]
        self._collected = len(collected)
        result = yield
        for wanted in self._job.items:
            item = _find(wanted, items) or _find(wanted, collected)
            if item is not None:
                self._items[wanted.place] = item
        items[:] = self._items.values()
        return result

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._failures.append(report.longreprtext)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self._failures.append(f"{excinfo.typename}: {excinfo.value}")

    # ---- the test -------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> object:
        if self._job.first in self._items:
            self._run(session)
        if not self._failures:
            found = f"{self._collected} collected from {self._job.path}"
            self._failures.append(
                f"it is not among the {found}; collecting a file alone must find it, each time"
            )
        return True

    def _run(self, session: pytest.Session) -> NoReturn:
        job = self._job
        atexit.unregister(self.give_up)
        item = self._items[job.first]
        enter_isolation(self._isolation(item))
        session.testsfailed = job.failed_tests
        if job.worker_input is not None:
            # Late: plugins have started by now, and would have started as in a worker with a controller.
            session.config.workerinput = job.worker_input  # type: ignore[attr-defined]
        for name, value in job.environ.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        os.chdir(job.cwd)
        sys.dont_write_bytecode = self._write_bytecode
        self._open_output(session.config)
        worker.run_items(
            item,
            self._items.get(job.next) if job.next is not None else None,
            self._child,
            item_at=self._items.get,
            earlier_attempts=job.earlier_attempts,
            names={self._items[w.place].nodeid: w.nodeid for w in job.items if w.place in self._items},
        )

    def _isolation(self, item: pytest.Item) -> Isolation:
        facts = dict(self._job.isolation)
        limits = Limits(**facts.pop("limits"))
        planned = self._planned(item)
        spec = planned if isinstance(planned, Spec) else Spec()
        return Isolation(
            active=True,
            spec=replace(spec, limits=limits),
            cgroup_version=facts["cgroup_version"],
            cgroup_paths=tuple(facts["cgroup_paths"]),
            missing=tuple(facts["missing"]),
            peers=facts["peers"],
            _channel=self._child.channel,
        )

    def _open_output(self, config: pytest.Config) -> None:
        """What is written now is the test's: with -s to the terminal, else to where the session captures."""
        manager = pytest_private.capture_manager(config)
        if manager is not None:
            manager.stop_global_capturing()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, fd in zip((1, 2), self._job.output_fds, strict=True):
            os.dup2(fd, number)
            os.close(fd)
        if isinstance(sys.__stdout__, io.TextIOWrapper):  # decided when it was not the terminal yet
            sys.__stdout__.reconfigure(line_buffering=os.isatty(1))
        os.ftruncate(self._child.faulthandler_fd, 0)
        os.lseek(self._child.faulthandler_fd, 0, os.SEEK_SET)
        if manager is not None:
            manager.start_global_capturing()
            manager.suspend_global_capture()
            pytest_private.share_capture(config, self._job.capture_fds)

    # ---- no test --------------------------------------------------------------------------------

    def give_up(self) -> None:
        """At the end of an interpreter that has not come to the test: say why."""
        channel = self._child.channel
        if not channel.is_mine():
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        text = "\n".join(self._failures) or self._output()
        channel.send(NotFound(text.strip()[-LONGEST_TEXT:]))
        channel.send(End(time.monotonic(), []))

    def _output(self) -> str:
        fd = self._child.faulthandler_fd
        start = max(os.fstat(fd).st_size - MAX_OUTPUT_BYTES, 0)
        return os.pread(fd, MAX_OUTPUT_BYTES, start).decode(errors="replace")


def _find(wanted: Wanted, items: list[pytest.Item]) -> pytest.Item | None:
    same = [item for item in items if item.nodeid == wanted.nodeid]
    if not same:  # a worker of xdist appends the group with --dist=loadgroup
        same = [item for item in items if wanted.nodeid.startswith(f"{item.nodeid}@")]
    # One file named twice gives its tests twice there, and once here.
    return same[min(wanted.index, len(same) - 1)] if same else None

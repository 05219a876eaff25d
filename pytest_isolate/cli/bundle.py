"""``pytest-isolate bundle NODEID DIR``: one test as a bundle, to be run by an OCI runtime by hand."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TextIO

import pytest

from pytest_isolate import lifecycle
from pytest_isolate.cli.explain import NO_REWRITE_WARNING
from pytest_isolate.errors import IsolateError, SpecError, UnsupportedError
from pytest_isolate.kernel.cgroups.base import PREFIX
from pytest_isolate.runner.session import IsolateSession, workspace_of
from pytest_isolate.sandbox.enter import set_environment
from pytest_isolate.sandbox.oci import stage
from pytest_isolate.sandbox.oci.config import config
from pytest_isolate.sandbox.oci.containers import find_runtime
from pytest_isolate.sandbox.oci.handover import init_command, machine, process
from pytest_isolate.sandbox.plan import Plan, make_plan
from pytest_isolate.sandbox.steps import MountOverlay
from pytest_isolate.settings import session_options
from pytest_isolate.spec import NATIVE, Spec, Start

__all__ = ["bundle"]

#: Of the session that only collects.
PYTEST_VARIABLES = ("PYTEST_VERSION", "PYTEST_CURRENT_TEST")


def bundle(nodeid: str, directory: str, pytest_args: Sequence[str], out: TextIO) -> int:
    """Collect one test and write its bundle; 1, or pytest's exit status, if that fails."""
    bundler = _Bundler(nodeid, os.path.abspath(directory), pytest_args)
    arguments = [nodeid, "--isolate-all", "--collect-only", "-qq", "-W", NO_REWRITE_WARNING, *pytest_args]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = int(pytest.main(arguments, plugins=[bundler]))
    if status != 0 or not bundler.lines:
        out.write(printed.getvalue())
        return status or 1
    out.writelines(f"{line}\n" for line in bundler.lines)
    return 1 if bundler.failed else 0


class _Bundler:
    """A plugin, because a plan is made with the live configuration of a pytest session."""

    def __init__(self, nodeid: str, directory: str, pytest_args: Sequence[str]) -> None:
        self.lines: list[str] = []
        self.failed = False
        self._nodeid = nodeid
        self._directory = directory
        self._pytest_args = pytest_args

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.testsfailed or not session.items:
            return
        try:
            self.lines = [*self._write(session.items)]
        except (IsolateError, OSError, ValueError) as error:
            self.lines, self.failed = [f"pytest-isolate: error: {error}"], True

    def _write(self, items: Sequence[pytest.Item]) -> Iterator[str]:
        item, *others = items
        nodeid = _from_here(item)
        if others:
            raise ValueError(f"{len(items)} tests match {self._nodeid}; name one, as in {nodeid}")
        spec = lifecycle.planned(item)
        if isinstance(spec, SpecError):
            raise spec
        if not isinstance(spec, Spec):
            raise ValueError(f"{nodeid} is not isolated; see pytest-isolate explain {nodeid}")
        if spec.runtime == NATIVE:
            spec = replace(spec, runtime="runc", start=Start.SPAWN)
        elif isinstance(missing := find_runtime(spec.runtime), UnsupportedError):
            raise missing
        options = session_options(item.config)
        session = IsolateSession(item.config, store=options.store, pull=options.pull)
        try:
            # A base directory of pytest's is gone some runs later: tmp_path is to be in the private /tmp.
            workspace = replace(workspace_of(item.config, spec), writable=())
            plan = make_plan(spec, session.host, workspace, session.image_for(spec))
            has_cgroups = session.launcher.cgroup_version is not None
        finally:
            session.close()
        _check(self._directory, plan)
        command = [
            *plan.loader,
            sys.executable,
            "-m",
            "pytest",
            "--isolate-off",
            nodeid,
            *self._pytest_args,
        ]
        _write_bundle(self._directory, plan, command, str(item.config.invocation_params.dir), has_cgroups)
        yield f"{self._directory} has the bundle of {nodeid}; run it with:"
        yield f"  {shlex.join([spec.runtime, 'run', '--bundle', self._directory, _name(self._directory)])}"


def _from_here(item: pytest.Item) -> str:
    """The test, named for a pytest that starts where this one did."""
    path, colons, name = item.nodeid.partition("::")
    return os.path.relpath(item.config.rootpath / path, item.config.invocation_params.dir) + colons + name


def _name(directory: str) -> str:
    """Of the container, and so of its cgroup: not one that a session of ours would take for a dead one's."""
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", os.path.basename(directory))
    return name.removeprefix(PREFIX) or "test"


def _check(directory: str, plan: Plan) -> None:
    if os.path.lexists(directory) and (not os.path.isdir(directory) or os.listdir(directory)):
        raise ValueError(f"{directory} is not an empty directory; name one that is not there yet")
    real = os.path.realpath(directory)
    for step in plan.steps:
        if isinstance(step, MountOverlay) and f"{real}/".startswith(step.source.rstrip("/") + "/"):
            why = f"{directory} is in {step.source}, on which the bundle has an overlay"
            raise ValueError(
                f"{why}, and that cannot hold its own layers; name a directory in /tmp or /dev/shm"
            )


def _write_bundle(directory: str, plan: Plan, command: Sequence[str], cwd: str, has_cgroups: bool) -> None:
    set_environment(plan.spec.env, plan.environ)
    environ = {name: value for name, value in os.environ.items() if name not in PYTEST_VARIABLES}
    content = config(
        plan,
        process(plan, [*init_command(plan), "--", *command], environ, cwd),
        machine(has_cgroups=has_cgroups, cgroup=None),
        os.path.realpath(directory),
    )
    os.makedirs(directory, exist_ok=True)
    stage.make(os.path.realpath(directory), stage.layout(plan.steps))
    with open(f"{directory}/config.json", "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")

"""``pytest-isolate doctor``: what this machine can do, and how to get what it cannot."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import NoReturn, TextIO

from pytest_isolate.cli.version import installed_version
from pytest_isolate.errors import IsolateError
from pytest_isolate.kernel.features import (
    LANDLOCK,
    SECCOMP_FILTER,
    Feature,
    explain_failure,
    probe,
)
from pytest_isolate.kernel.host import Host
from pytest_isolate.outcome import Completed, Outcome, SetupFailed
from pytest_isolate.sandbox.launch import Launcher
from pytest_isolate.sandbox.lending import Workspace
from pytest_isolate.sandbox.messages import End, Entered, Message
from pytest_isolate.sandbox.plan import make_plan
from pytest_isolate.sandbox.roles import Child, Result
from pytest_isolate.spec import Limits, Spec
from pytest_isolate.usage import Usage

__all__ = ["SCHEMA", "doctor", "whole_sandbox"]

SCHEMA = 1
WHOLE = "default sandbox"
PATIENCE_S = 60.0
GREEN, RED, YELLOW, BOLD = "32", "31", "33", "1"


def doctor(out: TextIO, *, as_json: bool) -> int:
    """Print every feature; 1 if a sandbox of which nothing special is asked cannot run."""
    host = Host()
    features = [*probe(host)]
    if all(feature.available for feature in features if feature.needed):
        features.append(whole_sandbox(host))  # the parts may work alone and not together
    broken = [feature for feature in features if feature.needed and not feature.available]
    if as_json:
        out.write(_json(features, host) + "\n")
    else:
        paint = _Paint(out)
        out.writelines(f"{line}\n" for line in _table(features, host, paint))
        out.write("\n" + _verdict(broken, paint) + "\n")
        out.writelines(f"{line}\n" for line in _degraded(features, broken))
    return 1 if broken else 0


def whole_sandbox(host: Host) -> Feature:
    """Run a process in a sandbox that is built as for a test of which nothing special is asked."""
    try:
        reason, cure = _run_in_sandbox(host)
    except IsolateError as error:
        reason, cure = str(error), ""
    detail = "" if reason else "a process ran in it"
    return Feature(name=WHOLE, available=not reason, needed=True, reason=reason, cure=cure, detail=detail)


def _run_in_sandbox(host: Host) -> tuple[str, str]:
    cwd = os.getcwd()
    workspace = Workspace(
        cwd=cwd, project=(cwd,), interpreter=tuple({sys.prefix, sys.base_prefix}), writable=()
    )
    plan = make_plan(Spec(limits=Limits(timeout_s=PATIENCE_S)), host, workspace)
    ending = _Ending()
    launcher = Launcher(host)
    try:
        launcher.start(plan, body=_report_in, listener=ending)
        launcher.loop.run_until(lambda: ending.outcome is not None)
    finally:
        launcher.close()
    match ending.outcome:
        case Completed():
            return "", ""
        case SetupFailed(step, errno, message) if errno:
            error = explain_failure(step, errno, host)
            return f"cannot {step}: {error.reason}", error.cure
        case SetupFailed(step, _, message):
            return f"{step}: {message}", ""
        case outcome:
            return f"a process in it ended with {outcome}", ""


class _Ending:
    """Waits for how a flight ends; a Listener."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None

    def entered(self) -> None:
        return

    def take(self, message: Message) -> None:
        """That it was entered, which says nothing yet."""

    def test_ended(self, usage: Usage) -> None:
        raise AssertionError("no second test was promised")

    def done(self, result: Result) -> None:
        self.outcome = result.outcome


def _report_in(child: Child) -> NoReturn:
    child.channel.send(Entered({}, time.monotonic()))
    child.channel.receive()  # Begin: who is gone before it comes has broken the channel
    child.channel.send(End(time.monotonic(), []))
    os._exit(0)


# -- printing -------------------------------------------------------------------------------------------


class _Paint:
    """Colours for a terminal, unless NO_COLOR (https://no-color.org) asks for none."""

    def __init__(self, out: TextIO) -> None:
        self._on = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def __call__(self, text: str, *codes: str) -> str:
        return f"\033[{';'.join(codes)}m{text}\033[0m" if self._on else text


def _table(features: list[Feature], host: Host, paint: _Paint) -> Iterator[str]:
    privileges = "with" if host.privileged else "without"
    version = installed_version()
    yield f"pytest-isolate {version} as uid {host.uid}, {privileges} privileges"
    width = max(len(feature.name) for feature in features)
    for needed, title in ((True, "Needed by every sandbox"), (False, "Not needed by every sandbox")):
        yield ""
        yield paint(title, BOLD)
        for feature in features:
            if feature.needed is needed:
                yield from _rows(feature, width, paint)


def _rows(feature: Feature, width: int, paint: _Paint) -> Iterator[str]:
    if feature.available:
        yield f"  {paint('yes', GREEN)}  {feature.name:{width}}  {feature.detail}".rstrip()
        return
    mark = paint("no ", RED if feature.needed else YELLOW)
    yield f"  {mark}  {feature.name:{width}}  {feature.reason}"
    if feature.cure:
        yield f"       {'':{width}}  {feature.cure}"


def _verdict(broken: list[Feature], paint: _Paint) -> str:
    if not broken:
        return paint("the default sandbox runs here", GREEN, BOLD)
    first = broken[0]
    cure = f"; {first.cure}" if first.cure else ""
    return paint(f"the default sandbox cannot run here: {first.name}: {first.reason}{cure}", RED, BOLD)


def _degraded(features: list[Feature], broken: list[Feature]) -> Iterator[str]:
    """What a test gets all the same, if it is asked for."""
    if not broken or not _can_follow_processes():
        return
    has = {feature.name: feature.available for feature in features}
    level = level_of(broken, has)
    given = [
        *(["Landlock (no writes outside of tmp_path)"] if has[LANDLOCK] else []),
        *(["a closed network (seccomp)"] if has[SECCOMP_FILTER] else []),
        *(["a cgroup"] if has["cgroup"] else []),
    ]
    yield f"--isolate-missing=degrade gives level {level}: {', '.join(['a fork', 'rlimits', *given])}"


def _can_follow_processes() -> bool:
    """Without pidfd_open(2) no test runs at all."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def level_of(broken: list[Feature], has: dict[str, bool]) -> str:
    """As ``enforced.level`` of a record names it."""
    if not broken:
        return "namespaces"
    return "landlock" if has[LANDLOCK] else "fork"


def _json(features: list[Feature], host: Host) -> str:
    report = {
        "schema": SCHEMA,
        "version": installed_version(),
        "ok": all(feature.available for feature in features if feature.needed),
        "kernel": os.uname().release,
        "uid": host.uid,
        "privileged": host.privileged,
        "level": level_of(
            [feature for feature in features if feature.needed and not feature.available],
            {feature.name: feature.available for feature in features},
        ),
        "features": [dataclasses.asdict(feature) for feature in features],
    }
    return json.dumps(report, indent=2)

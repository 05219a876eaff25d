"""The parent's side: send one item on its way, take its messages, and replay them as pytest's own reports."""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from dataclasses import dataclass, field, replace

import pytest

from pytest_isolate.errors import IsolateError
from pytest_isolate.evidence import Evidence
from pytest_isolate.kernel.features import explain_failure
from pytest_isolate.outcome import ChannelBroken, Completed, Outcome, SetupFailed
from pytest_isolate.runner import coverage_data, pytest_private, record, replay, synthesize, worker
from pytest_isolate.runner.isolation import Isolation
from pytest_isolate.runner.session import IsolateSession
from pytest_isolate.sandbox.channel import ChildEnd
from pytest_isolate.sandbox.flight import Result
from pytest_isolate.sandbox.messages import (
    Coverage,
    Entered,
    ExitRequested,
    InternalFailure,
    Interrupted,
    Message,
    Report,
    StopRequested,
    WarningRecorded,
)
from pytest_isolate.sandbox.plan import Plan
from pytest_isolate.spec import Spec
from pytest_isolate.usage import Usage
from pytest_isolate.values import Missing

__all__ = ["Sandbox", "refuse", "run_and_log"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """What ``pytest_isolate_sandbox_ready`` gets: the live sandbox of one test."""

    spec: Spec
    cgroup_paths: tuple[str, ...]
    enforced: Evidence


@dataclass(slots=True)
class Transcript:
    """What a child said, in order, as far as it is to be replayed."""

    replay: list[Report | WarningRecorded] = field(default_factory=list)
    ending: ExitRequested | Interrupted | InternalFailure | None = None
    stop: StopRequested | None = None
    coverage: list[Coverage] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)


def run_and_log(
    session: IsolateSession,
    item: pytest.Item,
    nextitem: pytest.Item | None,
    spec: Spec,
    missing: Missing,
) -> None:
    """All that ``pytest_runtest_protocol`` does for an isolated item."""
    plan = session.plan_for(spec)
    if missing is not Missing.FAIL:
        unsupported = session.unsupported(plan)
        if unsupported and missing is Missing.SKIP:
            refuse(item, nextitem, "; ".join(map(str, unsupported)), skip=True)
            return
        plan = session.degrade(plan)
    _ItemRun(session, item, nextitem, plan).run()


def refuse(item: pytest.Item, nextitem: pytest.Item | None, message: str, *, skip: bool = False) -> None:
    """Report an item that does not run: as an error of its own, or as skipped."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = replay.merge_teardown(
        synthesize.refusal(item, message, skip=skip), replay.tear_down(item, nextitem)
    )
    record.attach(
        reports,
        outcome=SetupFailed("plan the sandbox", 0, message),
        usage=Usage(),
        evidence=Evidence(),
        worker=_worker_name(),
        start_ts=time.time(),
    )
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


class _ItemRun:
    def __init__(
        self, session: IsolateSession, item: pytest.Item, nextitem: pytest.Item | None, plan: Plan
    ) -> None:
        self._session = session
        self._item = item
        self._nextitem = nextitem
        self._plan = plan
        self._transcript = Transcript()
        self._result: Result | None = None
        self._cgroup_paths: tuple[str, ...] = ()
        self._shared_s = 0.0
        self._start_ts = time.time()

    def run(self) -> None:
        item = self._item
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        _cancel_timeout(item)
        self._set_up_shared()
        try:
            self._fly()
        except (IsolateError, OSError) as error:
            # What this test asks for is not to be had, or the machine is out of something: its error alone.
            reports = synthesize.refusal(item, str(error))
            outcome: Outcome = SetupFailed("start the sandbox", 0, str(error))
            usage = Usage()
        else:
            assert self._result is not None
            reports, outcome = self._reports(self._result)
            usage = self._result.usage
        self._log(reports, outcome, usage)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        self._hand_on()

    # ---- the flight -----------------------------------------------------------------------------

    def _set_up_shared(self) -> None:
        started = time.perf_counter()
        with replay.Capturing(self._item.config):
            pytest_private.set_up_shared(self._item)
        self._shared_s = time.perf_counter() - started

    def _fly(self) -> None:
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            _flush(stream)  # or the child would write it a second time
        launcher = self._session.launcher
        flight = launcher.start(
            self._plan,
            body=lambda child: worker.run(self._item, child, self._isolation, self._session.inodes),
            on_message=self._take,
            on_done=self._done,
        )
        self._cgroup_paths = flight.cgroup.paths if flight.cgroup is not None else ()
        try:
            launcher.loop.run_until(lambda: self._result is not None)
        except BaseException:
            flight.interrupt()  # Ctrl-C, or an error of ours: the sandbox ends, then pytest does
            raise

    def _isolation(self, channel: ChildEnd) -> Isolation:
        return Isolation(
            active=True,
            spec=self._plan.spec,
            cgroup_version=self._session.launcher.cgroup_version,
            cgroup_paths=self._cgroup_paths,
            missing=self._plan.missing,
            _channel=channel,
        )

    def _take(self, message: Message) -> None:
        match message:
            case Entered(evidence):
                self._transcript.evidence = self._evidence(evidence)
                self._item.ihook.pytest_isolate_sandbox_ready(
                    item=self._item,
                    sandbox=Sandbox(
                        spec=self._plan.spec,
                        cgroup_paths=self._cgroup_paths,
                        enforced=self._transcript.evidence,
                    ),
                )
            case Report() | WarningRecorded():
                self._transcript.replay.append(message)
            case Coverage():
                self._transcript.coverage.append(message)
            case StopRequested():
                self._transcript.stop = message
            case ExitRequested() | Interrupted() | InternalFailure():
                self._transcript.ending = message
            case _:
                raise AssertionError(f"{message} is handled below")

    def _evidence(self, fields: dict[str, object]) -> Evidence:
        known = {name: fields.get(name) for name in ("root", "capabilities", "no_new_privs", "seccomp")}
        namespaces, limits = fields.get("namespaces"), fields.get("limits")
        return Evidence(
            **known,  # type: ignore[arg-type]
            namespaces=namespaces if isinstance(namespaces, dict) else {},
            limits=limits if isinstance(limits, dict) else {},
            cgroup=self._session.launcher.cgroup_version if self._cgroup_paths else None,
            missing=self._plan.missing,
        )

    def _done(self, result: Result) -> None:
        self._result = result

    # ---- its reports ----------------------------------------------------------------------------

    def _reports(self, result: Result) -> tuple[list[pytest.TestReport], Outcome]:
        outcome = result.outcome
        reports: list[pytest.TestReport] = []
        try:
            for message in self._transcript.replay:
                if isinstance(message, Report):
                    reports.append(replay.rebuild(self._item, message))
        except Exception as error:  # a child may send anything
            outcome = ChannelBroken(f"a report that is none: {error!r}")
        if isinstance(outcome, SetupFailed):
            reports, outcome = [], self._explained(outcome)
        trace = result.faulthandler
        if isinstance(failure := self._transcript.ending, InternalFailure):
            # Plain pytest would end with INTERNALERROR; here it is the trouble of one test.
            outcome, trace = ChannelBroken("an exception left the runtest protocol"), failure.text + trace
        if reports:
            reports[0].duration += self._shared_s
        out, err = "", ""
        if not isinstance(outcome, Completed):
            out, err = pytest_private.read_capture(self._item.config)
        ending = synthesize.Ending(
            outcome=outcome,
            trace=trace,
            out=out,
            err=err,
            duration_s=result.usage.wall_s or 0.0,
        )
        reports = synthesize.complete(self._item, reports, ending)
        if result.usage.pids_refused and self._plan.limits.pids is not None:
            synthesize.explain_refused_forks(reports, self._plan.limits.pids, result.usage.pids_refused)
        return reports, outcome

    def _explained(self, outcome: SetupFailed) -> SetupFailed:
        if outcome.errno == 0:
            return outcome
        error = explain_failure(outcome.step, outcome.errno, self._session.host)
        text = f"cannot build the sandbox: {outcome.step}: {outcome.message}; {error}"
        return SetupFailed(outcome.step, outcome.errno, text)

    def _log(self, reports: list[pytest.TestReport], outcome: Outcome, usage: Usage) -> None:
        item = self._item
        reports = replay.merge_teardown(reports, replay.tear_down(item, self._nextitem))
        evidence = self._transcript.evidence
        if self._result is not None:
            limits = evidence.limits | self._result.limits
            evidence = replace(evidence, limits=limits)
        record.attach(
            reports,
            outcome=outcome,
            usage=usage,
            evidence=evidence,
            worker=_worker_name(),
            start_ts=self._start_ts,
        )
        for message in self._transcript.replay:
            if isinstance(message, WarningRecorded):
                replay.record_warning(item, message)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        for measured in self._transcript.coverage:
            try:
                coverage_data.merge(measured)
            except Exception as error:  # a child may send anything
                item.warn(pytest.PytestWarning(f"coverage of this test is lost: {error!r}"))
        item.ihook.pytest_isolate_finished(item=item, outcome=outcome, usage=usage)

    def _hand_on(self) -> None:
        """What the test asked of the session as a whole."""
        session, stop = self._item.session, self._transcript.stop
        if stop is not None and stop.failed:
            session.shouldfail = stop.reason
        elif stop is not None:
            session.shouldstop = stop.reason
        match self._transcript.ending:
            case ExitRequested(reason, returncode):
                pytest.exit(reason, returncode)
            case Interrupted():
                raise KeyboardInterrupt


def _worker_name() -> str:
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


def _cancel_timeout(item: pytest.Item) -> None:
    """pytest-timeout has armed a timer here, which would end pytest's wait or pytest itself; the child arms
    its own when it enters the protocol again."""
    if item.config.pluginmanager.hasplugin("timeout"):
        item.ihook.pytest_timeout_cancel_timer(item=item)
    # Armed by faulthandler_timeout; its watchdog's lock would be held for ever in a child without the thread.
    faulthandler.cancel_dump_traceback_later()


def _flush(stream: object) -> None:
    try:
        stream.flush()  # type: ignore[attr-defined]
    except (OSError, ValueError, AttributeError):
        return  # closed, or none

"""The parent's side of one item: into a sandbox with it, and what happens there replayed as its reports.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import faulthandler
import os
import time
from dataclasses import replace

import pytest

from pytest_isolate.errors import IsolateError
from pytest_isolate.evidence import Evidence
from pytest_isolate.kernel.features import explain_failure
from pytest_isolate.outcome import ChannelBroken, Completed, Outcome, SetupFailed
from pytest_isolate.runner import (
    carry,
    coverage_data,
    current_test,
    deeds,
    hints,
    network_watch,
    record,
    replay,
    reruns,
    secret_words,
    synthesize,
    violations,
)
from pytest_isolate.runner.fleet import Fleet
from pytest_isolate.runner.transcript import Transcript
from pytest_isolate.runner.voyage import Voyage
from pytest_isolate.sandbox.messages import (
    ExitRequested,
    InternalFailure,
    Interrupted,
    NotFound,
    Report,
    WarningRecorded,
)
from pytest_isolate.spec import Spec, Watch
from pytest_isolate.strict import escapes
from pytest_isolate.usage import Usage
from pytest_isolate.violation import Violation

__all__ = ["finish", "refuse", "run_and_log"]


def run_and_log(fleet: Fleet, item: pytest.Item, nextitem: pytest.Item | None, spec: Spec) -> None:
    """All that ``pytest_runtest_protocol`` does for an isolated item."""
    session = fleet.session
    if why := session.why_skipped(spec):
        refuse(item, nextitem, why, skip=True)
        return
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    _cancel_timeout(item)
    current_test.show(item, "setup")
    log = _ItemLog(fleet, item, nextitem)
    try:
        voyage = _run(fleet, item, nextitem, spec)
        while log.set_aside(voyage):
            voyage = _run(fleet, item, nextitem, spec, log.attempts)
    except KeyboardInterrupt:
        current_test.clear()
        _tell_of_ended(fleet)
        raise
    except (IsolateError, OSError) as error:
        # What this test asks for is not to be had, or the machine is out of something: its error alone.
        fleet.drop()
        log.write_refusal(str(error))
    else:
        log.write(voyage)
    finally:
        current_test.clear()
    if not log.ends_the_session:
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    log.hand_on()


def _tell_of_ended(fleet: Fleet) -> None:
    for voyage in fleet.interrupted():
        item = voyage.run.item
        if item.session.shouldfail or item.session.shouldstop:
            return
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        voyage.show()
        _ItemLog(fleet, item, None).write(voyage)
        current_test.clear()
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _run(
    fleet: Fleet,
    item: pytest.Item,
    nextitem: pytest.Item | None,
    spec: Spec,
    earlier_attempts: int = 0,
) -> Voyage:
    if not fleet.go_on(item, nextitem):
        if fleet.voyage is not None:
            _leave(fleet.voyage, item)
        fleet.board(item, nextitem, spec, earlier_attempts)
    voyage = fleet.wait(nextitem)
    voyage.show()
    return voyage


def _leave(voyage: Voyage, item: pytest.Item) -> None:
    """``item`` needs a sandbox of its own; say so if it should have shared this one."""
    if not voyage.is_over:
        _end(voyage)
    elif voyage.lost is not None:
        why = synthesize.explain(voyage.lost)
        text = f"the sandbox that this test was to share ended before it ({why}); it runs in a new one"
        replay.warn(item, text)


def finish(fleet: Fleet) -> None:
    """At the end of the session: if it ended among the tests of a sandbox, tear down what that holds."""
    fleet.cancel()
    if fleet.voyage is not None and not fleet.voyage.is_over:
        _end(fleet.voyage)
    fleet.drop()
    fleet.session.end_forking()


def _end(voyage: Voyage) -> None:
    item, transcript = voyage.run.item, voyage.run.transcript
    for report in _finish(voyage):
        item.ihook.pytest_runtest_logreport(report=report)
    _merge_coverage(item, transcript)
    for text in (*voyage.salvaged.warnings, voyage.salvaged.text):
        if text:
            replay.warn(item, text)


def _finish(voyage: Voyage) -> list[pytest.TestReport]:
    """End a sandbox that waits for another test: what it has to report of that."""
    item, transcript = voyage.run.item, voyage.run.transcript
    told, reports = transcript.position, []
    voyage.finish()
    outcome = voyage.run.outcome
    try:
        for report in replay.rebuild_all(item, transcript, start=told):
            reports.append(report)
    except Exception as error:  # a child may send anything
        outcome = ChannelBroken.by(error)
    if outcome is not None and not isinstance(outcome, Completed):
        reports.append(synthesize.late_failure(item, outcome))
    return reports


def refuse(item: pytest.Item, nextitem: pytest.Item | None, message: str, *, skip: bool = False) -> None:
    """Report an item that does not run: as an error of its options, or as skipped."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = replay.merge_teardown(
        synthesize.refusal(item, message, skip=skip), replay.tear_down(item, nextitem)
    )
    record.attach(
        reports,
        outcome=SetupFailed("plan the sandbox" if skip else synthesize.READ_OPTIONS, 0, message),
        usage=Usage(),
        evidence=Evidence(),
        worker=_worker_name(),
        start_ts=time.time(),
    )
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


class _ItemLog:
    """What is logged of one item that was run, or was to be."""

    def __init__(self, fleet: Fleet, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        self._fleet = fleet
        self._item = item
        self._nextitem = nextitem
        self._transcript = Transcript()
        self._violations: tuple[Violation, ...] = ()
        self._earlier: list[pytest.TestReport] = []  # of attempts that another followed
        self._last: tuple[list[pytest.TestReport], Outcome] | None = None

    @property
    def attempts(self) -> int:
        """How many times the test has been run by now, and is to be run again."""
        return sum(report.outcome == reruns.RERUN for report in self._earlier)

    def set_aside(self, voyage: Voyage) -> bool:
        """Whether the test's process died and the test is to run again; then this attempt is over."""
        if isinstance(voyage.run.outcome, Completed | SetupFailed | None):
            return False
        self._transcript = voyage.run.transcript
        self._last = reports, outcome = self._reports(voyage)
        attempts = 1 + sum(report.outcome == reruns.RERUN for report in [*self._earlier, *reports])
        if not reruns.wants_again(self._item, reports, attempts, synthesize.explain(outcome)):
            return False
        reruns.mark_as_rerun(reports, attempts - 1)
        self._deliver()
        self._earlier += reports
        self._last = None
        return True

    def write_refusal(self, message: str) -> None:
        reports = synthesize.refusal(self._item, message)
        self._log(reports, SetupFailed("start the sandbox", 0, message), Usage(), None)

    def write(self, voyage: Voyage) -> None:
        self._transcript = voyage.run.transcript
        reports, outcome = self._last or self._reports(voyage)
        reports = reruns.forget_superseded([*self._earlier, *reports])
        if reports:
            reports[0].duration += voyage.company.shared_s(self._item)
        reruns.count_attempts(self._item, reports)
        if voyage.salvaged.text:
            for report in reports:
                if report.failed or report is reports[-1]:
                    report.sections.append(("isolate", voyage.salvaged.text))
        for report in reports:
            if report.failed:
                report.sections += hints.sections(report, voyage.spec, voyage.evidence)
        is_watched = voyage.spec.watch is not Watch.OFF
        slept_s, clock_reads = deeds.clock_of(voyage.run) if is_watched else (None, None)
        usage = replace(voyage.run.usage, slept_s=slept_s, clock_reads=clock_reads)
        self._log(reports, outcome, usage, voyage)
        for text in voyage.salvaged.warnings:
            replay.warn(self._item, text)

    # ---- the reports ----------------------------------------------------------------------------

    def _reports(self, voyage: Voyage) -> tuple[list[pytest.TestReport], Outcome]:
        run = voyage.run
        assert run.outcome is not None
        outcome, trace = run.outcome, run.trace
        reports: list[pytest.TestReport] = []
        observed: list[Violation] = []
        try:
            for report in replay.rebuild_all(self._item, self._transcript):
                reports.append(report)
            reruns.add_earlier(self._item, reports, self.attempts)
            observed = violations.told(self._transcript.observed)
        except Exception as error:  # a child may send anything
            outcome = ChannelBroken.by(error)
        found, attempts = network_watch.violations(
            run.attempts, observed, voyage.evidence, voyage.spec, voyage.homes
        )
        run.usage = replace(run.usage, network_attempts=attempts)
        gathered = violations.gather([*deeds.violations_of(run), *found], self._item, voyage.spec)
        self._violations = self._fleet.session.baseline.sort_out(self._item.nodeid, gathered)
        match self._transcript.ending:
            case InternalFailure(text):
                # Plain pytest would end with INTERNALERROR; here it is the trouble of one test.
                outcome, trace = ChannelBroken("an exception left the runtest protocol"), text + trace
            case NotFound(text) if isinstance(outcome, Completed):
                outcome, trace = _not_found(text), ""
        if isinstance(outcome, SetupFailed):
            reports, outcome = [], self._explained(outcome)
        out, err = "", ""
        if not isinstance(outcome, Completed):
            out, err = voyage.read_capture()
        ending = synthesize.Ending(
            outcome=outcome, trace=trace, out=out, err=err, duration_s=run.usage.wall_s or 0.0
        )
        told = self._transcript.replay[: self._transcript.attempt_start]
        before = sum(isinstance(message, Report) for message in told)
        last = synthesize.complete(self._item, reports[before:], ending, self._transcript.phase)
        reports = [*reports[:before], *last]
        synthesize.explain_limits(reports, voyage.spec.limits, run.usage)
        new = tuple(violation for violation in self._violations if not violation.known)
        if new and voyage.spec.watch is Watch.FAIL:
            reports = violations.fail_for(self._item, reports, new)
        return reports, outcome

    def _explained(self, outcome: SetupFailed) -> SetupFailed:
        if outcome.errno == 0:
            return outcome
        error = explain_failure(outcome.step, outcome.errno, self._fleet.session.host)
        text = f"cannot build the sandbox: {outcome.step}: {outcome.message}; {error}"
        return SetupFailed(outcome.step, outcome.errno, text)

    # ---- and the order in which they are told ---------------------------------------------------

    def _log(
        self, reports: list[pytest.TestReport], outcome: Outcome, usage: Usage, voyage: Voyage | None
    ) -> None:
        item = self._item
        self._deliver()
        self._stop()
        current_test.show(item, "teardown")
        self._attach(reports, outcome, usage, voyage)
        last = len(reports) - (reports[-1:] != [] and reports[-1].when == "teardown")
        for report in reports[:last]:
            if report.when == "setup" and report is not reports[0]:  # another attempt
                item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
                item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            item.ihook.pytest_runtest_logreport(report=report)
        teardown, added = reports[last:], self._tear_down(voyage)
        if added:
            teardown = replay.merge_teardown(teardown, added)
            self._attach([*reports[:last], *teardown], outcome, usage, voyage)
        if voyage is not None and self._fleet.session.profile:
            record.attach_more(teardown, "stages", voyage.stages())
        for report in teardown:
            item.ihook.pytest_runtest_logreport(report=report)
        _merge_coverage(item, self._transcript)
        for violation in self._violations:
            item.ihook.pytest_isolate_violation(item=item, violation=violation)
        item.ihook.pytest_isolate_finished(item=item, outcome=outcome, usage=usage)

    def _deliver(self) -> None:
        """To those who would have heard of it had the test run here: all but the reports."""
        item = self._item
        for message in self._transcript.replay:
            if isinstance(message, WarningRecorded):
                replay.record_warning(item, message)
        for carried in self._transcript.carried:
            carry.deliver(item, carried)
        _merge_coverage(item, self._transcript)

    def _attach(
        self, reports: list[pytest.TestReport], outcome: Outcome, usage: Usage, voyage: Voyage | None
    ) -> None:
        # One record a test, also of one that ran several times.
        starts = [at for at, report in enumerate(reports) if report.when == "setup"]
        reports = reports[starts[-1] :] if starts else reports
        record.attach(
            reports,
            outcome=outcome,
            usage=usage,
            evidence=voyage.evidence if voyage is not None else Evidence(),
            violations=self._violations
            if voyage is not None and voyage.spec.watch is not Watch.OFF
            else None,
            sandbox=voyage.name if voyage is not None else None,
            kept=voyage.salvaged.kept if voyage is not None else None,
            worker=_worker_name(),
            start_ts=voyage.start_ts if voyage is not None else time.time(),
        )
        if voyage is not None and voyage.salvaged.artifacts is not None:
            record.attach_more(reports, "artifacts", voyage.salvaged.artifacts)
        if voyage is not None and voyage.spec.declared:
            record.attach_more(reports, "declared", voyage.spec.declared)
        if voyage is not None and self._fleet.session.strict:
            record.attach_more(reports, "escapes", _escapes(voyage))

    def _tear_down(self, voyage: Voyage | None) -> list[pytest.TestReport]:
        """Of what the parent holds, and of what a sandbox still holds whose next test will not come."""
        nextitem, of_child = self._nextitem, []
        if self._item.session.shouldfail or self._item.session.shouldstop:
            nextitem = None  # as plain pytest: errors of the last teardown are to be somebody's
            self._fleet.cancel()
            if voyage is not None and not voyage.is_over:
                of_child = _finish(voyage)
        return of_child if self._fleet.is_ahead else [*of_child, *replay.tear_down(self._item, nextitem)]

    @property
    def ends_the_session(self) -> bool:
        return isinstance(self._transcript.ending, ExitRequested | Interrupted)

    def _stop(self) -> None:
        """The test has set ``session.shouldstop`` or ``shouldfail``, on which its teardown depends."""
        session, stop = self._item.session, self._transcript.stop
        if stop is not None and stop.failed:
            session.shouldfail = stop.reason
        elif stop is not None:
            session.shouldstop = stop.reason

    def hand_on(self) -> None:
        """A test that ends the session ends it here too."""
        match self._transcript.ending:
            case ExitRequested(reason, returncode):
                pytest.exit(reason, returncode)
            case Interrupted(text, filename, lineno):
                replay.raise_at(KeyboardInterrupt(text) if text else KeyboardInterrupt(), filename, lineno)


def _merge_coverage(item: pytest.Item, transcript: Transcript) -> None:
    """What has come since the last time."""
    while transcript.coverage:
        try:
            coverage_data.merge(transcript.coverage.pop(0))
        except Exception as error:  # a child may send anything
            replay.warn(item, f"coverage of this test is lost: {error!r}")


def _escapes(voyage: Voyage) -> list[str]:
    """From strict: what the test asked for, and what this machine lacks."""
    missing = [text.partition(" is not available")[0] for text in voyage.evidence.missing]
    secrets = secret_words.of_user() if voyage.spec.binds else ()
    return [*escapes(voyage.carried_out, secrets), *(f"degraded: {feature}" for feature in missing)]


def _not_found(text: str) -> SetupFailed:
    # pytest's own text says most in its last line.
    lines = text.splitlines() or ["pytest ended without a word"]
    summary = f"the fresh interpreter did not find the test: {lines[-1].removeprefix('E ').strip()}"
    return SetupFailed("find the test", 0, "\n".join([summary, *lines[:-1]]))


def _worker_name() -> str:
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


def _cancel_timeout(item: pytest.Item) -> None:
    """pytest-timeout has armed a timer here, which would end pytest's wait or pytest itself; the child arms
    its own when it enters the protocol again."""
    if item.config.pluginmanager.hasplugin("timeout"):
        item.ihook.pytest_timeout_cancel_timer(item=item)
    # Armed by faulthandler_timeout; its watchdog's lock would be held for ever in a child without the thread.
    faulthandler.cancel_dump_traceback_later()

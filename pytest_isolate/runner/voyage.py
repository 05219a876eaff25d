"""One sandbox and the tests that run in it, one after the other: started, waited for, and ended.

What becomes of each test is kept here until ``relay.py`` logs it. The parent names each test when its turn
comes, so none runs that plain pytest would not have come to.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from pytest_isolate.errors import ChannelError
from pytest_isolate.evidence import Evidence
from pytest_isolate.kernel import interrupts
from pytest_isolate.outcome import ChannelBroken, Completed, Outcome
from pytest_isolate.runner import (
    cures,
    current_test,
    network_watch,
    pytest_private,
    replay,
    spawn,
    violations,
    worker,
)
from pytest_isolate.runner.company import Company
from pytest_isolate.runner.deeds import Deeds
from pytest_isolate.runner.isolation import Isolation
from pytest_isolate.runner.run import TestRun
from pytest_isolate.runner.salvage import Salvaged, salvage
from pytest_isolate.runner.session import IsolateSession
from pytest_isolate.runner.streams import Streams, flush
from pytest_isolate.sandbox.channel import ChildEnd
from pytest_isolate.sandbox.flight import Flight
from pytest_isolate.sandbox.messages import Entered, Finish, Interrupted, Message, Observed, Report, RunNext
from pytest_isolate.sandbox.plan import Plan
from pytest_isolate.sandbox.roles import Body, Result
from pytest_isolate.sandbox.template import Template
from pytest_isolate.sandbox.written import Written
from pytest_isolate.spec import Spec, Start, Watch
from pytest_isolate.usage import Usage
from pytest_isolate.values import Keep
from pytest_isolate.violation import Kind, Violation

__all__ = ["Sandbox", "TestRun", "Voyage"]

#: How long a test may take to notice Ctrl-C before it is ended.
INTERRUPT_WAIT_S = 0.5
INCOMPLETE = "the test ended without its reports"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """What ``pytest_isolate_sandbox_ready`` gets: the live sandbox of one test."""

    spec: Spec
    cgroup_paths: tuple[str, ...]
    enforced: Evidence


class Voyage:
    """Made for its first item, which may be followed by others that plan and fixtures allow."""

    def __init__(
        self, session: IsolateSession, item: pytest.Item, spec: Spec, earlier_attempts: int = 0
    ) -> None:
        self._session = session
        self._is_alone = session.capacity.jobs == 1  # no other test runs at the same time
        self._streams: Streams | None = None
        self.company = Company(session, item, spec)
        self.spec = spec
        self._earlier_attempts = earlier_attempts
        self._plan: Plan | None = None
        self._deeds: Deeds | None = None
        self._told_pids: set[int] = set()  # of processes that its tests left, and their own process told of
        self._flight: Flight | None = None
        self._asked_s = time.monotonic()
        self._result: Result | None = None
        self._after: pytest.Item | None = None  # what needs the next sandbox
        self._failed = False  # any of its tests
        self._cancelled = False
        self.evidence = Evidence()
        self.salvaged = Salvaged()
        self.name = ""
        self.start_ts = 0.0  #: of the current test
        self.has_turn = False  #: pytest has come to its test, and waits
        self._was_held = False
        self.is_held = False  #: the process is there, and the test has not begun
        self._error: Exception | None = None  # of pytest's side
        self.lost: Outcome | None = None  #: how the child ended between two tests, which none should
        self.run = TestRun(item=item, nextitem=None)

    # ---- start, wait, go on, end ----------------------------------------------------------------

    def start(
        self,
        plan: Plan,
        nextitem: pytest.Item | None,
        *,
        held: bool = False,
        template: Template | None = None,
    ) -> None:
        """Fork, or have a template do it; if it is ``held``, the test waits for :meth:`begin`.

        Raises what the machine cannot do.
        """
        flush()  # or the child would write it a second time
        started_s = time.monotonic()
        self._plan = plan
        if self.spec.watch is not Watch.OFF:
            self._deeds = Deeds(plan, str(self.run.item.config.rootpath))
        self.is_held = self._was_held = held
        _ = self.run.item.location  # of the parent's reports; found here, the child need not find it again
        self.start_ts = time.time()
        self._streams = None if self._is_alone else Streams(self.run.item.config)
        self.run.nextitem = self.company.next_aboard(nextitem)
        self._after = nextitem if self.run.nextitem is None else None
        try:
            self._flight = self._session.launcher.start(
                plan,
                body=self._body(plan, held=held),
                listener=self,
                held=held,
                template=template,
                item=self._session.place(self.run.item),
            )
        except BaseException:
            self.close()
            raise
        self.name = self._flight.name
        self._flight.moments.asked, self._flight.moments.started = self._asked_s, started_s

    def make_template(self, plan: Plan) -> Template:
        """For this test and others like it, as pytest is now. Raises OSError."""
        self._plan = plan
        assignment = self._assignment(plan, held=True)
        return self._session.launcher.make_template(plan, lambda child: worker.serve(assignment, child))

    def _assignment(self, plan: Plan, *, held: bool) -> worker.Assignment:
        return worker.Assignment(
            item=self.run.item,
            nextitem=self.run.nextitem,
            ownership=self.company.ownership,
            preparations=self.company.heard,
            isolation=self._isolation,
            earlier_attempts=self._earlier_attempts,
            random_state=self._session.random_state(self.run.item),
            warning_filters=None if self._is_alone and not held else self._session.warning_filters,
            streams=self._streams,
            libraries=plan.libraries,
        )

    def _body(self, plan: Plan, *, held: bool) -> Body:
        assignment = self._assignment(plan, held=held)
        match self.spec.start:
            case Start.FORK:
                return lambda child: worker.run(assignment, child)
            case Start.SPAWN:
                # Its bytecode is to be on the host: what the child writes is thrown away.
                from pytest_isolate.runner import fresh  # noqa: F401

                environ = spawn.session_environ()
                items = dict(self.company.all_aboard(self.run.item))
                return lambda child: spawn.run(assignment, items, child, environ, plan.loader)

    def begin(self) -> bool:
        """Let the test run that is held. False if its process has died."""
        assert self._flight is not None
        self.is_held = False
        self.start_ts = time.time()
        return self._flight.begin()

    def awaits(self, item: pytest.Item) -> bool:
        """Whether the child lives and waits to be told to run ``item``."""
        if self.run.nextitem is not item or self.run.outcome is None:
            return False
        self._session.launcher.loop.run_once(wait=False)  # it may have died since
        return self._result is None

    def go_on(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Have the child run ``item``, for which it waits."""
        assert self._flight is not None
        self.company.add(item)
        self.run = TestRun(item=item, nextitem=self.company.next_aboard(nextitem))
        self._after = nextitem if self.run.nextitem is None else None
        index = self._session.place(item)
        next_index = self._session.place(self.run.nextitem) if self.run.nextitem is not None else None
        self._ready()
        self.start_ts = time.time()
        self._flight.go_on(RunNext(index, next_index))

    def wait(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Until the current test has ended; ``meanwhile`` is called whenever something has happened."""
        self.has_turn = True
        self._wait_for(lambda: self.run.outcome is not None, meanwhile)
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Have the child tear down what it still holds and end; what it says is the current test's."""
        assert self._flight is not None
        if self._result is None:
            self.run.nextitem = None
            self._flight.go_on(Finish())
            self._wait_for(lambda: self._result is not None)

    @property
    def homes(self) -> tuple[str, ...]:
        """Where the test's programs look for what is the user's."""
        return self._plan.homes if self._plan is not None else ()

    @property
    def carried_out(self) -> Spec:
        """Which may be less than was asked for (--isolate-missing=degrade)."""
        return self._plan.spec if self._plan is not None else self.spec

    @property
    def is_over(self) -> bool:
        return self._result is not None or self._flight is None

    @property
    def has_process(self) -> bool:
        return self._flight is not None and self._flight.moments.forked is not None

    def stages(self) -> dict[str, object]:
        """Seconds of each stage of the current test, up to now; and whether it was held."""
        self.run.moments.logged = time.monotonic()
        seconds = {name: round(duration_s, 6) for name, duration_s in self.run.moments.stages().items()}
        return {"held": self._was_held, **seconds}

    @property
    def left_nothing(self) -> bool:
        """Whether pytest is as it was before: the next test's process is right, however early it was made."""
        return isinstance(self.run.outcome, Completed) and self.run.transcript.is_uneventful

    @property
    def is_debugged(self) -> bool:
        return self._flight is not None and self._flight.is_debugged and not self.is_over

    def read_capture(self) -> tuple[str, str]:
        """What the test said that no report of it has: (out, err)."""
        if self._streams is not None:
            return self._streams.read_captured()
        return pytest_private.read_capture(self.run.item.config)

    def show(self) -> None:
        """What the test has said to the terminal, if that was kept back."""
        if self._streams is not None:
            self._streams.show()

    def close(self) -> None:
        if self._streams is not None:
            self._streams.close()

    def cancel(self) -> None:
        """End a test that pytest will not come to."""
        if not self.is_over and self._flight is not None:
            self._cancelled = True
            self._flight.interrupt()
            self._session.launcher.loop.run_until(lambda: self.is_over)
        self.close()

    def _wait_for(self, done: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
        assert self._flight is not None
        with interrupts.deferred():
            while True:
                try:
                    meanwhile()
                    if done():
                        return
                    self._session.launcher.loop.run_once()
                except KeyboardInterrupt:
                    if self._end_interrupted():
                        raise
                except BaseException:
                    self._flight.interrupt()  # an error of ours: the sandbox ends, then pytest does
                    raise

    def _end_interrupted(self) -> bool:
        """After Ctrl-C, which the child, in a session of its own, is told: let it tear down. A second one
        ends it at once, and so does not taking notice. False if a debugger there took it."""
        assert self._flight is not None
        try:
            self._flight.pass_on(signal.SIGINT)
            if not self._flight.is_debugged:
                self._session.launcher.loop.run_until(self._heard, INTERRUPT_WAIT_S)
            if self._flight.is_debugged:
                return False
            if self._heard():
                self._session.launcher.loop.run_until(lambda: self._result is not None)
        except KeyboardInterrupt:
            self._flight.interrupt()
            raise
        self._flight.interrupt()
        if isinstance(ending := self.run.transcript.ending, Interrupted):
            replay.raise_at(KeyboardInterrupt(ending.text), ending.filename, ending.lineno)
        return True

    def _heard(self) -> bool:
        return self.run.transcript.ending is not None or self._result is not None

    # ---- what the flight tells: its Listener ----------------------------------------------------

    def take(self, message: Message) -> None:
        if isinstance(message, Entered):
            assert self._plan is not None
            self.evidence = Evidence.from_told(
                message.evidence,
                host=self._session.inodes,
                cgroup=self._session.launcher.cgroup_version if self._cgroup_paths else None,
                missing=self._plan.missing,
            )
            network = self._flight.network if self._flight is not None else None
            self.evidence = network_watch.watched_by(self.evidence, self._plan, network)
        else:
            if isinstance(message, Report):
                self._failed |= message.data.get("outcome") == "failed"
                if self.has_turn:
                    current_test.show_after(self.run.item, message.data.get("when"))
            elif isinstance(message, Observed):
                self._told_pids |= violations.told_pids(message)
            self.run.transcript.take(message)

    def entered(self) -> None:
        assert self._flight is not None
        try:
            self._ready()
        except Exception as error:
            self._error = error  # of a hook: this test's, though pytest may wait for another
            self._flight.interrupt()

    def test_ended(self, usage: Usage) -> None:
        if self.run.nextitem is None or self.run.outcome is not None:
            raise ChannelError("the end of a test that has ended")  # from the test's own code
        if not self.run.is_complete(strictly=self.spec.strict):
            raise ChannelError(INCOMPLETE)
        assert self._flight is not None
        self.run.usage, self.run.outcome, self.run.moments = usage, Completed(), self._flight.moments
        self._take_attempts()
        self._look_at_deeds(self._flight.written)

    def _take_attempts(self) -> None:
        if self._flight is not None and self._flight.network is not None:
            network = self._flight.network
            self.run.attempts = network.take(died=not isinstance(self.run.outcome, Completed))
            if self.evidence.secrets_watch is not None and not network.is_watched:  # it has entered, watched
                self.evidence = network_watch.watched_by(self.evidence, self._flight.plan, network)

    def done(self, result: Result) -> None:
        if (
            self.run.outcome is None
            and isinstance(result.outcome, Completed)
            and not self.run.is_complete(strictly=self.spec.strict)
        ):
            result = replace(result, outcome=ChannelBroken(INCOMPLETE))
        self._result = result
        self.evidence = replace(self.evidence, limits=self.evidence.limits | result.limits)
        if self.run.outcome is not None and self.run.nextitem is not None:
            self.lost = result.outcome  # while it waited to be told what to run
        elif self.run.outcome is None or not isinstance(result.outcome, Completed):
            self.run.outcome, self.run.usage = result.outcome, result.usage
            self.run.trace = result.faulthandler
            self._take_attempts()
        if self._flight is not None and self.run.moments.received is None:
            self.run.moments = self._flight.moments
        self._failed |= not isinstance(result.outcome, Completed)
        self._session.sweep()
        self.run.left = tuple(process for process in result.left if process.pid not in self._told_pids)
        self._look_at_deeds(result.written)
        if result.written is not None and not self._cancelled:
            self.salvaged = self._salvage(result.written)

    def _look_at_deeds(self, written: Written | None) -> None:
        """What the current test has changed. While it waits to be told to go on, that is nobody's."""
        if self._deeds is None or self._cancelled:
            return
        try:
            self.run.changes += self._deeds.new(written)
        except OSError as error:
            what = f"left what cannot be read: {error.filename}: {error.strerror}"
            self.run.seen.append(Violation(kind=Kind.FILES, what=what, cure=cures.allow(Kind.FILES)))

    def _salvage(self, written: Written) -> Salvaged:
        keep = self._session.keep
        wanted = keep is Keep.ALWAYS or (keep is Keep.FAILED and self._failed)
        keep_in = self._session.basetemp if wanted else None
        return salvage(written, self.spec, keep_in=keep_in, name=self.run.item.name)

    def _ready(self) -> None:
        item = self.run.item
        assert self._plan is not None
        sandbox = Sandbox(spec=self._plan.spec, cgroup_paths=self._cgroup_paths, enforced=self.evidence)
        item.ihook.pytest_isolate_sandbox_ready(item=item, sandbox=sandbox)
        if self._after is not None:
            self._session.make_ahead(self._after)

    @property
    def _cgroup_paths(self) -> tuple[str, ...]:
        cgroup = self._flight.cgroup if self._flight is not None else None
        return cgroup.paths if cgroup is not None else ()

    def _isolation(self, channel: ChildEnd) -> Isolation:
        assert self._plan is not None
        return Isolation(
            active=True,
            spec=self._plan.spec,
            cgroup_version=self._session.launcher.cgroup_version,
            cgroup_paths=self._cgroup_paths,
            missing=self._plan.missing,
            peers=self._session.peers(self.run.item, self._plan.spec.network),
            _channel=channel,
        )

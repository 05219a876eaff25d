"""The way of one test, or of several in turn, through a sandbox: a state machine over the event loop.

    start -> the supervisor builds -> fork and enter -> the child runs -> settle -> done -> gone

A child that is held has entered, and runs nothing of its test until :meth:`Flight.begin`. One that has
more tests to run says so after each, and waits until :meth:`Flight.go_on`.
``done`` is when the outcome is known and the child reaped; ``gone`` when nothing of it is left, which may
be a little later and is nobody's business to wait for.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

from pytest_isolate.errors import ChannelError, SetupError
from pytest_isolate.kernel import accounting
from pytest_isolate.kernel.cgroups.base import Cgroup, discard
from pytest_isolate.kernel.leftover import Left, are_ending, look_at
from pytest_isolate.kernel.surroundings import has_terminal
from pytest_isolate.outcome import (
    ChannelBroken,
    Completed,
    CpuTimeExceeded,
    Outcome,
    OutOfMemory,
    SetupFailed,
    TimedOut,
)
from pytest_isolate.sandbox.birth import Birth, Maker
from pytest_isolate.sandbox.channel import ParentEnd, open_channel
from pytest_isolate.sandbox.enter import NamespaceFds
from pytest_isolate.sandbox.loop import Loop, Timer
from pytest_isolate.sandbox.messages import (
    Begin,
    Debugging,
    End,
    Entered,
    Finish,
    Message,
    Paused,
    RunNext,
    UsageAnswer,
    UsageQuestion,
)
from pytest_isolate.sandbox.meter import Meter
from pytest_isolate.sandbox.moments import Moments
from pytest_isolate.sandbox.network_log import NetworkLog
from pytest_isolate.sandbox.oci.container import Container
from pytest_isolate.sandbox.passage import Passage
from pytest_isolate.sandbox.plan import Plan
from pytest_isolate.sandbox.roles import Listener, Result
from pytest_isolate.sandbox.trace import Trace
from pytest_isolate.sandbox.watchdog import Watchdog
from pytest_isolate.sandbox.written import Written

__all__ = ["STACKS_SIGNAL", "Flight"]

#: Makes the child's faulthandler write all stacks and then ends it: so we know that the last line is there.
#: The last real-time signal: libraries take the first.
STACKS_SIGNAL = signal.SIGRTMAX
#: How long that may take before the child is killed.
STACKS_WAIT_S = 1.0
#: How long a child may live after its channel closed before it counts as gone its own way.
CLOSED_CHANNEL_S = 1.0
NEVER_BEGUN = SetupFailed("start the test", 0, "interrupted")


class Flight:
    """In flight from :meth:`fork` on. The owner calls :meth:`built`, :meth:`not_built` and :meth:`gone`."""

    def __init__(
        self,
        plan: Plan,
        *,
        name: str,
        loop: Loop,
        cgroup: Cgroup | None,
        kill_sandbox: Callable[[], None],
        maker: Maker,
        listener: Listener,
        held: bool = False,
        container: Container | None = None,
    ) -> None:
        self.plan = plan
        self.container = container
        self.name = name
        self.cgroup = cgroup
        self._loop = loop
        self._kill_sandbox = kill_sandbox
        self._maker = maker
        self._listener = listener
        self._namespaces = NamespaceFds({})
        self.written: Written | None = None  #: what the sandbox holds, as long as it is there
        self._channel: ParentEnd | None = None
        self._trace = Trace()
        self._process = Passage(loop, container, self._exited, self._contained)
        self._timers: list[Timer] = []
        self.network: NetworkLog | None = None  #: if it is watched
        self._watchdog = Watchdog(plan.limits, cgroup, loop, self)
        self._verdict: Outcome | None = None  # decided by the parent; else the exit status decides
        self.is_debugged = False  #: somebody sits there
        self._held = held
        self._is_ordered = False  # a process that is not there yet
        self._ended = False
        self._done = False
        self.is_closed = False  #: it has no descriptor any more
        self._settling = False
        self._leaked: tuple[Left, ...] | None = None
        self._meter = Meter(plan.limits, cgroup)
        self._finished = 0.0
        self.moments = Moments()

    # ---- the sandbox is there -------------------------------------------------------------------

    def built(self, scratch_fd: int, namespaces: NamespaceFds) -> None:
        """The supervisor has made the sandbox, of which these are descriptors: fork the test into it."""
        plan = self.plan
        self.written = self._meter.written = Written.begin(scratch_fd, plan.layers, plan.placeholders)
        self._namespaces = namespaces
        try:
            self.fork()
        except OSError as error:
            self.not_built("fork the test", error.errno or 0)

    def not_built(self, step: str, errno: int) -> None:
        """The sandbox could not be made or entered."""
        self._verdict = failed = SetupFailed(step, errno, os.strerror(errno))
        self._settle()
        self._finish(failed)

    def lost(self) -> None:
        """The supervisor died, and the sandbox with it."""
        if not self._done:
            self._verdict = SetupFailed("keep the supervisor", 0, "the supervisor of the sandbox was killed")
            self._settling = True
            self.gone()

    def gone(self) -> None:
        """The sandbox is: a test that was to enter it never will."""
        if not self._done and not self._process.pid and not self._is_ordered:
            self._finish(self._verdict or NEVER_BEGUN)

    def fork(self) -> None:
        """Start the child. Without a sandbox (degraded) it is a fork that confines itself."""
        if self._settling:  # interrupted before it began
            self.gone()
            return
        self._channel, theirs = open_channel()
        self._trace.open()
        self.moments.forked = time.monotonic()
        entry = self.cgroup.entry if self.cgroup is not None else None
        self._is_ordered = True
        with theirs:
            birth = Birth(theirs, self._trace, self._namespaces, entry)
            self._process.report = report = self._maker.make(birth, self._born)
        if self.network is not None:
            self.network.entry = report
        self._loop.watch(self._channel, self._read_channel)
        if self.container is not None:
            self._process.watch_container()
        else:
            self._watchdog.start()
        if not self._held:
            self._tell(Begin())

    def _contained(self) -> None:
        """The test waits in its container, and has a cgroup only now."""
        assert self.container is not None
        try:
            self.container.go(self._process.pid)
            self._watchdog.start()
        except (SetupError, OSError) as error:
            self._verdict = SetupFailed("enter the container's cgroup", error.errno or 0, str(error))
            self._settle()

    def _born(self, answer: int) -> None:
        """The pid, or minus errno."""
        self._is_ordered = False
        if answer > 0:
            self._process.watch(answer)
        elif self._settling:
            self._finish(self._verdict or NEVER_BEGUN)
        else:
            self.not_built("fork the test", -answer)

    def _later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(delay_s, callback))

    # ---- the child runs -------------------------------------------------------------------------

    def _read_channel(self) -> None:
        for message in self._taken():
            if isinstance(message, Entered):
                self._listener.entered()  # what that raises is not the child's doing

    def _taken(self) -> Iterator[Message]:
        assert self._channel is not None
        try:
            for message in self._channel.receive():
                self._take(message)
                yield message
        except Exception as error:  # whatever it is that a child has said
            self._verdict = self._verdict or ChannelBroken.by(error)
            self._loop.unwatch(self._channel)
            self._settle()
            return
        if self._channel.closed:
            self._loop.unwatch(self._channel)
            self._later(CLOSED_CHANNEL_S, self._lives_on)

    def _take(self, message: Message) -> None:
        match message:
            case Entered():
                if self.moments.entered is not None:
                    raise ChannelError("a second report of what is enforced")  # from the test's own code
                self.moments.entered = self.moments.believable(message.monotonic_s)
                self._meter.begin(self.moments.entered)
                self._listener.take(message)
            case Paused(monotonic_s, told):
                self._end_test(monotonic_s, told)
            case UsageQuestion():
                assert self._channel is not None
                self._channel.send(UsageAnswer(accounting.to_fields(self._meter.so_far())))
            case UsageAnswer() | Begin() | RunNext() | Finish():
                raise ChannelError("a message that only pytest sends")
            case Debugging():
                self.is_debugged = has_terminal()
                if self.is_debugged:
                    self._watchdog.cancel_deadline()
            case End(monotonic_s, told):
                self._ended = True
                self._watchdog.cancel_deadline()
                self._finished = self.moments.hear_end(monotonic_s, told, self._loop.quiet_s)
                self._settle_when_alone(time.monotonic())
            case _:
                self._listener.take(message)

    def _end_test(self, monotonic_s: float, told: list[object]) -> None:
        """One of several; the child waits."""
        at = self.moments.hear_end(monotonic_s, told, self._loop.quiet_s)
        self._watchdog.cancel_deadline()
        self._trace.begin_next()
        self._listener.test_ended(self._meter.end(at))  # without rusage: what was reaped so far is the hop

    def begin(self) -> bool:
        """Let a test begin whose child was held. False if that has died."""
        self._held = False
        self._meter.ask()
        return self._channel is None or self._tell(Begin())  # it may not be forked yet

    def go_on(self, message: RunNext | Finish) -> None:
        """Tell the child that waits what to do. Nothing if it has died meanwhile, or never came to be."""
        if self._channel is None:
            self._settle()
        else:
            self._meter.next()
            self.moments = Moments(asked=time.monotonic(), entered=self.moments.entered)
            self._tell(message)

    def _tell(self, message: Begin | RunNext | Finish) -> bool:
        assert self._channel is not None
        self._watchdog.start_deadline()
        self._channel.renew()
        self.moments.begun = time.monotonic()
        try:
            self._channel.send(message)
        except ChannelError as error:
            self._verdict = self._verdict or ChannelBroken(str(error))
            self._settle()
            return False
        return True

    def _lives_on(self) -> None:
        if not self._over:
            what = accounting.describe_process(self._process.pid)
            self._verdict = ChannelBroken(f"the test closed its report channel and went on{what}")
            self._settle()

    # ---- the parent ends it ---------------------------------------------------------------------

    def hears(self) -> bool:
        if (channel := self._channel) is None or channel.closed or self._over:
            return False
        before = channel.total_bytes
        self._read_channel()
        return channel.is_amid or channel.total_bytes != before

    def exceeded(self, outcome: TimedOut | CpuTimeExceeded) -> None:
        if not self._over:
            self._verdict = outcome
            self._ask_for_stacks()

    def _ask_for_stacks(self) -> None:
        """Have the child write its stacks, even when it blocks every signal, and then die."""
        if self.moments.entered is not None:
            self._process.wake(STACKS_SIGNAL)
        self._later(STACKS_WAIT_S, self._settle)

    def pass_on(self, number: signal.Signals) -> None:
        """A signal that reached pytest alone."""
        self._process.signal(number)

    def interrupt(self) -> None:
        """End it from outside: Ctrl-C, the end of the session, or a limit that says nothing more."""
        self._settle()

    # ---- settling -------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Nothing more is expected of the child: count what it leaves, and kill all of it."""
        if self._settling:
            return
        self._watchdog.stop()
        self._settling = True
        self._finished = self._finished or time.monotonic()
        self._leaked = look_at(self._pids()) if self.cgroup is not None else None
        self._kill()
        if self._process.is_over:
            self._finish(self._outcome())

    def _settle_when_alone(self, since_s: float) -> None:
        """What ends by itself in a moment, as multiprocessing's resource tracker, was not left behind."""
        if not self._settling and are_ending(self._pids(), time.monotonic() - since_s):
            self._later(0.005, lambda: self._settle_when_alone(since_s))
        else:
            self._settle()

    def _pids(self) -> set[int]:
        """Of processes of the test beside its own, as far as a cgroup tells."""
        own = {*self._process.pids, 0}  # 0: a process of another pid namespace, none of ours
        return set(self.cgroup.processes()) - own if self.cgroup is not None else set()

    def _kill(self) -> None:
        self._kill_sandbox()
        if self.cgroup is not None and not self.plan.has_init:
            self.cgroup.kill()
        if self._process.pid and (not self.plan.has_init or self._is_on_its_way):
            self._process.kill()

    @property
    def _is_on_its_way(self) -> bool:
        """Not yet in the sandbox that is killed: a handler of forks (pthread_atfork(3)) may never return."""
        return self.container is None and self.moments.entered is None and not self._process.is_over

    @property
    def _over(self) -> bool:
        """The test has ended, or its end is decided."""
        return self._ended or self._settling or self._verdict is not None

    def _exited(self) -> None:
        if not self._settling and not self._ended:
            self._read_channel()
        if self.moments.entered is None:
            self._verdict = self._process.failure or self._verdict
        if self._settling and not self._done:
            self._finish(self._outcome())
        elif not self._ended:
            self._settle()

    def _outcome(self) -> Outcome:
        if self._verdict is not None or self._ended:
            return self._verdict or Completed()
        has_entered = self.moments.entered is not None
        return self._process.outcome(has_entered, self.plan.limits.cpu_time_s, self._trace)

    def _finish(self, outcome: Outcome) -> None:
        self._done = True
        for timer in self._timers:
            timer.cancel()
        leaked = None if self._leaked is None else len(self._leaked)
        usage, limits, unread = self._meter.last(self._finished, self._process.rusage, leaked)
        outcome = ChannelBroken(unread) if unread else outcome
        if usage.oom_kills:
            outcome = OutOfMemory(self.plan.limits.memory_bytes, usage.memory_peak_bytes, usage.oom_kills)
        self.moments.done = time.monotonic()
        result = Result(outcome, usage, self._trace.read(), limits, self.written, self._leaked or ())
        try:
            self._listener.done(result)
        finally:
            self._close()
        if not self.plan.steps:
            discard(self.cgroup)  # no init whose end would tell when it is empty

    def _close(self) -> None:
        if self._channel is not None:
            self._loop.unwatch(self._channel)
        self._watchdog.stop()
        self.close_descriptors()
        if self.container is not None:
            self.container.remove()

    def drop_ours(self) -> None:
        """In its own child: pytest's side of it."""
        if self._channel is not None:
            self._channel.close()
        if self.written is not None:
            os.close(self.written.scratch_fd)

    def forget(self) -> None:
        """In the child of another test: this one is none of its business."""
        self._process.forget()
        self.close_descriptors()

    def close_descriptors(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self.cgroup is not None:
            self.cgroup.close_oom_event()
        if self.written is not None:
            os.close(self.written.scratch_fd)
            self.written = None
        self._trace.close()
        self._process.close()
        self._namespaces.close()
        self.is_closed = True

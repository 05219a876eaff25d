"""The child's side: run each item's whole protocol, and tell the parent what any plugin would be told."""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import pytest

from pytest_isolate.errors import ChannelError
from pytest_isolate.kernel.readback import tell_entered
from pytest_isolate.runner import carry, coverage_data, properties, pytest_private, reruns
from pytest_isolate.runner.extensions import use_libraries
from pytest_isolate.runner.fixtures import Ownership
from pytest_isolate.runner.isolation import Isolation, current_isolation, enter_isolation
from pytest_isolate.runner.observe import Observers
from pytest_isolate.runner.preparation import Preparation, Revival
from pytest_isolate.runner.streams import Streams
from pytest_isolate.runner.watches import watch
from pytest_isolate.sandbox.channel import ChildEnd
from pytest_isolate.sandbox.flight import STACKS_SIGNAL
from pytest_isolate.sandbox.messages import (
    LONGEST_TEXT,
    Begin,
    End,
    ExitRequested,
    Finish,
    InternalFailure,
    Interrupted,
    Message,
    Paused,
    Report,
    RunNext,
    StopRequested,
    WarningRecorded,
)
from pytest_isolate.sandbox.roles import Child
from pytest_isolate.sandbox.template import TemplateChild

__all__ = ["Assignment", "enter", "ignore", "in_child", "run", "run_items", "serve"]

_in_child = False


def in_child() -> bool:
    """Whether this process is the child of an isolated test."""
    return _in_child


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What the parent gives the child with the fork."""

    item: pytest.Item
    nextitem: pytest.Item | None  #: may follow in the same sandbox
    ownership: Ownership
    preparations: Mapping[pytest.Item, Preparation]  #: those that said something
    isolation: Callable[[ChildEnd], Isolation]
    earlier_attempts: int  #: of the first item, that pytest-rerunfailures is to count
    random_state: Any  #: of the module random
    warning_filters: list[Any] | None  #: those around all tests, if it is forked while pytest is in another
    streams: Streams | None  #: if others run at the same time
    libraries: tuple[str, ...]  #: where extension modules find theirs, in a root that is not the host's

    def adopt(self, *, stdin: bool) -> None:
        """In the child, before it says or warns of anything."""
        if self.streams is not None:
            self.streams.adopt(stdin=stdin)
        if self.warning_filters is not None:
            warnings.filters[:] = self.warning_filters  # type: ignore[index]
        use_libraries(self.libraries)


def run(assignment: Assignment, child: Child) -> NoReturn:
    """In the forked child, everything from the entered sandbox to the end of the process."""
    item = assignment.item
    assignment.adopt(stdin=True)
    enter(child, use_faulthandler=faulthandler.is_enabled())
    enter_isolation(assignment.isolation(child.channel))
    pytest_private.fix_native_id()
    # What is frozen is not collected, nor seen by gc.get_referrers and gc.get_objects: tests rely on both.
    gc.unfreeze()
    # Python seeds the module anew in each fork; a suite that seeds it once counts on that.
    random.setstate(assignment.random_state)
    _leave_event_loops()
    assignment.ownership.disown(item)
    if assignment.preparations:
        item.config.pluginmanager.register(Revival(assignment.preparations))
    run_items(
        item,
        assignment.nextitem,
        child,
        item_at=item.session.items.__getitem__,
        earlier_attempts=assignment.earlier_attempts,
        release=assignment.streams.release if assignment.streams is not None else lambda: None,
    )


def serve(assignment: Assignment, template: TemplateChild) -> NoReturn:
    """In a template: what is the same for all of its tests, once; then, in the process of each, the test."""
    first = assignment.item
    assignment.adopt(stdin=True)
    _become_child(template.trace_fd, use_faulthandler=faulthandler.is_enabled())
    gc.unfreeze()
    _leave_event_loops()
    assignment.ownership.disown(first)
    isolation = assignment.isolation(template.channel)
    random.setstate(assignment.random_state)  # before anybody notes it
    _tell_parent(first, template.channel, template.trace_fd)
    served = template.serve()
    enter_isolation(replace(isolation, cgroup_paths=served.cgroup_paths))
    pytest_private.fix_native_id()
    random.setstate(assignment.random_state)
    items = first.session.items
    child = Child(template.channel, template.trace_fd, served.born_s)
    _run_protocols(items[served.item], None, child, items.__getitem__)


def enter(child: Child, *, use_faulthandler: bool) -> None:
    """From here on this process is the child of an isolated test, and says what is enforced."""
    tell_entered(child.channel.fileno())
    _become_child(child.faulthandler_fd, use_faulthandler=use_faulthandler)


def _become_child(faulthandler_fd: int, *, use_faulthandler: bool) -> None:
    global _in_child  # noqa: PLW0603  one process, one answer
    _in_child = True
    if use_faulthandler:
        faulthandler.enable(file=faulthandler_fd)
    # To the default action, too: the end.
    faulthandler.register(STACKS_SIGNAL, file=faulthandler_fd, all_threads=True, chain=True)


def run_items(
    item: pytest.Item,
    nextitem: pytest.Item | None,
    child: Child,
    *,
    item_at: Callable[[int], pytest.Item | None],
    earlier_attempts: int,
    names: Mapping[str, str] | None = None,
    release: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Run the protocols, and end the process.

    ``item_at``: the items by their place in the parent's session, as far as they are here; ``names``: nodeids
    there by those here, where they differ; ``release``: has a debugger get the terminal.
    """
    reruns.skip_attempts(item, earlier_attempts)
    _tell_parent(item, child.channel, child.faulthandler_fd, names, release)
    _run_protocols(item, nextitem, child, item_at)


def _tell_parent(
    item: pytest.Item,
    channel: ChildEnd,
    faulthandler_fd: int,
    names: Mapping[str, str] | None = None,
    release: Callable[[], None] = lambda: None,
) -> None:
    """Have all that plugins are told go there."""
    pytest_private.move_faulthandler(item.config, faulthandler_fd)
    relay = _Reporter(item.session, channel, names or {})
    carry.begin(item.config, relay.send)
    coverage_data.begin()
    watch(item.config).begin(relay.send, release)
    _divert(item.session, relay)


def _run_protocols(
    item: pytest.Item,
    nextitem: pytest.Item | None,
    child: Child,
    item_at: Callable[[int], pytest.Item | None],
) -> NoReturn:
    ready_s = time.monotonic()
    if not isinstance(message := child.channel.receive(), Begin):  # no assert: plugins hear of each
        raise ChannelError(f"{message} is no beginning")
    begun_s = time.monotonic()
    ended = _run_items(item, nextitem, child.channel, item_at, [child.born_s, ready_s, begun_s])
    _wind_down()
    child.channel.send(End(time.monotonic(), ended))
    os._exit(0)


def _divert(session: pytest.Session, relay: _Reporter) -> None:
    pytest_private.divert_hooks(
        session,
        {
            "pytest_runtest_logstart": ignore,
            "pytest_runtest_logfinish": ignore,
            "pytest_runtest_logreport": relay.report,
            "pytest_warning_recorded": relay.warning,
        },
    )


def _leave_event_loops() -> None:
    """Those of the parent: to use one, or to close it, would act on the epoll that is the parent's too."""
    # asyncio's loop of this thread; CPython forgets it by itself since 3.12 (events.py, on_fork).
    policy: Any = getattr(sys.modules.get("asyncio.events"), "_event_loop_policy", None)
    if sys.version_info < (3, 12) and policy is not None:
        pytest_private.never_free(getattr(getattr(policy, "_local", None), "_loop", None))
        policy.set_event_loop(None)
    # anyio's test runner, which lives as long as a fixture leases it (anyio/pytest_plugin.py, since 4.0).
    anyio: Any = sys.modules.get("anyio.pytest_plugin")
    if getattr(anyio, "_current_runner", None) is not None:
        pytest_private.never_free(anyio._current_runner, anyio._runner_stack)
        anyio._current_runner = anyio._runner_stack = None
        anyio._runner_leases = 0


def _run_items(
    item: pytest.Item,
    nextitem: pytest.Item | None,
    channel: ChildEnd,
    item_at: Callable[[int], pytest.Item | None],
    moments: list[float | None],
) -> list[float | None]:
    """The first item, and those that the parent names one by one; gives the moments of the last.

    ``moments``: of the first, until it began (see ``sandbox/moments.py``).
    """
    session = item.session
    observers = Observers.of(item.config)
    observers.enter(current_isolation())
    while True:
        observers.begin(item)
        before = (session.shouldstop, session.shouldfail)
        ending = _protocol(item, nextitem)
        moments = [*moments, time.monotonic()]
        for end in ending:  # at once: after Ctrl-C pytest does not wait long for it
            channel.send(end)
        told: list[Message] = [*observers.collect(), *coverage_data.collect(), *carry.collect(item)]
        for message in told:
            channel.send(message)
        if (session.shouldstop, session.shouldfail) != before:
            reason = session.shouldfail or session.shouldstop
            channel.send(StopRequested(str(reason), bool(session.shouldfail)))
            nextitem = None
        if ending or nextitem is None:
            break
        channel.send(Paused(time.monotonic(), moments))
        match channel.receive():
            case RunNext(index, next_index):
                item = item_at(index) or item  # it was found when it was named as the next
                nextitem = item_at(next_index) if next_index is not None else None
                moments = [None, None, time.monotonic()]
            case Finish():
                _tear_down(item)
                for message in coverage_data.collect():
                    channel.send(message)
                return moments
            case message:
                raise AssertionError(f"{message} is no answer to a pause")
    _tear_down(item)
    return moments


def _tear_down(item: pytest.Item) -> None:
    """What plain pytest does when the session finishes; here a failure is a report of the last test's."""
    call = pytest.CallInfo.from_call(lambda: pytest_private.tear_down_to(item.session, None), when="teardown")
    if call.excinfo is not None:
        item.ihook.pytest_runtest_logreport(report=pytest.TestReport.from_item_and_call(item, call))


def ignore(**_: object) -> None:
    """The parent has called this hook, or will."""


def _protocol(item: pytest.Item, nextitem: pytest.Item | None) -> list[Message]:
    """Run the protocol with every plugin's part in it; give what it ended with."""
    try:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
    except pytest.exit.Exception as ending:
        return [ExitRequested(str(ending.msg), _int_or_none(ending.returncode))]
    except KeyboardInterrupt as interrupt:
        return [_interrupted(interrupt)]
    except BaseException:
        return [InternalFailure(traceback.format_exc()[-LONGEST_TEXT:])]
    return []


def _interrupted(interrupt: KeyboardInterrupt) -> Interrupted:
    place = traceback.extract_tb(interrupt.__traceback__)[-1]
    return Interrupted(str(interrupt), place.filename, place.lineno or 1)


def _int_or_none(value: object) -> int | None:
    return int(value) if isinstance(value, int) else None


class _Reporter:
    """Turns hook calls into messages."""

    def __init__(self, session: pytest.Session, channel: ChildEnd, names: Mapping[str, str]) -> None:
        self._session = session
        self._config = session.config
        self._channel = channel
        self._names = names

    def _send(self, message: Message) -> None:
        if not self._channel.is_mine():
            os._exit(1)  # a process that the test forked has come back as if it were the test
        self._channel.send(message)

    def send(self, message: Message) -> None:
        """Only from the test's own process: what it forked may do the same, and has no channel."""
        if self._channel.is_mine():
            self._channel.send(message)

    def report(self, report: pytest.TestReport, **_: object) -> None:
        # Counts failures against --maxfail: if this was the last, all is torn down with this test.
        self._session.pytest_runtest_logreport(report)
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        data["nodeid"] = self._names.get(data["nodeid"], data["nodeid"])
        data["user_properties"] = [properties.pack(pair) for pair in report.user_properties]
        self._send(
            Report(
                data,
                opaque=pytest_private.is_opaque(report.longrepr),
                failed_subtests=pytest_private.failed_subtests(self._config, report),
            )
        )

    def warning(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None = None,
        **_: object,
    ) -> None:
        category = warning_message.category
        self._send(
            WarningRecorded(
                text=str(warning_message.message),
                args=[properties.pack(arg) for arg in getattr(warning_message.message, "args", ())],
                category=f"{category.__module__}.{category.__qualname__}",
                filename=warning_message.filename,
                lineno=warning_message.lineno,
                when=when,
                nodeid=self._names.get(str(nodeid), str(nodeid)),
                location=list(location) if location is not None else None,
                has_source=warning_message.source is not None,
            )
        )


def _wind_down() -> None:
    """What ``os._exit`` would skip and a test may count on."""
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._exit_function()  # as multiprocessing's own children do: joins and terminates theirs
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # closed by the test

"""Which sandbox carries which test, and which tests start before pytest comes to them (``--isolate-jobs``).

pytest goes through the items one by one, and each is logged when its turn comes; so what users see has the
order of plain pytest. While pytest waits for one test, those that follow are started, as far as

- what the machine has is enough for all that run (``capacity.py``),
- none of them is to run alone (``exclusive``), and
- what the parent has set up for the earlier ones is right for them too: a module whose fixtures are set up
  in pytest is left when the last of its tests has ended.

What was started and is not wanted, as after a failure under ``-x``, is ended and forgotten.

Where tests run one at a time, the next one's process is made while one runs, and held before it runs anything
of its test. It is made anew if the test before it turns out to leave something that it would inherit.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_isolate.errors import IsolateError
from pytest_isolate.kernel import interrupts
from pytest_isolate.kernel.available import available_descriptors
from pytest_isolate.runner import current_test, pytest_private, reruns
from pytest_isolate.runner.holding import Holding
from pytest_isolate.runner.session import IsolateSession
from pytest_isolate.runner.ticker import Ticker
from pytest_isolate.runner.voyage import Voyage
from pytest_isolate.runner.watches import watch
from pytest_isolate.spec import Scope, Spec
from pytest_isolate.values import Missing

__all__ = ["Fleet"]

#: Tests that have been started and not logged, at most: a slow one holds up the log of all that follow.
MAX_AHEAD = 512
#: What pytest has open for a test that runs; and what stays free for it, and for those that are made ahead.
DESCRIPTORS = 16
SPARE_DESCRIPTORS = 64


@dataclass(slots=True)
class _Ahead:
    """A test that was started before its turn, or what came of trying to."""

    voyage: Voyage | None = None
    error: BaseException | None = None
    warnings: list[dict[str, Any]] = field(default_factory=list)  #: of setting up what it inherits

    @property
    def has_ended(self) -> bool:
        voyage = self.voyage
        return voyage is not None and voyage.is_over and not voyage.is_held and voyage.run.outcome is not None

    def warn(self, item: pytest.Item) -> None:
        for kwargs in self.warnings:
            item.ihook.pytest_warning_recorded.call_historic(kwargs=kwargs)


class Fleet:
    def __init__(self, session: IsolateSession) -> None:
        self.session = session
        self.voyage: Voyage | None = None  #: of the item whose turn it is, or was last
        self._ahead: dict[pytest.Item, _Ahead] = {}  # in the order of the items
        self._last: pytest.Item | None = None  # that was started
        self._is_interrupted = False
        self._holding = Holding(session)
        watch(session.config)

    # ---- the item whose turn it is --------------------------------------------------------------

    def turn_to(self, item: pytest.Item) -> None:
        """pytest has come to ``item``: what was started for items before it will not be asked for."""
        if item not in self._ahead:
            self.cancel()
        for passed in [*self._ahead]:
            if passed is item:
                break
            self._forget(passed)

    def go_on(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        """Have the last sandbox run ``item``, if it waits for that."""
        if self.voyage is None or not self.voyage.awaits(item):
            return False
        self.voyage.go_on(item, nextitem)
        return True

    def drop(self) -> None:
        """Nothing more is asked of the last sandbox."""
        if self.voyage is not None:
            self.voyage.close()
        self.voyage = None

    def board(
        self, item: pytest.Item, nextitem: pytest.Item | None, spec: Spec, earlier_attempts: int = 0
    ) -> None:
        """Have a sandbox for ``item``: one that was started before, or a new one.

        Raises what the machine cannot do.
        """
        ahead = self._ahead.pop(item, None)
        if ahead is not None and ahead.voyage is not None and ahead.voyage.is_held:
            ahead = ahead if self._begin_held(ahead.voyage) else None
        self.drop()
        if ahead is None:
            self.voyage = self._embark(item, nextitem, spec, earlier_attempts)
            if not self._ahead:
                self._last = item
            return
        ahead.warn(item)
        if ahead.error is not None:
            raise ahead.error
        self.voyage = ahead.voyage

    def wait(self, nextitem: pytest.Item | None) -> Voyage:
        """Until the test of :attr:`voyage` has ended."""
        voyage = self.voyage
        assert voyage is not None
        if self.session.capacity.jobs == 1:
            self._hold(voyage, nextitem)
            voyage.wait()
            self._holding.learn(voyage)
            return voyage
        ticker = Ticker(self.session.config, self.session.launcher.loop, self._running)
        ticker.start()
        try:
            voyage.wait(meanwhile=lambda: self._advance(voyage.run.item, nextitem))
        finally:
            ticker.stop()
        return voyage

    def _hold(self, voyage: Voyage, nextitem: pytest.Item | None) -> None:
        """Where tests run one at a time: have the next one's process made."""
        if self._ahead:
            return
        if nextitem is None or not self._holding.may_hold(nextitem, voyage):
            self._holding.end()
            return
        spec = self.session.spec_of(nextitem)
        assert isinstance(spec, Spec)
        try:
            held = self._embark(nextitem, self._after(nextitem), spec, held=True)
        except (IsolateError, OSError):
            return  # the item meets it again when it has its turn, and reports it
        self._ahead[nextitem] = _Ahead(held)

    def _begin_held(self, voyage: Voyage) -> bool:
        """Unless it has died, or lacks what the last test has left."""
        if self._holding.is_right and not voyage.is_over and voyage.begin():
            return True
        self._holding.end()
        voyage.cancel()
        return False

    @property
    def is_ahead(self) -> bool:
        """Whether the parent has moved on to what later items need, or keeps it until the session ends."""
        return bool(self._ahead) or self._is_interrupted

    def interrupted(self) -> Iterator[Voyage]:
        """After Ctrl-C: of tests that have ended before their turn, which will not come. The others end."""
        self._is_interrupted = True
        ended = {item: ahead for item, ahead in self._ahead.items() if ahead.has_ended}
        for item in ended:
            del self._ahead[item]
        self.cancel()
        for item, ahead in ended.items():
            assert ahead.voyage is not None
            ahead.warn(item)
            yield ahead.voyage
            ahead.voyage.close()

    def cancel(self) -> None:
        """End all that was started before its turn."""
        self._holding.end()
        for item in [*self._ahead]:
            self._forget(item)

    def _forget(self, item: pytest.Item) -> None:
        voyage = self._ahead.pop(item).voyage
        if voyage is not None:
            voyage.cancel()

    def _embark(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        spec: Spec,
        earlier_attempts: int = 0,
        *,
        held: bool = False,
    ) -> Voyage:
        session = self.session
        voyage = Voyage(session, item, spec, earlier_attempts)
        with interrupts.allowed():
            voyage.company.prepare(item, nextitem, is_ready=held)
        plan = session.plan_for(spec)  # not before: a fixture may have changed the working directory
        plan = session.degrade(plan) if session.missing is Missing.DEGRADE else plan
        template = self._holding.template(voyage, plan) if held else None
        voyage.start(plan, nextitem, held=held, template=template)
        return voyage

    # ---- those before their turn ----------------------------------------------------------------

    def _advance(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """While pytest waits for ``item``: start what may run at the same time."""
        self._wait_for_debuggers()
        while (follower := self._next(item, nextitem)) is not None and self._may_start(follower):
            self._start(follower)

    def _next(self, item: pytest.Item, nextitem: pytest.Item | None) -> pytest.Item | None:
        """The item behind the last one that was started."""
        last = self._last
        if last is item:
            return nextitem
        # xdist, or another plugin, may have an order of its own; it tells one item at a time.
        if last is None or hasattr(item.config, "workerinput") or self._after(item) is not nextitem:
            return None
        return self._after(last)

    def _after(self, item: pytest.Item) -> pytest.Item | None:
        items, place = item.session.items, self.session.place(item) + 1
        return items[place] if place < len(items) else None

    def _may_start(self, item: pytest.Item) -> bool:
        session = self.session
        spec = session.spec_of(item)
        running = [voyage.spec for voyage in self._under_way()]
        if not isinstance(spec, Spec) or any(not _is_sociable(each) for each in (spec, *running)):
            return False
        if len(self._ahead) >= MAX_AHEAD or any(ahead.error for ahead in self._ahead.values()):
            return False
        if not session.capacity.admits(spec.limits, [each.limits for each in running]):
            return False
        if not self._has_descriptors():  # asks the kernel, and so not of one that need not be started
            return False
        if session.why_skipped(spec):
            return False
        return self._finds_all_in_place(item, spec)

    def _has_descriptors(self) -> bool:
        """Whether one more may start without others, whose processes are still to come, having too few."""
        started = 1 + sum(not voyage.has_process for voyage in self._under_way())
        return available_descriptors() >= SPARE_DESCRIPTORS + DESCRIPTORS * started

    def _finds_all_in_place(self, item: pytest.Item, spec: Spec) -> bool:
        """Whether setting up what ``item`` inherits leaves alone what the tests before it have."""
        ownership = self.session.ownership_for(spec)
        if ownership.outgrown(item) or ownership.conflicts(item):
            return False
        if not pytest_private.can_leave(item.session, item):
            return False
        # A test that is run again needs the nodes above it.
        return item.parent is self._last_parent or not any(map(reruns.may_repeat, self._unlogged()))

    @property
    def _last_parent(self) -> object:
        return self._last.parent if self._last is not None else None

    def _unlogged(self) -> Iterator[pytest.Item]:
        if self.voyage is not None:
            yield self.voyage.run.item
        yield from self._ahead

    def _under_way(self) -> Iterator[Voyage]:
        for voyage in (self.voyage, *(ahead.voyage for ahead in self._ahead.values())):
            if voyage is not None and not voyage.is_over:
                yield voyage

    def _running(self) -> list[tuple[str, float]]:
        under_way = [*self._under_way()]
        if any(voyage.is_debugged for voyage in under_way):
            return []  # the terminal is somebody's
        return [(voyage.run.item.nodeid, voyage.start_ts) for voyage in under_way]

    def _start(self, item: pytest.Item) -> None:
        self._last, ahead = item, _Ahead()
        spec = self.session.spec_of(item)
        assert isinstance(spec, Spec)
        self._ahead[item] = ahead
        filters = self.session.warning_filters
        with current_test.shown(item), pytest_private.catch_warnings(item, filters, ahead.warnings):
            try:
                pytest_private.tear_down_to(item.session, item)  # nothing but to leave nodes
                ahead.voyage = self._embark(item, self._after(item), spec)
            except (IsolateError, OSError, pytest.exit.Exception) as error:
                ahead.error = error  # of the item, when its turn comes

    def _wait_for_debuggers(self) -> None:
        """Somebody has the terminal: nothing is printed, and Ctrl-C is not for pytest."""
        with interrupts.deferred():
            while any(voyage.is_debugged and not voyage.has_turn for voyage in self._under_way()):
                with contextlib.suppress(KeyboardInterrupt):
                    self.session.launcher.loop.run_once()


def _is_sociable(spec: Spec) -> bool:
    """Whether other tests may run at the same time. A group goes on when pytest comes to its next test."""
    return not spec.exclusive and spec.scope is Scope.FUNCTION

"""The tests that may run in one sandbox, and what pytest has set up for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from pytest_isolate.runner import pytest_private
from pytest_isolate.runner.fixtures import Parameters, sandbox_node
from pytest_isolate.runner.preparation import Preparation, prepare
from pytest_isolate.runner.session import IsolateSession
from pytest_isolate.spec import Scope, Spec

__all__ = ["Company"]


class Company:
    """Of its first item, and those that follow it as far as plan and fixtures allow."""

    def __init__(self, session: IsolateSession, first: pytest.Item, spec: Spec) -> None:
        self.spec = spec
        self.ownership = session.ownership_for(spec)
        self._session = session
        self._node = sandbox_node(first, spec.scope)
        self._parameters: Parameters = {}
        self._preparations: dict[pytest.Item, Preparation] = {}

    def prepare(self, item: pytest.Item, nextitem: pytest.Item | None, *, is_ready: bool = False) -> None:
        """Set up what the tests inherit. Later is too late: all that is known to follow is prepared too.

        ``is_ready``: somebody has looked, and there is nothing to do for ``item``.
        """
        # What the first one says may stay where it is captured, unless a follower's would be added to it.
        alone = self.spec.scope is Scope.FUNCTION and self._session.capacity.jobs == 1
        self._preparations[item] = prepare(item, self.ownership, take_output=not alone, is_ready=is_ready)
        if self.spec.scope is Scope.FUNCTION:
            return
        self._parameters = self.ownership.parameters(item)
        for follower in self._followers(item, nextitem):
            if not self._may_follow(follower):
                break
            self.add(follower)
            self._preparations[follower] = prepare(follower, self.ownership, take_output=True)

    def add(self, item: pytest.Item) -> None:
        """It runs here too: others are to agree with its parameters."""
        self._parameters |= self.ownership.parameters(item)

    def next_aboard(self, nextitem: pytest.Item | None) -> pytest.Item | None:
        """``nextitem`` if it can run in this sandbox."""
        if nextitem is None or self.spec.scope is Scope.FUNCTION or not self._may_follow(nextitem):
            return None
        return nextitem if nextitem in self._preparations or self.ownership.is_set_up(nextitem) else None

    def all_aboard(self, item: pytest.Item) -> Iterator[tuple[int, pytest.Item]]:
        """Whatever may come to run here beside ``item``, with its place in the session."""
        for place, each in enumerate(item.session.items):
            if each is item or sandbox_node(each, self.spec.scope) is self._node:
                yield place, each

    # ---- what became of setting up --------------------------------------------------------------

    @property
    def heard(self) -> Mapping[pytest.Item, Preparation]:
        """Of the tests for which that said something."""
        return {item: p for item, p in self._preparations.items() if not p.is_silent}

    def ran_code(self, item: pytest.Item) -> bool:
        """Whether it may have left something in pytest's capture, until the item has ended."""
        return item not in self._preparations or self._preparations[item].ran_code

    def shared_s(self, item: pytest.Item) -> float:
        """Seconds that it took for ``item``."""
        return self._preparations[item].duration_s if item in self._preparations else 0.0

    # ---- who may follow -------------------------------------------------------------------------

    def _followers(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[pytest.Item]:
        if nextitem is None:
            return
        items = item.session.items
        at = self._session.place(item) + 1
        if hasattr(item.config, "workerinput") or items[at : at + 1] != [nextitem]:
            yield nextitem  # xdist decides what comes later when it comes to it
        else:
            yield from items[at:]

    def _may_follow(self, item: pytest.Item) -> bool:
        if self._session.spec_of(item) != self.spec or sandbox_node(item, self.spec.scope) is not self._node:
            return False
        if self.ownership.outgrown(item):
            return False
        wanted, given = self.ownership.parameters(item), self._parameters
        shared = wanted.keys() & given.keys()
        return all(pytest_private.is_same_parameter(wanted[each], given[each]) for each in shared)

"""The next test's process, made while another test runs and held: whether that is right, and by whom.

It is a copy of pytest as it was before the other test had ended. So nothing may be left to do in pytest
between the two, and what the other test leaves there (a failure, random numbers drawn, a warning) makes it
wrong.
"""

from __future__ import annotations

import threading
from functools import cached_property

import pytest

from pytest_isolate.runner.session import IsolateSession
from pytest_isolate.runner.suite_hooks import listens_between_tests
from pytest_isolate.runner.voyage import Voyage
from pytest_isolate.sandbox.plan import Plan
from pytest_isolate.sandbox.template import Template
from pytest_isolate.spec import Scope, Spec, Start
from pytest_isolate.values import Missing

__all__ = ["Holding"]

#: A template costs a fork and its end: it is to serve as many tests, and after as many that left nothing.
WORTHWHILE = 3


class Holding:
    def __init__(self, session: IsolateSession) -> None:
        self._session = session
        self._template: Template | None = None
        self._parent: object = None  # of the items that the template serves
        self._uneventful = WORTHWHILE  # tests in a row
        self._threads = threading.active_count()  # of pytest itself, and of plugins

    def may_hold(self, item: pytest.Item, before: Voyage) -> bool:
        """Whether nothing is to be done for ``item`` in pytest but to fork."""
        session = self._session
        spec = session.spec_of(item)
        return (
            isinstance(spec, Spec)
            and spec.start is Start.FORK
            and spec.scope is before.spec.scope is Scope.FUNCTION
            and item.parent is before.run.item.parent
            and not before.company.ran_code(before.run.item)
            and self.is_right
            and not self._suite_listens
            and threading.active_count() <= self._threads  # what runs beside pytest may change what it has
            and session.missing is not Missing.SKIP
            and session.ownership_for(spec).is_ready(item)
        )

    def learn(self, voyage: Voyage) -> None:
        """A test has ended."""
        self._uneventful = self._uneventful + 1 if voyage.left_nothing else 0

    @property
    def is_right(self) -> bool:
        """Whether a process made before the last test ended is what it would be, were it made now."""
        return self._uneventful > 0

    def template(self, voyage: Voyage, plan: Plan) -> Template | None:
        """What is to make the process of an item that may be held; None: pytest itself."""
        item = voyage.run.item
        template = self._template
        items, place = item.session.items, self._session.place(item)
        if place == len(items):  # a plugin's own, which no place names
            return None
        if (
            template is not None
            and template.is_alive
            and template.plan is plan
            and self._parent is item.parent
        ):
            return template
        self.end()
        last = place + WORTHWHILE - 1
        far = items[last : last + 1]
        if self._uneventful >= WORTHWHILE and far and far[0].parent is item.parent:
            self._template, self._parent = voyage.make_template(plan), item.parent
        return self._template

    def end(self) -> None:
        """What comes next is done in pytest: nobody else may have open what it closes."""
        if self._template is not None:
            self._template.close()
        self._template = None

    @cached_property
    def _suite_listens(self) -> bool:
        return listens_between_tests(self._session.config)

"""Which fixtures are pytest's and which are the sandbox's, and what that means on each side of the fork.

A sandbox has a scope. Under ``fixtures="shared"`` what is wider belongs to the parent: it is set up there,
once, and the children inherit it. All else, and under ``fixtures="fresh"`` everything, is set up and torn
down in the child. Fixtures that do not survive a fork are the child's whatever their scope.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import pytest

from pytest_isolate.runner import pytest_private
from pytest_isolate.spec import Fixtures, Scope, Spec, Start

__all__ = ["FORK_UNSAFE", "Ownership", "Parameters", "sandbox_node"]

#: Event loops: their epoll descriptor would be one for all children. Loops of anyio and trio are made by
#: async fixtures and tests, which need no names.
FORK_UNSAFE = ("_*_scoped_runner", "event_loop")

WIDTHS = ("function", "class", "module", "package", "session")

Node = pytest.Item | pytest.Collector
Definition = pytest.FixtureDef[Any]
#: Values of parametrized fixtures that are set up in the parent.
Parameters = dict[Definition, object]


def sandbox_node(item: pytest.Item, scope: Scope) -> Node:
    """The node whose tests share a sandbox; the item itself if they do not."""
    match scope:
        case Scope.FUNCTION:
            return item
        case Scope.CLASS:
            return item.getparent(pytest.Class) or item
        case Scope.MODULE:
            return item.getparent(pytest.File) or item


class Ownership:
    """For items with one kind of Spec."""

    def __init__(self, spec: Spec, fresh_patterns: Iterable[str] = ()) -> None:
        self._scope = spec.scope
        # A fresh interpreter inherits nothing.
        self._is_shared = spec.fixtures is Fixtures.SHARED and spec.start is Start.FORK
        self._patterns = (*FORK_UNSAFE, *fresh_patterns)
        self._fork_unsafe: dict[Definition, bool] = {}

    # ---- in the parent --------------------------------------------------------------------------

    def is_ready(self, item: pytest.Item) -> bool:
        """Whether the parent has nothing to set up or to tear down for ``item``."""
        parent = sandbox_node(item, self._scope).parent
        if not self._is_shared or parent is None:
            return True
        return (
            pytest_private.has_set_up(parent)
            and not self.outgrown(item)
            and not self.conflicts(item)
            and self.is_set_up(item)
        )

    def set_up(self, item: pytest.Item) -> bool:
        """Set up, here and now, the parent's collectors and fixtures for ``item``, in plain pytest's order;
        gives whether any of them had code to run.

        What fails is raised, and most of it is remembered by pytest and raised again where the item meets it.
        """
        __tracebackhide__ = True
        parent = sandbox_node(item, self._scope).parent
        if not self._is_shared or parent is None or pytest_private.is_skipped_by_mark(item):
            return False
        ran_code = pytest_private.set_up_nodes(parent)
        outgrown = self.outgrown(item)
        needed = [*self._parents_fixtures(item)]
        if outgrown or needed:
            with pytest_private.request_of(item) as request:
                for definition in outgrown:
                    pytest_private.finish_fixture(request, definition)
                for requesting, name in needed:
                    inner = request
                    for definition in requesting:
                        inner = pytest_private.request_from(inner, definition)
                    pytest_private.set_up_fixture(inner, name)
        return ran_code or bool(outgrown or needed)

    def parameters(self, item: pytest.Item) -> Parameters:
        """The values with which the parent's fixtures are set up for ``item``."""
        found: Parameters = {}
        callspec = getattr(item, "callspec", None)
        if callspec is None:
            return found
        for requesting, name in self._parents_fixtures(item):
            definition = pytest_private.find_fixture(item, name, _level(requesting, name))
            if definition is not None and name in callspec.params:
                found[definition] = callspec.params[name]
        return found

    def is_set_up(self, item: pytest.Item) -> bool:
        """Whether the parent holds all that ``item`` needs of it."""
        needed = (
            pytest_private.find_fixture(item, name, _level(requesting, name))
            for requesting, name in self._parents_fixtures(item)
        )
        return all(definition is None or definition.cached_result is not None for definition in needed)

    def outgrown(self, item: pytest.Item) -> list[Definition]:
        """What the parent has set up with another parameter, and ``item`` wants for a narrower scope: plain
        pytest tears it down before ``item``."""
        found: list[Definition] = []
        if not self._is_shared or not pytest_private.has_fixtures(item):
            return found
        for name in getattr(getattr(item, "callspec", None), "params", ()):
            definition = pytest_private.find_fixture(item, name, 0)
            scope = pytest_private.scope_of_parameter(item, name)
            if (
                definition is not None
                and scope is not None
                and definition.cached_result is not None
                and self._is_wider(definition.scope)
                and not self._is_wider(scope)
                and not pytest_private.is_cached(item, definition)
            ):
                found.append(definition)
        return found

    def conflicts(self, item: pytest.Item) -> bool:
        """Whether the parent would have to set up anew what it has set up for others."""
        return any(
            definition.cached_result is not None and not pytest_private.is_cached(item, definition)
            for definition in self.parameters(item)
        )

    def names(self, item: pytest.Item) -> tuple[list[str], list[str]]:
        """The fixtures that ``item`` is known to use: pytest's, and the sandbox's."""
        parents = [*self._parents_fixtures(item)]
        names = [name for name in getattr(item, "fixturenames", ()) if name != "request"]
        return [name for _, name in parents], [name for name in names if ((), name) not in parents]

    # ---- in the child ---------------------------------------------------------------------------

    def disown(self, item: pytest.Item) -> None:
        """What the parent has set up is the parent's to tear down; what is the child's is set up anew."""
        held = pytest_private.held_fixtures(item.session)
        kept = sandbox_node(item, self._scope).listchain()[:-1] if self._is_shared else []
        forgotten = {h.definition for h in held if h.node not in kept or self._is_fork_unsafe(h.definition)}
        for definition, _ in held:  # in order of set-up: dependents come later
            if any(_may_use(definition, other) for other in forgotten):
                forgotten.add(definition)
        pytest_private.disown_nodes(item.session, kept)
        for definition, _ in held:
            pytest_private.disown_fixture(definition, forget=definition in forgotten)

    # ---- whose is it ----------------------------------------------------------------------------

    def _parents_fixtures(self, item: pytest.Item) -> Iterator[tuple[tuple[Definition, ...], str]]:
        """Each with the fixtures that ask for it, outermost first: a definition that is overridden is reached
        only through the one that overrides it."""
        if not self._is_shared or not pytest_private.has_fixtures(item):
            return
        known: dict[Definition, bool] = {}
        overrides = []
        for name in getattr(item, "fixturenames", ()):
            definition = pytest_private.find_fixture(item, name, 0)
            if definition is None:
                continue
            if self._is_parents(item, name, (), known):
                yield (), name
            elif pytest_private.find_fixture(item, name, 1) is not None:
                overrides.append((name, definition))
        for name, definition in overrides:
            yield from self._below(item, name, (definition,), known)

    def _below(
        self, item: pytest.Item, name: str, requesting: tuple[Definition, ...], known: dict[Definition, bool]
    ) -> Iterator[tuple[tuple[Definition, ...], str]]:
        for needed in requesting[-1].argnames:
            definition = pytest_private.find_fixture(item, needed, _level(requesting, needed))
            if definition is None:
                continue
            if not self._is_parents(item, needed, requesting, known):
                yield from self._below(item, name, (*requesting, definition), known)
            elif needed == name:
                yield requesting, needed

    def _is_parents(
        self,
        item: pytest.Item,
        name: str,
        requesting: tuple[Definition, ...],
        known: dict[Definition, bool],
    ) -> bool:
        definition = pytest_private.find_fixture(item, name, _level(requesting, name))
        if definition is None:
            return True  # ``request``, or what pytest will say it does not know
        if definition not in known:
            scope = pytest_private.scope_of_parameter(item, name) or definition.scope
            if pytest_private.is_cached(item, definition):
                scope = definition.scope  # its parameter has the value that it is set up with
            known[definition] = (
                self._is_wider(scope)
                and not self._is_fork_unsafe(definition)
                and all(
                    self._is_parents(item, needed, (*requesting, definition), known)
                    for needed in definition.argnames
                )
            )
        return known[definition]

    def _is_wider(self, scope: str) -> bool:
        return WIDTHS.index(scope) > WIDTHS.index(self._scope.value)

    def _is_fork_unsafe(self, definition: Definition) -> bool:
        if definition not in self._fork_unsafe:
            func = definition.func
            is_async = inspect.iscoroutinefunction(func) or inspect.isasyncgenfunction(func)
            named = any(fnmatchcase(definition.argname, pattern) for pattern in self._patterns)
            self._fork_unsafe[definition] = is_async or named
        return self._fork_unsafe[definition]


def _level(requesting: Iterable[Definition], name: str) -> int:
    """How many of the requesting fixtures a fixture's name stands for an overridden one."""
    return sum(definition.argname == name for definition in requesting)


def _may_use(definition: Definition, other: Definition) -> bool:
    """Whether ``other`` can be what ``definition`` asks for by its name: it is not narrower."""
    return other.argname in definition.argnames and (
        WIDTHS.index(other.scope) >= WIDTHS.index(definition.scope)
    )

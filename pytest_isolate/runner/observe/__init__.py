"""What a test does that a hermetic one must not, as its own process sees it.

Python code that the test runs could lie about all of this: it is for telling people where to look. What is
enforced is so without it, and what the kernel tells comes from the parent's side.

An observer is begun before each test, when nothing of it has run, and asked when its teardown is over. What
a fixture of a wider scope than ``function`` does as it is set up is not the test's. What it has left when it
is torn down is told of the last test that had it, if others may follow in the same sandbox.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from pytest_isolate.kernel.look import count_ipc, has_company
from pytest_isolate.runner import cures, pytest_private, reruns
from pytest_isolate.runner.isolation import Isolation
from pytest_isolate.runner.observe import (
    audit,
    clock,
    descriptors,
    environment,
    files,
    ipc,
    network,
    paths,
    processes,
    project,
    threads,
)
from pytest_isolate.runner.observe import secrets as secrets_of_home
from pytest_isolate.runner.watches import watch
from pytest_isolate.sandbox.messages import Observed
from pytest_isolate.spec import Fixtures, Network, Scope, Start, Watch
from pytest_isolate.violation import MOST_VIOLATIONS, Kind, Violation

__all__ = ["Observer", "Observers"]


class Observer(Protocol):
    def begin(self) -> None:
        """A test begins, of the same sandbox and Spec as any before it."""

    def aside(self) -> Callable[[], Callable[[], None] | None]:
        """A fixture of a wider scope is set up until the result is called: what happens meanwhile is not the
        test's. What that gives is called when the fixture has been torn down: what it has left then is."""

    def found(self) -> Iterator[Violation]:
        """The test has ended."""


#: From how many on CPython knows its code (adaptive interpreter, since 3.11).
WARM_UP_ROUNDS = 10
_OBSERVERS = pytest.StashKey["Observers"]()


class Observers:
    """All of them. Made in pytest, before the forks: what a child makes anew costs it memory and time."""

    def __init__(self, config: pytest.Config) -> None:
        self._rootdir = str(config.rootpath)
        self._clock = clock.Clock()
        basetemp = pytest_private.basetemp(config)
        paths.begin(basetemp)
        self._files = files.Files(basetemp or "/dev/null")
        self._processes = processes.Processes()
        self._ipc = ipc.Ipc()
        self._secrets = secrets_of_home.Secrets()
        self._threads = threads.Threads()
        self._network = network.Network()
        self._project = project.Project(self._rootdir)
        own = [
            pytest_private.log_file_fd(config),
            *(pytest_private.uncaptured_fd(config, n) for n in range(3)),
            reruns.status_fd(config),
        ]
        self._descriptors = descriptors.Descriptors(fd for fd in own if fd is not None)
        # The last to begin is the first to be asked: what observers do themselves is not seen by others.
        self._all: list[Observer] = [
            environment.Environment(),
            self._secrets,
            self._descriptors,
            self._threads,
        ]
        self._observers: list[Observer] = []
        self._scope = Scope.FUNCTION
        self._watch = watch(config)
        self._warm_up()

    def _warm_up(self) -> None:
        """What Python and cffi make of code that runs, they would make anew in each child."""
        for _ in range(WARM_UP_ROUNDS):
            for observer in self._all:
                observer.begin()
                for _ in observer.found():
                    continue
            count_ipc()
            has_company()

    @classmethod
    def of(cls, config: pytest.Config) -> Observers:
        """The session's."""
        found = config.stash.get(_OBSERVERS, None)
        if found is None:
            found = config.stash[_OBSERVERS] = cls(config)
        return found

    def enter(self, isolation: Isolation) -> None:
        """In the process of a test, which has entered its sandbox."""
        spec = isolation.spec
        if spec.watch is Watch.OFF:
            return
        self._observers = [*self._all]
        self._scope = spec.scope
        if spec.strict:
            self._project.enter()
            self._observers.append(self._project)
        if spec.network is not Network.HOST:
            self._network.enter()
            self._observers.append(self._network)
        if not isolation.missing:  # else its processes and their like may be the machine's
            self._observers += [self._ipc, self._processes]
            if spec.start is Start.SPAWN:
                self._processes.enter()
        audit.install(self._rootdir)
        self._threads.enter()
        if spec.fixtures is Fixtures.FRESH:  # else one of them may have set what is HOME now
            self._secrets.enter()
        if spec.start is Start.FORK and spec.fixtures is Fixtures.FRESH:
            self._descriptors.watch_inherited()
        self._watch.aside = self._aside
        self._watch.during = self._clock.during

    def begin(self, item: pytest.Item) -> None:
        if not self._observers:
            return
        audit.pause()
        audit.look_at(item.path)
        self._clock.begin()
        self._files.begin()
        for observer in self._observers:
            observer.begin()
        audit.resume()

    def collect(self) -> Iterator[Observed]:
        """One message, or none if there is nothing to tell."""
        if not self._observers:
            return
        audit.pause()
        found: list[Violation] = []
        for observer in reversed(self._observers):
            try:
                found += observer.found()
            except OSError as error:  # the test has left its process without descriptors, or without /proc
                found.append(_unseen(observer, error))
        places = self._files.places()
        facts: dict[str, Any] = {}
        if self._clock.slept_s:
            facts["slept_s"] = self._clock.slept_s
        if self._clock.reads:
            facts["clock_reads"] = self._clock.reads
        if pids := self._processes.settled():
            facts["pids"] = pids
        if names := paths.made_up():
            facts["made_up"] = names
        if found or places or facts:
            told = [violation.to_dict() for violation in found[:MOST_VIOLATIONS]]
            yield Observed(told, len(found), places, facts)

    @contextlib.contextmanager
    def _aside(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        """While a fixture of a wider scope is set up."""
        ends = [observer.aside() for observer in self._observers]
        after: list[Callable[[], None]] = []
        if self._scope is Scope.MODULE and fixturedef.scope == "class":
            # The first finalizer is the last to be called.
            fixturedef.addfinalizer(lambda: [look() for look in after])
        try:
            yield
        finally:
            after += filter(None, [end() for end in ends])


def _unseen(observer: Observer, error: OSError) -> Violation:
    """Where nobody can look, nobody can say that there was nothing."""
    what = type(observer).__name__.lower()
    return Violation(
        kind=Kind.ENVIRONMENT,
        what=f"left its process so that nobody can look for {what}: {error.strerror}",
        cure=cures.allow(Kind.ENVIRONMENT),
    )

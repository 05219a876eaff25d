"""What a test does that a hermetic one must not, as its own process sees it.

Python code that the test runs could lie about all of this: it is for telling people where to look. What is
enforced is so without it, and what the kernel tells comes from the parent's side.

An observer is begun before each test, when nothing of it has run, and asked when its teardown is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest

from pytest_isolate.runner.observe import audit, network, project, threads
from pytest_isolate.sandbox.messages import Observed
from pytest_isolate.spec import Network, Spec, Watch
from pytest_isolate.violation import MOST_VIOLATIONS, Violation

__all__ = ["Observer", "Observers"]


class Observer(Protocol):
    def begin(self) -> None:
        """A test begins, of the same sandbox and Spec as any before it."""

    def found(self) -> Iterator[Violation]:
        """The test has ended."""


class Observers:
    """Those of one sandbox's process. Made when it has entered."""

    def __init__(self, item: pytest.Item, spec: Spec) -> None:
        self._observers: list[Observer] = []
        if spec.watch is not Watch.OFF:
            # The last to begin is the first to be asked: what observers do themselves is not seen by others.
            self._observers = [threads.Threads()]
            if spec.strict:
                self._observers.append(project.Project(str(item.config.rootpath)))
            if spec.network is not Network.HOST:
                self._observers.append(network.Network())
            audit.install(str(item.config.rootpath))

    def begin(self) -> None:
        for observer in self._observers:
            observer.begin()

    def collect(self) -> Iterator[Observed]:
        """One message, or none if there is nothing to tell."""
        if not self._observers:
            return
        audit.pause()
        found = [violation for observer in reversed(self._observers) for violation in observer.found()]
        audit.resume()
        if found:
            yield Observed([violation.to_dict() for violation in found[:MOST_VIOLATIONS]], len(found))

"""Those that a flight has to do with: the child's body, and whoever is told what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol

from pytest_isolate.kernel.leftover import Left
from pytest_isolate.outcome import Outcome
from pytest_isolate.sandbox.channel import ChildEnd
from pytest_isolate.sandbox.messages import Message
from pytest_isolate.sandbox.written import Written
from pytest_isolate.usage import Usage

if TYPE_CHECKING:
    from pytest_isolate.sandbox.oci.handover import Handover

__all__ = ["Body", "Child", "Listener", "Result"]


@dataclass(frozen=True, slots=True)
class Result:
    outcome: Outcome
    usage: Usage  #: of the last test
    faulthandler: str  #: what the child's faulthandler wrote
    limits: dict[str, str]  #: of the cgroup, as read back
    written: Written | None  #: what the sandbox holds; only while :meth:`Listener.done` runs
    left: tuple[Left, ...] = ()  #: processes that were alive when the last test had ended


@dataclass(frozen=True, slots=True)
class Child:
    """What the child's body gets."""

    channel: ChildEnd
    faulthandler_fd: int
    born_s: float  #: when it was forked, by CLOCK_MONOTONIC
    handover: Handover | None = None  #: it is to become a container


Body = Callable[[Child], NoReturn]


class Listener(Protocol):
    """Is told, from the loop, what becomes of a flight."""

    def take(self, message: Message) -> None:
        """What the child says that is not between it and the flight. What this raises is its fault."""

    def entered(self) -> None:
        """The first message is taken: the child is in its sandbox."""

    def test_ended(self, usage: Usage) -> None:
        """One of several tests; the child waits for :meth:`Flight.go_on`."""

    def done(self, result: Result) -> None:
        """The outcome is known, the child is reaped."""

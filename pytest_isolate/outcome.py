"""How a sandboxed child ended: a closed sum type. ``match`` over :data:`Outcome` is exhaustive."""

from __future__ import annotations

import os
from dataclasses import dataclass
from signal import SIGXCPU, Signals

from pytest_isolate.errors import ChannelError

__all__ = [
    "ChannelBroken",
    "Completed",
    "CpuTimeExceeded",
    "Exited",
    "OutOfMemory",
    "Outcome",
    "SetupFailed",
    "Signaled",
    "TimedOut",
    "from_wait_status",
    "signal_name",
]


@dataclass(frozen=True, slots=True)
class Completed:
    """The child ran the whole protocol and said so; its reports tell the rest."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The child ended by itself before the protocol did: ``os._exit``, or an exec'ed program's exit."""

    status: int


@dataclass(frozen=True, slots=True)
class Signaled:
    """A signal killed the child."""

    signal: int


@dataclass(frozen=True, slots=True)
class TimedOut:
    """Wall clock over ``timeout_s``."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class CpuTimeExceeded:
    """Processor time of the tree over ``cpu_time_s``."""

    cpu_time_s: float
    used_s: float


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The kernel killed at least one process of the tree for want of memory in its cgroup."""

    limit_bytes: int | None
    peak_bytes: int | None
    killed: int


@dataclass(frozen=True, slots=True)
class SetupFailed:
    """The sandbox could not be built or entered; no line of the test ran."""

    step: str
    errno: int
    message: str


@dataclass(frozen=True, slots=True)
class ChannelBroken:
    """What came over the report channel is not a message, or the channel closed under a live child."""

    reason: str

    @classmethod
    def by(cls, error: Exception) -> ChannelBroken:
        """Raised over a message."""
        return cls(str(error) if isinstance(error, ChannelError) else f"a message that is none: {error!r}")


Outcome = (
    Completed | Exited | Signaled | TimedOut | CpuTimeExceeded | OutOfMemory | SetupFailed | ChannelBroken
)


def signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def from_wait_status(status: int | None, cpu_time_s: float | None) -> Outcome:
    """Of a child that ended without a word, under a limit of processor time or none."""
    if status is None:
        return ChannelBroken("the test's exit status went to somebody else: SIGCHLD is ignored")
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) == SIGXCPU and cpu_time_s is not None:
            return CpuTimeExceeded(cpu_time_s, cpu_time_s)
        return Signaled(os.WTERMSIG(status))
    return Exited(os.WEXITSTATUS(status))

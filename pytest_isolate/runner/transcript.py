"""What a child said of one test, in order, as far as it is to be replayed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from pytest_isolate.errors import ChannelError
from pytest_isolate.sandbox.messages import (
    Carried,
    Coverage,
    ExitRequested,
    InternalFailure,
    Interrupted,
    Message,
    NotFound,
    Observed,
    PhaseBegun,
    Report,
    StopRequested,
    WarningRecorded,
)

__all__ = ["Transcript"]


@dataclass(slots=True)
class Transcript:
    replay: list[Report | WarningRecorded] = field(default_factory=list)
    ending: ExitRequested | Interrupted | InternalFailure | NotFound | None = None
    stop: StopRequested | None = None
    coverage: list[Coverage] = field(default_factory=list)
    carried: list[Carried] = field(default_factory=list)
    observed: list[Observed] = field(default_factory=list)
    phase: str = ""  #: that the test was in last, if it said so
    attempt_start: int = 0  #: position at which the last setup began, if the test said so

    @property
    def position(self) -> int:
        return len(self.replay)

    @property
    def is_uneventful(self) -> bool:
        """Whether the test has passed, or was skipped, and left nothing to be told but that."""
        return not (self.ending or self.stop or self.carried) and all(
            isinstance(message, Report) and message.data.get("outcome") in ("passed", "skipped")
            for message in self.replay
        )

    def take(self, message: Message) -> None:
        match message:
            case Report() | WarningRecorded():
                self.replay.append(message)
            case PhaseBegun(phase):
                self.phase = phase
                if phase == "setup":
                    self.attempt_start = self.position
            case Coverage():
                self.coverage.append(message)
            case Carried():
                self.carried.append(message)
            case Observed():
                self.observed.append(message)
            case StopRequested():
                self.stop = message
            case Interrupted(filename=name) if not _is_filename(name):
                raise ChannelError(f"no name of a file: {name[:80]!r}")
            case ExitRequested() | Interrupted() | InternalFailure() | NotFound():
                self.ending = message
            case _:
                raise AssertionError(f"{message} is handled below")


def _is_filename(name: str) -> bool:
    """As compile() wants it."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False

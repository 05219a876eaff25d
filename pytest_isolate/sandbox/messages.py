"""All that a child and its parent say to each other: a closed set of frozen values, as JSON.

Nothing here is trusted by the parent, and nothing is more than data: no pickle, no import, no call.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from pytest_isolate.errors import ChannelError

__all__ = [
    "LONGEST_TEXT",
    "Begin",
    "Carried",
    "Coverage",
    "Debugging",
    "End",
    "Entered",
    "ExitRequested",
    "Finish",
    "InternalFailure",
    "Interrupted",
    "Message",
    "NotFound",
    "Observed",
    "Paused",
    "PhaseBegun",
    "Report",
    "RunNext",
    "StopRequested",
    "UsageAnswer",
    "UsageQuestion",
    "WarningRecorded",
    "decode",
    "encode",
]


@dataclass(frozen=True, slots=True)
class Entered:
    """First of all, before any line of the test: what the kernel says is enforced."""

    evidence: dict[str, Any]
    monotonic_s: float  #: CLOCK_MONOTONIC, which is one clock for all processes


@dataclass(frozen=True, slots=True)
class Report:
    """What ``pytest_report_to_serializable`` made of a report, and what it leaves out."""

    data: dict[str, Any]
    opaque: bool  #: the failure text was an object that only prints itself, and is a string now
    failed_subtests: int  #: of the test, so far, by pytest's own fixture ``subtests``


@dataclass(frozen=True, slots=True)
class PhaseBegun:
    """The test comes to its setup, call or teardown; only sent where reports come after all of them."""

    phase: str


@dataclass(frozen=True, slots=True)
class WarningRecorded:
    text: str
    args: list[Any]  #: of the exception that a warning is, packed as properties are
    category: str  #: module and qualified name, with a dot between
    filename: str
    lineno: int
    when: str
    nodeid: str
    location: list[Any] | None
    has_source: bool  #: as a ResourceWarning has


@dataclass(frozen=True, slots=True)
class Coverage:
    """What coverage.py measured in the child, for one of its contexts."""

    context: str
    has_arcs: bool
    files: dict[str, Any]  #: name -> lines, or pairs of lines


@dataclass(frozen=True, slots=True)
class Carried:
    """What a test left in the memory of another plugin."""

    plugin: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Observed:
    """What a test did that a hermetic one must not: the dicts of violations, as far as there is room."""

    violations: list[Any]
    total: int
    places: dict[str, Any]  #: where in the code what was written: place by path
    #: ``slept_s``, ``clock_reads``; ``pids``: of processes among the violations, or of no test; ``made_up``:
    #: names by ``tempfile``
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Debugging:
    """Somebody has entered the debugger."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The test set ``session.shouldstop`` or ``session.shouldfail``."""

    reason: str
    failed: bool


@dataclass(frozen=True, slots=True)
class ExitRequested:
    """``pytest.exit(reason, returncode)``."""

    reason: str
    returncode: int | None


@dataclass(frozen=True, slots=True)
class Interrupted:
    """KeyboardInterrupt, and where it was raised."""

    text: str
    filename: str
    lineno: int


@dataclass(frozen=True, slots=True)
class InternalFailure:
    """An exception left the runtest protocol itself: plain pytest would end with INTERNALERROR."""

    text: str


@dataclass(frozen=True, slots=True)
class Paused:
    """All of one test is sent; the child waits for :class:`RunNext` or :class:`Finish`."""

    monotonic_s: float
    moments: list[Any]  #: see :meth:`pytest_isolate.sandbox.moments.Moments.hear`


@dataclass(frozen=True, slots=True)
class NotFound:
    """A fresh interpreter has not come to its test: what pytest said there."""

    text: str


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """The fixture ``isolation`` asks what was used so far."""


@dataclass(frozen=True, slots=True)
class UsageAnswer:
    """To the child."""

    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Begin:
    """To the child, which waits for it before it runs anything of its test: now."""


@dataclass(frozen=True, slots=True)
class RunNext:
    """To the child: run another of the session's items, and know which may follow it here."""

    index: int
    next_index: int | None


@dataclass(frozen=True, slots=True)
class Finish:
    """To the child: no more tests; tear down what is still set up."""


@dataclass(frozen=True, slots=True)
class End:
    """The protocol is over and all reports are sent."""

    monotonic_s: float
    moments: list[Any]


Message = (
    Entered
    | Report
    | WarningRecorded
    | Carried
    | Coverage
    | Debugging
    | StopRequested
    | ExitRequested
    | Interrupted
    | InternalFailure
    | NotFound
    | Observed
    | Paused
    | PhaseBegun
    | UsageQuestion
    | UsageAnswer
    | Begin
    | RunNext
    | Finish
    | End
)

TYPES: dict[str, type[Message]] = {
    cls.__name__: cls
    for cls in (
        Entered,
        Report,
        WarningRecorded,
        Carried,
        Coverage,
        Debugging,
        StopRequested,
        ExitRequested,
        Interrupted,
        InternalFailure,
        NotFound,
        Observed,
        Paused,
        PhaseBegun,
        UsageQuestion,
        UsageAnswer,
        Begin,
        RunNext,
        Finish,
        End,
    )
}


MOST_INT = 2**63
#: Of a kind of message that is not to be large, in characters, which JSON may make six bytes of.
LONGEST_TEXT = 2**16


def encode(message: Message) -> bytes:
    """JSON; a value that JSON does not know becomes its ``repr``, since a report may carry anything."""
    fields = [getattr(message, field.name) for field in dataclasses.fields(message)]
    return json.dumps([type(message).__name__, *fields], default=repr, skipkeys=True).encode(
        "utf-8", "surrogatepass"
    )


def decode(data: bytes) -> Message:
    """Raises :class:`ChannelError` for everything that :func:`encode` does not make."""
    try:
        name, *fields = json.loads(data.decode("utf-8", "surrogatepass"))
        cls = TYPES[name]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ChannelError(f"not a message: {data[:80]!r}") from error
    expected = dataclasses.fields(cls)
    if len(fields) != len(expected) or not all(map(_fits, fields, expected)):
        raise ChannelError(f"a {name} message with wrong fields: {data[:80]!r}")
    return cls(*fields)


def _fits(value: object, field: dataclasses.Field[Any]) -> bool:
    match str(field.type):
        case "str":
            return isinstance(value, str)
        case "int":
            return type(value) is int and abs(value) < MOST_INT
        case "float":
            return type(value) is float and math.isfinite(value)
        case "bool":
            return isinstance(value, bool)
        case "int | None":
            return value is None or (type(value) is int and abs(value) < MOST_INT)
        case "list[Any] | None":
            return value is None or isinstance(value, list)
        case "list[Any]":
            return isinstance(value, list)
        case "dict[str, Any]":
            return isinstance(value, dict)
        case other:
            raise AssertionError(f"no check for a field of type {other}")

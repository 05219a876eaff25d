"""What a test did that a hermetic one must not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

__all__ = ["MOST_VIOLATIONS", "Kind", "Violation", "merge"]

#: Of one test. What is more is counted, and left out.
MOST_VIOLATIONS = 100
LONGEST_TEXT = 500
MOST = 2**63  #: times
_ONE_OF_MANY = re.compile(r"(?:^|, )(?:pid \d+|thread .*)$")


class Kind(Enum):
    """The words are part of records, baselines and the option ``allow``."""

    NETWORK = "network"  #: an attempt to leave the sandbox
    FILES = "files"  #: made, changed or deleted outside of tmp_path and declared places
    SECRETS = "secrets"  #: an attempt to read what only the user's own machine has
    PROCESSES = "processes"  #: alive when the test had ended
    THREADS = "threads"  #: alive when the test had ended
    DESCRIPTORS = "descriptors"  #: left open, or pytest's own and used
    IPC = "ipc"  #: shared memory, semaphores and message queues left behind
    ENVIRONMENT = "environment"  #: variables, directory, umask, locale, signal handlers left changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One line each. ``what`` is the same in each run of the test: no pids, no addresses, no times. (But for
    sizes, and numbers of a command, which ``baseline.py`` leaves out.)"""

    kind: Kind
    what: str  #: "connected to 192.0.2.1:443 (tcp)", "created /etc/x (3 bytes)"
    where: str = ""  #: "tests/test_x.py:12 (test_y)", "pid 7: curl http://example.com"; "" if nobody knows
    cure: str = ""  #: what to write to allow it: 'hosts={"db": "127.0.0.1"}'
    count: int = 1
    known: bool = False  #: it is in the baseline, and fails no test

    def __post_init__(self) -> None:
        """Whoever made it, it reads the same in the report, the record and the baseline."""
        object.__setattr__(self, "what", _line(self.what))
        object.__setattr__(self, "where", _line(self.where))

    @classmethod
    def from_told(cls, told: object) -> Violation:
        """What :meth:`to_dict` made, from an untrusted process. Raises ValueError."""
        if not isinstance(told, Mapping):
            raise ValueError("not a violation")
        texts = [told.get(name, "") for name in ("what", "where", "cure")]
        count = told.get("count", 1)
        if not all(isinstance(text, str) for text in texts) or type(count) is not int or not 0 < count < MOST:
            raise ValueError("not a violation")
        what, where, cure = texts
        cure = "".join(char if char.isprintable() else " " for char in cure[:LONGEST_TEXT])
        return cls(kind=Kind(told.get("kind")), what=what, where=where, cure=cure, count=count)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind.value,
            "what": self.what,
            "where": self.where,
            "cure": self.cure,
            "count": self.count,
            "known": self.known,
        }

    @property
    def counted(self) -> str:
        return f"{self.what} ({self.count} times)" if self.count > 1 else self.what

    @property
    def advice(self) -> str:
        """The cure in words: all but tmp_path are options."""
        first, _, option = self.cure.partition(", or ")
        if first != "tmp_path":
            return f"allow it with {self.cure}" if self.cure else ""
        return "write to tmp_path instead" + (f", or allow it with {option}" if option else "")

    def __str__(self) -> str:
        where = f", {self.where}" if self.where else ""
        cure = f"; {self.advice}" if self.cure else ""
        known = " (known)" if self.known else ""
        return f"{self.kind.value}{known}: {self.counted}{where}{cure}"


def merge(violations: Iterable[Violation], *, by_line: bool = False) -> tuple[Violation, ...]:
    """Those that differ in their place alone are one: the first, with their count. ``by_line``: that differ
    in a pid or a thread alone."""
    merged: dict[Violation, Violation] = {}
    for violation in violations:
        where = _ONE_OF_MANY.sub("", violation.where) if by_line else ""
        alike = replace(violation, where=where, count=1)
        first = merged.get(alike)
        merged[alike] = violation if first is None else replace(first, count=first.count + violation.count)
    return tuple(merged.values())


def _line(text: str) -> str:
    text = text.encode(errors="backslashreplace").decode()  # a lone surrogate is in no file
    return " ".join(text.split())[:LONGEST_TEXT].rstrip()

"""Violations that are known, of an old suite that is to get no new ones: a file that is kept with its tests.

One line each, sorted, so that a difference says what has come and gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_isolate.errors import IsolateError
from pytest_isolate.violation import Kind, Violation

__all__ = ["Baseline", "BaselineError", "Known", "known_as", "refresh_command"]

SCHEMA = 1
#: Kind and :func:`key` of ``what``: that it may move within its file is no news.
Known = tuple[str, str]
_SIZE = re.compile(r" \((\d+ files?, )?\d+ bytes?\)$")
_COMMAND = "left a process: "


class BaselineError(IsolateError):
    """A baseline file is none."""


@dataclass(frozen=True, slots=True)
class Baseline:
    tests: Mapping[str, frozenset[Known]] = field(default_factory=dict)  #: by node id

    @classmethod
    def read(cls, path: Path) -> Baseline:
        """Raises BaselineError."""
        cure = (
            f"take isolate_baseline away and write it anew: pytest-isolate baseline --json RECORDS -o {path}"
        )
        try:
            return cls(_tests(json.loads(path.read_text(encoding="utf-8"))))
        except OSError as error:
            why = str(error.strerror)
        except (ValueError, RecursionError) as error:  # as a merge may leave it
            why = f"it is no baseline: {error}"
            # Not to be overwritten by the way: it may hold what others know.
            cure = f"restore it from version control, or delete it, {cure}"
        raise BaselineError(f"cannot read the baseline {path}: {why}; {cure}")

    def to_json(self) -> str:
        tests = {
            nodeid: {
                kind: sorted(what for each, what in known if each == kind)
                for kind in sorted({kind for kind, _ in known})
            }
            for nodeid, known in sorted(self.tests.items())
            if known
        }
        return json.dumps({"schema": SCHEMA, "tests": tests}, indent=1, ensure_ascii=False) + "\n"

    def sort_out(self, nodeid: str, violations: Iterable[Violation]) -> tuple[Violation, ...]:
        """The same violations, those that are known marked as such."""
        known = self.tests.get(nodeid, frozenset())
        return tuple(replace(v, known=known_as(v.kind.value, v.what) in known) for v in violations)

    def stale(self, nodeid: str, found: Iterable[Known]) -> list[Known]:
        """What is known of a test and was not found again."""
        return sorted(self.tests.get(nodeid, frozenset()) - set(found))

    @property
    def count(self) -> int:
        return sum(map(len, self.tests.values()))


def known_as(kind: str, what: str) -> Known:
    return kind, key(what)


def key(what: str) -> str:
    """What of a text is the same in each run: not the size of a log, nor the port, descriptor or process that
    a command has as an argument."""
    return re.sub(r"\d+", "#", what) if what.startswith(_COMMAND) else _SIZE.sub("", what)


def refresh_command(path: Path | str, records: Path | str | None) -> str:
    """What takes away the entries that no longer occur."""
    return f"pytest-isolate baseline --shrink --json {records or 'RECORDS'} -o {path}"


def _tests(told: Any) -> dict[str, frozenset[Known]]:
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        raise ValueError(f"its schema is not {SCHEMA}")
    found = {}
    tests = told.get("tests")
    if not isinstance(tests, dict) or not all(isinstance(kinds, dict) for kinds in tests.values()):
        raise ValueError("its tests are no objects by node id")
    for nodeid, kinds in tests.items():
        for kind, texts in kinds.items():
            Kind(kind)
            if not isinstance(texts, list) or not all(isinstance(what, str) for what in texts):
                raise ValueError(f"{kind} of {nodeid} is no list of texts")
        found[nodeid] = frozenset(known_as(kind, what) for kind, texts in kinds.items() for what in texts)
    return found

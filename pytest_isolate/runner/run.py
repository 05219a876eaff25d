"""What becomes of one test in a sandbox.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pytest_isolate.kernel.leftover import Left
from pytest_isolate.outcome import Outcome
from pytest_isolate.runner import checks
from pytest_isolate.runner.suite_hooks import has_own_protocol
from pytest_isolate.runner.transcript import Transcript
from pytest_isolate.sandbox.changes import Change
from pytest_isolate.sandbox.moments import Moments
from pytest_isolate.sandbox.network_log import Attempts
from pytest_isolate.usage import Usage
from pytest_isolate.violation import Violation

__all__ = ["TestRun"]


@dataclass(slots=True, kw_only=True)
class TestRun:
    """``usage`` and ``outcome`` are there when it has ended."""

    __test__ = False  # for pytest: no class of tests

    item: pytest.Item
    nextitem: pytest.Item | None  #: may follow in the same sandbox
    transcript: Transcript = field(default_factory=Transcript)
    outcome: Outcome | None = None
    usage: Usage = field(default_factory=Usage)
    trace: str = ""  #: of faulthandler
    moments: Moments = field(default_factory=Moments)
    seen: list[Violation] = field(default_factory=list)  #: from outside of the sandbox
    attempts: Attempts | None = None  #: to leave its network; None: the kernel does not tell
    changes: tuple[Change, ...] = ()  #: of files that it should leave alone
    left: tuple[Left, ...] = ()  #: processes

    def is_complete(self, *, strictly: bool) -> bool:
        """Whether the test's process, which says that the test has ended, has told all of it. A plugin's own
        protocol need not report each phase; that is not enough for who is to be ``strictly`` believed."""
        return (
            self.transcript.ending is not None
            or checks.is_complete(self.item, self.transcript.replay)
            or (not strictly and has_own_protocol(self.item))
        )

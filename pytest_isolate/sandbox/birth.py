"""How the process of a test comes to be: a fork of pytest, or one that a template makes.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol

from pytest_isolate.kernel.cgroups.base import CgroupEntry
from pytest_isolate.kernel.process import fork
from pytest_isolate.sandbox.channel import ChildEnd
from pytest_isolate.sandbox.enter import EntryReport, NamespaceFds, enter, settle_in
from pytest_isolate.sandbox.plan import Plan
from pytest_isolate.sandbox.roles import Body, Child
from pytest_isolate.sandbox.trace import Trace

if TYPE_CHECKING:
    from pytest_isolate.sandbox.oci.handover import Handover

__all__ = ["Birth", "Forked", "Maker"]


@dataclass(frozen=True, slots=True)
class Birth:
    """What the process is to have."""

    channel: socket.socket
    trace: Trace
    namespaces: NamespaceFds
    entry: CgroupEntry | None


class Maker(Protocol):
    def make(self, birth: Birth, born: Callable[[int], None]) -> EntryReport:
        """Have the process made; ``born`` is called with its pid, or minus errno, now or later.

        Raises OSError if there will be none.
        """


class Forked:
    """``forget``: in the child, drops what is pytest's alone; ``hull``: entered in place of the plan's."""

    def __init__(
        self,
        plan: Plan,
        *,
        forget: Callable[[], None],
        body: Body,
        hull: Plan | None = None,
        handover: Handover | None = None,
    ) -> None:
        self._plan = plan
        self._hull = hull
        self._handover = handover
        self._forget = forget
        self._body = body

    def make(self, birth: Birth, born: Callable[[int], None]) -> EntryReport:
        report = EntryReport()
        pid = fork()
        if pid == 0:
            self._run(birth, report)
        if self._handover is not None:
            self._handover.status.close()
        born(pid)
        return report

    def _run(self, birth: Birth, report: EntryReport) -> NoReturn:
        born_s = time.monotonic()
        try:
            self._forget()
            enter(self._hull or self._plan, birth.namespaces, birth.entry, report)
            settle_in(self._plan)
            report.drop()  # all is said, and the test runs next
            channel = ChildEnd(birth.channel)
            channel.claim()
            self._body(Child(channel, birth.trace.fd, born_s, self._handover))
        except BaseException:
            birth.trace.write(traceback.format_exc())
        finally:
            os._exit(1)

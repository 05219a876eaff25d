"""What one sandbox's processes tried to reach, from one test's end to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_isolate.errors import SupervisorError
from pytest_isolate.kernel.attempts import Attempt, Counts
from pytest_isolate.kernel.supervisor import Supervisor
from pytest_isolate.sandbox.enter import EntryReport

__all__ = ["Attempts", "NetworkLog"]


@dataclass(frozen=True, slots=True)
class Attempts:
    """Of one test."""

    own_pid: int  #: of the process that runs the test
    counted: tuple[tuple[Attempt, int], ...]  #: each with how often it was made
    more: int  #: that nothing else is known of


class NetworkLog:
    """``supervisor``: gives the sandbox's own, or None if that has died; ``unread``: is called if it has
    replies for others that nobody has read."""

    def __init__(
        self, sandbox_id: int, supervisor: Callable[[], Supervisor | None], unread: Callable[[], object]
    ) -> None:
        self.entry: EntryReport | None = None  #: of the test's own process
        self._sandbox_id = sandbox_id
        self._supervisor = supervisor
        self._unread = unread
        self._attempts: dict[int, Attempt] = {}
        self._taken: list[tuple[Attempt, int]] = []
        self._more = 0
        self._is_cut_off = False

    @property
    def is_watched(self) -> bool:
        """Whether the kernel tells of all attempts; known when the process has entered, and no longer so when
        the supervisor has not told the rest."""
        return self.entry is not None and self.entry.is_watched and not self._is_cut_off

    @property
    def error(self) -> int:
        """errno of what has kept the kernel from telling from the start, or 0."""
        return self.entry.watch_error if self.entry is not None else 0

    def add(self, reply: Attempt | Counts) -> None:
        match reply:
            case Attempt(index=index):
                self._attempts[index] = reply
            case Counts(times=times, more=more):
                counts = dict(enumerate(times))
                told = [(each, counts.get(index, 1)) for index, each in self._attempts.items()]
                self._taken += [(each, count) for each, count in told if count]  # else it was none
                self._more += more
                self._attempts.clear()

    def take(self, *, died: bool = False) -> Attempts:
        """To be called when a test has said that it has ended: the supervisor tells of a call before it lets
        that go on, so all is here by then. Of one that has ``died`` it may be looking at one still."""
        supervisor = self._supervisor()
        if supervisor is not None:
            try:
                self._hear(supervisor, died)
            except SupervisorError:
                # It has died, of which the next to ask it for something hears. Each was made once at least.
                self._is_cut_off = True
                self.add(Counts(sandbox_id=self._sandbox_id, times=(), more=0))
        self._is_cut_off |= supervisor is None or self._sandbox_id in supervisor.insisted
        taken, more = self._taken, self._more
        self._taken, self._more = [], 0
        return Attempts(self.entry.pid if self.entry is not None else 0, tuple(taken), more)

    def _hear(self, supervisor: Supervisor, died: bool) -> None:
        for reply in supervisor.look_ahead(self._sandbox_id):
            self.add(reply)
        if self._attempts or died:
            supervisor.ask_counts(self._sandbox_id)
            for reply in supervisor.look_ahead(self._sandbox_id, until_counts=True):
                self.add(reply)
        if supervisor.has_unread:
            self._unread()

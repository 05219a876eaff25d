"""The cgroup of a test in a container: inside the one that the runtime makes, limits and removes.

    pytest-isolate-…/   pytest's session, the only one that a runtime gets to see
      t1/               the runtime's: ``linux.cgroupsPath`` and ``linux.resources``
        runtime/        cgroup2: the container's init, as no process may sit beside controllers
        test/           the test's: the same limits, and what it uses and nobody else

So the threads that a runtime needs to start, ten and more, are not counted as the test's.
"""

from __future__ import annotations

from collections.abc import Mapping

from pytest_isolate.kernel.cgroups.base import Cgroup, CgroupEntry, Cgroups
from pytest_isolate.kernel.cgroups.files import kill_tree, remove_tree, write
from pytest_isolate.spec import Limits
from pytest_isolate.usage import CgroupUsage

__all__ = ["LentCgroup"]


class LentCgroup:
    """A :class:`Cgroup` that is there when the container is (:meth:`occupy`); nothing enters it by itself."""

    def __init__(self, cgroups: Cgroups, name: str, limits: Limits) -> None:
        self.name = name
        self.entry = CgroupEntry()
        sessions = tuple(dict.fromkeys(cgroups.lend().values()))
        self.paths: tuple[str, ...] = tuple(
            f"{path}/{name}/test" for path in cgroups.session_paths if path in sessions
        )
        self._outer = tuple(f"{path}/{name}" for path in sessions)
        self._cgroups = cgroups
        self._limits = limits
        self._inner: Cgroup | None = None

    def occupy(self, init: int, test: int) -> None:
        """Have the test in its cgroup; SetupError or OSError if that cannot be."""
        self._cgroups.make_room(self.name, (init, test))
        self._inner = self._cgroups.create(f"{self.name}/test", self._limits)
        for path in self._inner.paths:
            write(f"{path}/cgroup.procs", str(test))

    def read_usage(self) -> CgroupUsage:
        return self._inner.read_usage() if self._inner is not None else CgroupUsage()

    def sample(self) -> bool:
        return self._inner is not None and self._inner.sample()

    def read_limits(self) -> Mapping[str, str]:
        return self._inner.read_limits() if self._inner is not None else {}

    def oom_event_fd(self) -> int | None:
        return self._inner.oom_event_fd() if self._inner is not None else None

    def close_oom_event(self) -> None:
        if self._inner is not None:
            self._inner.close_oom_event()

    def processes(self) -> list[int]:
        return self._inner.processes() if self._inner is not None else []

    def kill(self) -> None:
        for path in self._outer:
            kill_tree(path)

    def remove(self, *, kill: bool = False) -> None:
        self.close_oom_event()
        for path in self._outer:
            remove_tree(path, kill=kill)

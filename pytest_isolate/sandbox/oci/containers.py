"""A session's containers: the runtimes that are found, a place for their hulls, a container per flight."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from pytest_isolate.errors import SetupError, UnsupportedError
from pytest_isolate.kernel.cgroups.base import Cgroup, Cgroups
from pytest_isolate.kernel.cgroups.lent import LentCgroup
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.supervisor import Supervisor
from pytest_isolate.sandbox.loop import Loop
from pytest_isolate.sandbox.oci.container import Container
from pytest_isolate.sandbox.oci.handover import Handover
from pytest_isolate.sandbox.oci.hull import make_hull, make_stage
from pytest_isolate.sandbox.plan import Plan
from pytest_isolate.spec import NATIVE

__all__ = ["Containers", "find_runtime"]

PACKAGED = ("runc", "crun")  #: by Debian, under these names
#: runc is in a directory that is on root's PATH only.
MORE_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def find_runtime(name: str) -> str | UnsupportedError:
    """The command of a runtime as an absolute path."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{MORE_PATH}")
    if found is not None:
        return os.path.abspath(found)
    if "/" in name:
        return UnsupportedError(
            f"runtime {name}", "it is no executable file", "name another, or a command on PATH"
        )
    return UnsupportedError(f"runtime {name}", "there is no such command on PATH", _cure(name))


def _cure(name: str) -> str:
    if name in PACKAGED:
        return f"run: apt-get install {name}"
    import difflib  # only for someone who mistyped

    near = difflib.get_close_matches(name, [NATIVE, *PACKAGED], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}{' and '.join(PACKAGED)} are known; name any other by its path"


class Containers:
    def __init__(self, host: Host) -> None:
        self._host = host
        self.stage: str | None = None  #: made for the first hull
        self._runtimes: dict[str, str | UnsupportedError] = {}
        self._hulls: dict[int, tuple[Plan, Plan]] = {}  # by id of the plan, which is kept alive

    def missing(self, plan: Plan) -> UnsupportedError | None:
        found = self._find(plan) if plan.contained else None
        return found if isinstance(found, UnsupportedError) else None

    def _find(self, plan: Plan) -> str | UnsupportedError:
        name = plan.spec.runtime
        if name not in self._runtimes:
            self._runtimes[name] = find_runtime(name)
        return self._runtimes[name]

    def hull(self, plan: Plan, cgroups: Cgroups | None, supervisor: Supervisor) -> Plan:
        """Made once per plan. Raises SetupError or OSError."""
        if self.stage is None:
            try:
                self.stage = make_stage()
            except OSError as error:
                text = f"cannot make {error.filename}: {error.strerror}"
                raise SetupError("make a place for bundles", error.errno or 0, text) from error
            supervisor.remember_tree(self.stage)
        if id(plan) not in self._hulls:
            lent = cgroups.lend() if cgroups is not None else {}
            for path in cgroups.session_paths if cgroups is not None else ():
                supervisor.remember_cgroup(path)
            self._hulls[id(plan)] = (plan, make_hull(plan, self._host, self.stage, lent))
        return self._hulls[id(plan)][1]

    def make(
        self, plan: Plan, cgroup: Cgroup | None, loop: Loop, kill_hull: Callable[[], None]
    ) -> tuple[Container, Handover] | tuple[None, None]:
        """For one flight."""
        runtime = self._find(plan) if plan.contained else None
        if not isinstance(runtime, str) or self.stage is None:
            return None, None
        lent = cgroup if isinstance(cgroup, LentCgroup) else None
        container = Container(runtime, loop, lent, kill_hull)
        handover = Handover(
            plan=plan,
            runtime=runtime,
            stage=self.stage,
            cgroup=f"/{lent.name}" if lent is not None else None,
            status=container.theirs,
        )
        return container, handover

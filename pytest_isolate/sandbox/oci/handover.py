"""In the forked child, in its hull: from a command to a container that a runtime makes for it."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from pytest_isolate.kernel.process import effective_capabilities
from pytest_isolate.kernel.supervisor import CONTAINER_INIT
from pytest_isolate.sandbox import steps
from pytest_isolate.sandbox.enter import rlimits
from pytest_isolate.sandbox.oci.config import Machine, Process, config
from pytest_isolate.sandbox.oci.stage import BUNDLE, LAYERS, STATE
from pytest_isolate.sandbox.plan import Plan

__all__ = ["Handover", "init_command", "machine", "process"]

FIRST_FD = 3  # the runtime hands on those from here, and so does the container's init
NAME = "test"  # each container is the only one of its runtime's state directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What becomes a container; ``status`` is the end that its init gets."""

    plan: Plan
    runtime: str  #: an absolute path
    stage: str
    cgroup: str | None
    status: socket.socket

    def numbers(self, fds: Iterable[int]) -> dict[int, int]:
        """What descriptors will be called inside, by what they are called here."""
        return {fd: number for number, fd in enumerate(dict.fromkeys(fds), FIRST_FD)}

    def become(
        self, command: Sequence[str], environ: Mapping[str, str], fds: Iterable[int], stdio: tuple[int, int]
    ) -> NoReturn:
        """The runtime, which runs ``command`` in the working directory. ``fds`` as :meth:`numbers` got them;
        ``stdio``: what the command has for its input and, the second, for its output and errors."""
        box, ours = socket.socketpair()
        socket.send_fds(ours, [b"!"], [*stdio, *dict.fromkeys(fds)])
        ours.close()
        args = [*init_command(self.plan), str(FIRST_FD), str(FIRST_FD + 1), "--", *command]
        content = config(
            self.plan,
            process(self.plan, args, environ, os.getcwd()),
            machine(has_cgroups=self.cgroup is not None, cgroup=self.cgroup),
            f"{self.stage}/{LAYERS}",
        )
        bundle = f"{self.stage}/{BUNDLE}"
        with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
            json.dump(content, file)
        handed = (self.status.fileno(), box.fileno())
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD, FIRST_FD + len(handed)) for fd in handed]
        for number, copy in enumerate(copies, FIRST_FD):
            os.dup2(copy, number)
        os.execv(
            self.runtime, [*self._command(), "--bundle", bundle, "--preserve-fds", str(len(copies)), NAME]
        )

    def _command(self) -> list[str]:
        found = [self.runtime, "--root", f"{self.stage}/{STATE}"]
        if self.cgroup is None and os.path.basename(self.runtime).startswith("crun"):
            found.append("--cgroup-manager=disabled")
        elif self.cgroup is None and os.path.basename(self.runtime).startswith("runc"):
            found.append("--rootless=true")  # which is about cgroups alone: do without
        return [*found, "run"]


def init_command(plan: Plan) -> list[str]:
    """PID 1 of the container, as it is found inside, and whom it makes of the command."""
    binds = (step for step in plan.steps if isinstance(step, steps.MountBind))
    path = next(bind.target for bind in binds if bind.source == str(CONTAINER_INIT))
    return [path, *map(str, plan.user)]


def process(plan: Plan, args: Sequence[str], environ: Mapping[str, str], cwd: str) -> Process:
    """Like the caller."""
    os.umask(umask := os.umask(0o77))
    uid, gid = (0, 0) if plan.user_first else plan.user
    # Go's own runtime raises the soft limit, and some releases hand that on.
    inherited = {"RLIMIT_NOFILE": resource.getrlimit(resource.RLIMIT_NOFILE)}
    return Process(
        args=args,
        env=environ,
        cwd=cwd,
        uid=uid,
        gid=gid,
        is_remapped=plan.user_first and plan.user[0] != 0,
        groups=() if plan.user_first else os.getgroups(),
        umask=umask,
        rlimits=inherited | rlimits(plan.limits),
    )


def machine(*, has_cgroups: bool, cgroup: str | None) -> Machine:
    with open("/proc/swaps", encoding="utf-8") as swaps:
        has_swap = len(swaps.readlines()) > 1  # a heading first (proc_swaps(5))
    return Machine(
        name=os.uname().machine,
        capabilities=effective_capabilities(),
        has_swap=has_swap,
        has_cgroups=has_cgroups,
        cgroup=cgroup,
    )

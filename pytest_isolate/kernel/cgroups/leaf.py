"""cgroup2: making room for controllers where pytest itself sits.

Only a cgroup without processes may hand controllers down to the ones below (cgroups(7), "no
internal processes"; the root is exempt).  If pytest is alone in its cgroup it moves itself to
a leaf below, and goes back at the end:

    own/  pytest                own/                           controllers handed down
                        ->          pytest-isolate-leaf/       pytest
                                    pytest-isolate-<run id>/   controllers handed down
                                        <test>/                limits

If anybody else is there too, nothing is done: we do not move processes that are not ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass

from pytest_isolate.kernel.cgroups.base import LEAF, Problem
from pytest_isolate.kernel.cgroups.cures import delegate_controllers, delegated_scope, start_alone
from pytest_isolate.kernel.cgroups.files import processes, read, write

__all__ = ["CONTROLLERS", "Leaf", "enter_leaf", "find_base", "hand_down"]

CONTROLLERS = ("memory", "cpu", "pids", "io")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf that this process moved itself to, from ``base``."""

    base: str

    def leave(self) -> None:
        """Go back, so that nothing of us is left; best effort."""
        leaf = f"{self.base}/{LEAF}"
        with contextlib.suppress(OSError):
            # EBUSY while another session (an xdist worker, a nested pytest) hands them down further.
            write(f"{self.base}/cgroup.subtree_control", " ".join(f"-{c}" for c in _handed_down(self.base)))
            # Whoever else is in the leaf was born of us there, and would be in base without us.
            for pid in processes(leaf):
                with contextlib.suppress(ProcessLookupError):
                    write(f"{self.base}/cgroup.procs", str(pid))
            os.rmdir(leaf)


def find_base(own: str) -> str:
    """The cgroup below which sessions go: the own one, unless that is already a leaf of ours."""
    return os.path.dirname(own) if os.path.basename(own) == LEAF else own


def enter_leaf(own: str) -> Leaf | Problem | None:
    """Move this process out of its cgroup if that is needed for handing controllers down, and allowed."""
    if find_base(own) != own or not _offered(own) or not os.path.exists(f"{own}/cgroup.type"):
        return None  # in a leaf already; nothing to hand down; or the root: it alone has no cgroup.type
    # Even cpu and pids, which the kernel lets us hand down with processes inside, must not be:
    # that makes the cgroup a "thread root", below which no process can be put (EOPNOTSUPP).
    others = [pid for pid in processes(own) if pid != os.getpid()]
    if others:
        return Problem(f"{own} holds other processes too: {_describe(others)}", start_alone())
    for _ in range(10):
        try:
            os.makedirs(f"{own}/{LEAF}", exist_ok=True)
            write(f"{own}/{LEAF}/cgroup.procs", str(os.getpid()))  # with all our threads
            return Leaf(own)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                continue  # another session's sweep took the empty leaf from under us
            return Problem(f"{error.filename}: {error.strerror}", delegated_scope())
    return Problem(f"{own}/{LEAF} is removed by someone again and again")


def hand_down(directory: str, wanted: tuple[str, ...] = CONTROLLERS) -> dict[str, Problem]:
    """Enable controllers for the cgroups below; what cannot be, and why.

    One write each, since one that is refused (cpu, with real-time processes about) fails the whole write.
    """
    problems: dict[str, Problem] = {}
    offered = _offered(directory)
    already = _handed_down(directory)
    for controller in wanted:
        if controller in already:
            continue
        if controller not in offered:
            cure = delegate_controllers() if offered else delegated_scope()
            problems[controller] = Problem(f"{directory}/cgroup.controllers does not list {controller}", cure)
            continue
        try:
            write(f"{directory}/cgroup.subtree_control", f"+{controller}")
        except OSError as error:
            problems[controller] = Problem(f"{error.filename}: {error.strerror}", delegated_scope())
    return problems


def _offered(directory: str) -> list[str]:
    listed = (read(f"{directory}/cgroup.controllers") or "").split()
    return [controller for controller in CONTROLLERS if controller in listed]


def _handed_down(directory: str) -> list[str]:
    return (read(f"{directory}/cgroup.subtree_control") or "").split()


def _describe(pids: list[int]) -> str:
    """The first few with their names; 0 is a process outside our pid namespace."""
    names = [
        f"{pid} ({(read(f'/proc/{pid}/comm') or '?').strip()})" if pid else "one not visible here"
        for pid in pids[:3]
    ]
    return ", ".join(names) + (f" and {len(pids) - 3} more" if len(pids) > 3 else "")

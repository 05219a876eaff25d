"""The hull: what a runtime itself runs in, so that nothing of it is left whatever becomes of it.

    supervisor -- init of the hull (pid and mount namespace, without privileges a user namespace, too)
      pytest's child -- runc or crun -- init of the container -- the test

The bundle, and what the runtime notes of its containers, are in a tmpfs of the hull; in /sys/fs/cgroup are
pytest's own cgroups alone. With the hull's init die the runtime, its container and every mount, at once.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping

from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.namespaces import Namespace, single_map
from pytest_isolate.sandbox import steps
from pytest_isolate.sandbox.oci import stage
from pytest_isolate.sandbox.plan import DEFAULT_TMP_SIZE_BYTES, Plan

__all__ = ["make_hull", "make_stage"]

PREFIX = "pytest-isolate-stage-"
#: No overlay covers these: a mount below an overlay's source would keep it from being mounted
#: (mount_namespaces(7)).
PLACES = ("/tmp", "/dev/shm", "/var/tmp")


def make_hull(plan: Plan, host: Host, at: str, lent: Mapping[str, str]) -> Plan:
    """``at``: from :func:`make_stage`; ``lent``: cgroup directories by name in /sys/fs/cgroup."""
    own = {Namespace.PID, Namespace.MOUNT}
    if not host.privileged:
        own.add(Namespace.USER)
    built: list[steps.Step] = []
    if not host.privileged:
        built.append(steps.MapSelf(single_map(host.uid, host.uid), single_map(host.gid, host.gid)))
    size_bytes = plan.limits.tmp_size_bytes or DEFAULT_TMP_SIZE_BYTES
    built += [steps.MakePrivate(), stage.Stage(at, size_bytes, tuple(stage.layout(plan.steps)))]
    if lent or os.path.basename(plan.spec.runtime).startswith("crun"):  # which refuses a hybrid, used or not
        built.append(stage.LendCgroups(at, tuple(lent.items())))
    built += [steps.HandOut(tuple(n for n in Namespace if n in own)), steps.Seal()]
    return Plan(
        spec=plan.spec,
        cwd=plan.cwd,
        namespaces=frozenset(own),
        user_first=not host.privileged,
        steps=tuple(built),
        capabilities=None,
        user=plan.user,
        tree=plan.tree,
    )


def make_stage() -> str:
    """An empty directory for hulls to mount on, each in its own mount namespace. Removes those of runs that
    were killed together with their supervisors. Raises OSError."""
    place = next((place for place in PLACES if os.access(place, os.W_OK | os.X_OK)), PLACES[0])
    for name in os.listdir(place):
        owner = re.fullmatch(rf"{PREFIX}(\d+)-.*", name)
        if owner is not None and not os.path.exists(f"/proc/{owner[1]}"):
            _remove(f"{place}/{name}")
    return tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=place)


def _remove(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError:
        return  # another user's, or not ours at all

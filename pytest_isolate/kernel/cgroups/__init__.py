"""Cgroups of both versions behind one face: :func:`open_cgroups` finds out which this machine has.

A session gets one directory below the cgroup pytest runs in (one per hierarchy on v1), named
``pytest-isolate-<run id>`` and locked with flock(2) while the session lives; each test gets one
below that.  Nothing outside these directories is written to, but for the two files with which
cgroup2 hands controllers down (see ``leaf.py``).
"""

from __future__ import annotations

from pytest_isolate.kernel.cgroups.base import LEAF, PREFIX, Cgroup, CgroupEntry, Cgroups
from pytest_isolate.kernel.cgroups.detect import open_cgroups, prepare_leaf
from pytest_isolate.kernel.cgroups.sweep import remove_sessions

__all__ = [
    "LEAF",
    "PREFIX",
    "Cgroup",
    "CgroupEntry",
    "Cgroups",
    "open_cgroups",
    "prepare_leaf",
    "remove_sessions",
]

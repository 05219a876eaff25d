"""The kinds of steps, told from how a step is printed: each kind fails for reasons of its own."""

from __future__ import annotations

from enum import Enum

__all__ = ["Act", "act_of"]


class Act(Enum):
    """What a step does; the value names the feature that is missing when it fails."""

    NAMESPACES = "namespace creation"
    ID_MAPS = "user namespace"
    PRIVATE = "private mount namespace"
    SCRATCH = "scratch tmpfs"
    OVERLAY = "overlay"
    OVERLAY_MARKS = "removal in an overlay"
    BIND = "bind mount"
    PROC = "fresh /proc"
    SYS = "read-only /sys"
    DEV = "minimal /dev"
    FILES = "sandbox root"
    PIVOT = "pivot_root"
    PORTS = "binding of low ports"
    LOOPBACK = "loopback interface"
    HOSTNAME = "host name of its own"
    CGROUP = "cgroup"
    CGROUP_NAMESPACE = "cgroup namespace"
    ENTER = "way into the sandbox"
    OTHER = "sandbox"


#: How steps and the stages of a test's entry begin, as they are printed.
BEGINNINGS = {
    "create the namespaces": Act.NAMESPACES,
    "enter a user namespace": Act.ID_MAPS,
    "make all mounts private": Act.PRIVATE,
    "mount a scratch tmpfs": Act.SCRATCH,
    "mount an overlay": Act.OVERLAY,
    "mark removed files": Act.OVERLAY_MARKS,
    "bind the host's /sys": Act.SYS,
    "bind ": Act.BIND,
    "mount an empty": Act.FILES,
    "make directory": Act.FILES,
    "link ": Act.FILES,
    "mount a file": Act.FILES,
    "mount a fresh /proc": Act.PROC,
    "mount a fresh /sys": Act.SYS,
    "mount a minimal /dev": Act.DEV,
    "make ": Act.FILES,
    "pivot_root": Act.PIVOT,
    "allow ports": Act.PORTS,
    "listen on port": Act.LOOPBACK,
    "allow no more cgroup namespaces": Act.CGROUP_NAMESPACE,
    "bring lo up": Act.LOOPBACK,
    "set the hostname": Act.HOSTNAME,
    "hand out": Act.ENTER,
    "drop the init's capabilities": Act.ENTER,
    "join the cgroup": Act.CGROUP,
    "hide all cgroups": Act.CGROUP,
    "enter a cgroup namespace": Act.CGROUP_NAMESPACE,
    "enter the ": Act.ENTER,
    "clone the test's process": Act.ENTER,
    "drop capabilities": Act.ENTER,
    "set no_new_privs": Act.ENTER,
    "confine itself": Act.ENTER,
    "install the filter": Act.ENTER,
}


def act_of(step: str) -> Act:
    return next((act for beginning, act in BEGINNINGS.items() if step.startswith(beginning)), Act.OTHER)

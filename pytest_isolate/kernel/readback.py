"""Reading back, from inside a sandbox, what the kernel enforces on the calling process."""

from __future__ import annotations

import os
import resource
from typing import Any

from pytest_isolate.kernel.mounts import parse_mountinfo
from pytest_isolate.kernel.namespaces import Namespace

__all__ = ["namespace_inodes", "read_back"]


def namespace_inodes() -> dict[str, int]:
    """Inode of each namespace of the caller, by name; equal inodes are one namespace (namespaces(7))."""
    return {n.value: os.stat(f"/proc/self/ns/{n.value}").st_ino for n in Namespace}


def read_back(host: dict[str, int]) -> dict[str, Any]:
    """``host``: :func:`namespace_inodes` as seen outside, by pytest itself."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        root = next((m.fstype for m in parse_mountinfo(lines) if m.path == "/"), None)
    limits = {
        "RLIMIT_NOFILE": str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        "RLIMIT_CPU": str(resource.getrlimit(resource.RLIMIT_CPU)[0]),
    }
    return {
        "namespaces": {name: inode for name, inode in namespace_inodes().items() if host[name] != inode},
        "root": root,
        "capabilities": status.get("CapEff"),
        "no_new_privs": status.get("NoNewPrivs") == "1",
        "seccomp": int(status.get("Seccomp", 0)),
        "limits": {name: value for name, value in limits.items() if value != "-1"},
    }

"""What was really enforced for one test, as the kernel reads it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Evidence"]

#: Fields as a child says them.
KNOWN = (
    "root",
    "mounts",
    "masked",
    "capabilities",
    "capabilities_bounding",
    "no_new_privs",
    "seccomp",
    "landlock",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Empty where nothing could be read back."""

    #: "namespaces"; without them "landlock", if that keeps files from the test, else "fork"
    level: str | None = None
    confined: tuple[str, ...] = ()  #: without namespaces: "files", "network", "signals", as far as refused
    landlock: int | None = None  #: its ABI, where it keeps files from the test

    namespaces: dict[str, int] = field(default_factory=dict)  #: inode of each one that is not the host's
    root: str | None = None  #: type of the file system at /, such as "overlay"
    mounts: int | None = None  #: how many there are
    masked: int | None = None  #: parts of /proc and /sys that a mount hides
    read_only: tuple[str, ...] = ()  #: those of "/", "/proc/sys" and "/sys" that are mounted so
    cgroup: str | None = None  #: "v1", "v2" or "hybrid"; None: the test had no cgroup of its own
    limits: dict[str, str] = field(default_factory=dict)  #: kernel file or rlimit -> value
    capabilities: str | None = None  #: CapEff, hexadecimal
    capabilities_bounding: str | None = None  #: CapBnd: what no program can regain
    no_new_privs: bool | None = None
    seccomp: int | None = None  #: mode; 2: a filter of system calls
    network_watch: str | None = None  #: who tells of attempts to leave: "kernel", "python"; None: nobody
    secrets_watch: str | None = None  #: the same of attempts to read secrets
    missing: tuple[str, ...] = ()  #: what --isolate-missing=degrade did without

    @classmethod
    def from_told(
        cls,
        told: Mapping[str, Any],
        *,
        host: Mapping[str, int],
        cgroup: str | None,
        missing: tuple[str, ...],
    ) -> Evidence:
        """What a child said when it had entered; ``host``: inodes of pytest's own namespaces."""
        known = {name: told.get(name) for name in KNOWN}
        read_only, confined = told.get("read_only"), told.get("confined")
        namespaces, limits = told.get("namespaces"), told.get("limits")
        inodes = namespaces.items() if isinstance(namespaces, dict) else ()
        own = {name: inode for name, inode in inodes if host.get(name) != inode}
        refused = tuple(map(str, confined)) if isinstance(confined, list) else ()
        return cls(
            **known,
            level="namespaces" if own else "landlock" if "files" in refused else "fork",
            confined=refused,
            namespaces=own,
            read_only=tuple(map(str, read_only)) if isinstance(read_only, list) else (),
            limits=limits if isinstance(limits, dict) else {},
            cgroup=cgroup,
            missing=missing,
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "confined": list(self.confined),
            "landlock": self.landlock,
            "namespaces": self.namespaces,
            "root": self.root,
            "mounts": self.mounts,
            "masked": self.masked,
            "read_only": list(self.read_only),
            "cgroup": self.cgroup,
            "limits": self.limits,
            "capabilities": self.capabilities,
            "capabilities_bounding": self.capabilities_bounding,
            "no_new_privs": self.no_new_privs,
            "seccomp": self.seccomp,
            "network_watch": self.network_watch,
            "secrets_watch": self.secrets_watch,
            "missing": list(self.missing),
        }

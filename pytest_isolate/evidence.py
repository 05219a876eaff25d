"""What was really enforced for one test, as the kernel reads it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Evidence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Empty where nothing could be read back."""

    namespaces: dict[str, int] = field(default_factory=dict)  #: inode of each one that is not the host's
    root: str | None = None  #: type of the file system at /, such as "overlay"
    cgroup: str | None = None  #: "v1", "v2" or "hybrid"; None: the test had no cgroup of its own
    limits: dict[str, str] = field(default_factory=dict)  #: kernel file or rlimit -> value
    capabilities: str | None = None  #: CapEff, hexadecimal
    no_new_privs: bool | None = None
    seccomp: int | None = None
    network_watch: str | None = None  #: who tells of attempts to leave: "kernel", "python"; None: nobody
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
        known = {name: told.get(name) for name in ("root", "capabilities", "no_new_privs", "seccomp")}
        namespaces, limits = told.get("namespaces"), told.get("limits")
        inodes = namespaces.items() if isinstance(namespaces, dict) else ()
        return cls(
            **known,
            namespaces={name: inode for name, inode in inodes if host.get(name) != inode},
            limits=limits if isinstance(limits, dict) else {},
            cgroup=cgroup,
            missing=missing,
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "namespaces": self.namespaces,
            "root": self.root,
            "cgroup": self.cgroup,
            "limits": self.limits,
            "capabilities": self.capabilities,
            "no_new_privs": self.no_new_privs,
            "seccomp": self.seccomp,
            "network_watch": self.network_watch,
            "missing": list(self.missing),
        }

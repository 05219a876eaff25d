"""What was really enforced for one test, as the kernel reads it back."""

from __future__ import annotations

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
    missing: tuple[str, ...] = ()  #: what --isolate-missing=degrade did without

    def to_dict(self) -> dict[str, Any]:
        return {
            "namespaces": self.namespaces,
            "root": self.root,
            "cgroup": self.cgroup,
            "limits": self.limits,
            "capabilities": self.capabilities,
            "no_new_privs": self.no_new_privs,
            "seccomp": self.seccomp,
            "missing": list(self.missing),
        }

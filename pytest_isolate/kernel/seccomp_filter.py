"""Whether this process may have system calls refused to itself (seccomp(2))."""

from __future__ import annotations

import errno
import os

from pytest_isolate.kernel.cgroups.base import Problem
from pytest_isolate.syscalls._native import lib

__all__ = ["why_no_filter"]


def why_no_filter() -> Problem | None:
    """None if it may."""
    answer = int(lib.isolate_can_filter())
    if answer == 0:
        return None
    if answer in (-errno.ENOSYS, -errno.EINVAL, -errno.EOPNOTSUPP):
        return Problem("this kernel filters no system calls", "use a kernel with CONFIG_SECCOMP_FILTER=y")
    return Problem(
        f"seccomp(2) is refused ({os.strerror(-answer)})", "use a container whose filter allows seccomp(2)"
    )

"""Opening a path of an untrusted directory tree as a process would whose root the tree is."""

from __future__ import annotations

import os

from pytest_isolate.syscalls._native import ffi, lib

__all__ = ["open_in_root"]


def open_in_root(root_fd: int, path: str, flags: int) -> int:
    """A descriptor that no link and no ``..`` leads out of the tree (openat2(2), since Linux 5.6)."""
    fd = int(lib.isolate_open_in_root(root_fd, os.fsencode(path), flags))
    if fd < 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno), path)
    return fd

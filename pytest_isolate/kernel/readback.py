"""Reading back, from inside a sandbox, what the kernel enforces on the calling process."""

from __future__ import annotations

import os

from pytest_isolate.kernel.namespaces import Namespace
from pytest_isolate.syscalls._native import ffi, lib

__all__ = ["namespace_inodes", "tell_entered"]


def namespace_inodes() -> dict[str, int]:
    """Inode of each namespace of the caller, by name; equal inodes are one namespace (namespaces(7))."""
    return {n.value: os.stat(f"/proc/self/ns/{n.value}").st_ino for n in Namespace}


def tell_entered(channel_fd: int) -> None:
    """Send the message ``Entered`` (native/readback.c): namespaces by inode, what is mounted how,
    capabilities, no_new_privs, seccomp mode and rlimits."""
    if lib.isolate_tell_entered(channel_fd) != 0:
        raise OSError(ffi.errno, f"cannot tell what is enforced: {os.strerror(ffi.errno)}")

"""The seccomp profile of a bundle: the same calls are refused as in a sandbox of the plugin's own."""

from __future__ import annotations

import errno
from typing import Any

from pytest_isolate.kernel.seccomp import DENIED, ENOSYS_NAMES, TERMINAL_REQUESTS, VSOCK

__all__ = ["profile"]


def profile(machine: str) -> dict[str, Any]:
    """``linux.seccomp`` of config.json, for all the ways that processors of this kind have to call Linux."""
    architectures = {
        "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    }
    names = sorted({name for names in DENIED.values() for name in names} - {*ENOSYS_NAMES})
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": architectures[machine],
        "syscalls": [
            {"names": names, **_refuse(errno.EPERM)},
            {"names": [*ENOSYS_NAMES], **_refuse(errno.ENOSYS)},
            *(
                {"names": ["ioctl"], **_refuse(errno.EPERM), "args": [_is(1, request)]}
                for request in TERMINAL_REQUESTS.values()
            ),
            {"names": ["socket"], **_refuse(errno.EAFNOSUPPORT), "args": [_is(0, VSOCK)]},
        ],
    }


def _refuse(number: int) -> dict[str, Any]:
    return {"action": "SCMP_ACT_ERRNO", "errnoRet": number}


def _is(index: int, value: int) -> dict[str, Any]:
    # Of an int, the kernel looks at the lower half alone.
    return {"index": index, "value": 0xFFFFFFFF, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}

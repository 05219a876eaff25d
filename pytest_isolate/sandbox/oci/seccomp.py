"""The seccomp profile of a bundle: system calls that no test needs and that reach past namespaces.

Everything else is allowed. A list of what is allowed, as container engines have it, would have to grow with
each kernel, and fail tests that do nothing worse than use a new call. Mounts and namespaces are left to
capabilities: what a process may do in a user namespace gives no access to the host's.
"""

from __future__ import annotations

from typing import Any

__all__ = ["DENIED", "profile"]

#: By what they reach: none of it has a namespace (namespaces(7)), so the host's is all there is.
DENIED = {
    "keys, which are the user's and not the container's (keyrings(7))": ("add_key", "keyctl", "request_key"),
    "the kernel itself": (
        *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module"),
        *("reboot", "bpf", "perf_event_open", "lookup_dcookie"),
    ),
    "files past every mount, by their number": ("open_by_handle_at",),
    "faults of the kernel's own accesses, which attackers hold it up with": ("userfaultfd",),
    "the host's swap, clock, accounting and quotas": (
        *("swapon", "swapoff", "settimeofday", "stime", "clock_settime", "clock_settime64", "adjtimex"),
        *("clock_adjtime", "clock_adjtime64", "acct", "quotactl", "quotactl_fd"),
    ),
    "ports and registers of the machine": ("iopl", "ioperm"),
    "what is long obsolete and hardly tested": (
        *("nfsservctl", "uselib", "ustat", "sysfs", "_sysctl", "vm86", "vm86old", "get_kernel_syms"),
        *("query_module", "vhangup"),
    ),
}

TIOCSTI = 0x5412  # asm-generic/ioctls.h: types into the terminal, for the shell to read when pytest has ended
EPERM = 1


def profile(machine: str) -> dict[str, Any]:
    """``linux.seccomp`` of config.json, for all the ways that processors of this kind have to call Linux."""
    architectures = {
        "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    }
    refuse = {"action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}
    # Of the number, the kernel looks at the lower half alone.
    typing = {"index": 1, "value": 0xFFFFFFFF, "valueTwo": TIOCSTI, "op": "SCMP_CMP_MASKED_EQ"}
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": architectures[machine],
        "syscalls": [
            {"names": sorted(name for names in DENIED.values() for name in names), **refuse},
            {"names": ["ioctl"], **refuse, "args": [typing]},
        ],
    }

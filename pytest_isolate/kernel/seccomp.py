"""The system calls that no test is let to make, and the filter for them (seccomp(2)).

Everything else is allowed. A list of what is allowed, as container engines have it, would have to grow with
each kernel, and fail tests that do nothing worse than use a new call. Mounts, namespaces and ptrace(2) are
left to capabilities and to the pid namespace: what a process may do there gives no access to the host's.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

from pytest_isolate.syscalls._native import ffi

__all__ = [
    "DENIED",
    "ENOSYS_NAMES",
    "NUMBERS",
    "TERMINAL_REQUESTS",
    "VSOCK",
    "Refusal",
    "filter_buffer",
    "filter_program",
]

#: By what they reach: none of it has a namespace (namespaces(7)), so the host's is all there is.
DENIED = {
    "keys, which are the user's and not the sandbox's (keyrings(7))": ("add_key", "keyctl", "request_key"),
    "the kernel itself": (
        *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module"),
        *("reboot", "bpf", "perf_event_open", "lookup_dcookie", "syslog"),
    ),
    "files past every mount, by their number": ("open_by_handle_at",),
    "faults of the kernel's own accesses, which attackers hold it up with": ("userfaultfd",),
    "whatever it is told to, past every filter": ("io_uring_setup", "io_uring_enter", "io_uring_register"),
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
#: Who asks for these asks first whether the kernel has them, and does without: libuv, tokio, liburing.
ENOSYS_NAMES = ("io_uring_setup", "io_uring_enter", "io_uring_register")
#: asm-generic/ioctls.h. What they put into the terminal the shell reads when pytest has ended.
TERMINAL_REQUESTS = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C}
#: linux/socket.h: AF_VSOCK reaches the host of a virtual machine, past every network namespace.
VSOCK = 40
SOCKETCALL_SOCKET = 1  # linux/net.h

#: Without those that an architecture lacks. A unit test holds them against the kernel's headers.
NUMBERS = {
    "x86_64": {
        "add_key": 248,
        "keyctl": 250,
        "request_key": 249,
        "kexec_load": 246,
        "kexec_file_load": 320,
        "init_module": 175,
        "finit_module": 313,
        "delete_module": 176,
        "create_module": 174,
        "reboot": 169,
        "bpf": 321,
        "perf_event_open": 298,
        "lookup_dcookie": 212,
        "syslog": 103,
        "open_by_handle_at": 304,
        "userfaultfd": 323,
        "io_uring_setup": 425,
        "io_uring_enter": 426,
        "io_uring_register": 427,
        "swapon": 167,
        "swapoff": 168,
        "settimeofday": 164,
        "clock_settime": 227,
        "adjtimex": 159,
        "clock_adjtime": 305,
        "acct": 163,
        "quotactl": 179,
        "quotactl_fd": 443,
        "iopl": 172,
        "ioperm": 173,
        "nfsservctl": 180,
        "uselib": 134,
        "ustat": 136,
        "sysfs": 139,
        "_sysctl": 156,
        "get_kernel_syms": 177,
        "query_module": 178,
        "vhangup": 153,
        "ioctl": 16,
        "socket": 41,
    },
    "i386": {
        "add_key": 286,
        "keyctl": 288,
        "request_key": 287,
        "kexec_load": 283,
        "init_module": 128,
        "finit_module": 350,
        "delete_module": 129,
        "create_module": 127,
        "reboot": 88,
        "bpf": 357,
        "perf_event_open": 336,
        "lookup_dcookie": 253,
        "syslog": 103,
        "open_by_handle_at": 342,
        "userfaultfd": 374,
        "io_uring_setup": 425,
        "io_uring_enter": 426,
        "io_uring_register": 427,
        "swapon": 87,
        "swapoff": 115,
        "settimeofday": 79,
        "stime": 25,
        "clock_settime": 264,
        "clock_settime64": 404,
        "adjtimex": 124,
        "clock_adjtime": 343,
        "clock_adjtime64": 405,
        "acct": 51,
        "quotactl": 131,
        "quotactl_fd": 443,
        "iopl": 110,
        "ioperm": 101,
        "nfsservctl": 169,
        "uselib": 86,
        "ustat": 62,
        "sysfs": 135,
        "_sysctl": 149,
        "vm86": 166,
        "vm86old": 113,
        "get_kernel_syms": 130,
        "query_module": 167,
        "vhangup": 111,
        "ioctl": 54,
        "socket": 359,
        "socketcall": 102,
    },
    "aarch64": {
        "add_key": 217,
        "keyctl": 219,
        "request_key": 218,
        "kexec_load": 104,
        "kexec_file_load": 294,
        "init_module": 105,
        "finit_module": 273,
        "delete_module": 106,
        "reboot": 142,
        "bpf": 280,
        "perf_event_open": 241,
        "lookup_dcookie": 18,
        "syslog": 116,
        "open_by_handle_at": 265,
        "userfaultfd": 282,
        "io_uring_setup": 425,
        "io_uring_enter": 426,
        "io_uring_register": 427,
        "swapon": 224,
        "swapoff": 225,
        "settimeofday": 170,
        "clock_settime": 112,
        "adjtimex": 171,
        "clock_adjtime": 266,
        "acct": 89,
        "quotactl": 60,
        "quotactl_fd": 443,
        "nfsservctl": 42,
        "vhangup": 58,
        "ioctl": 29,
        "socket": 198,
    },
}
AUDIT_ARCH = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}  # linux/audit.h
#: Whose programs a kernel runs beside its own. All calls of any other, x32 and 32-bit ARM, do not exist.
COMPANIONS = {"x86_64": ("i386",), "aarch64": ()}
X32_BIT = 0x40000000  # asm/unistd.h, __X32_SYSCALL_BIT

# ---- the program (linux/filter.h, linux/seccomp.h) --------------------------------------------------

LOAD, JUMP, EQUAL, AT_LEAST, RETURN = 0x20, 0x05, 0x15, 0x35, 0x06
NUMBER_AT, ARCH_AT, FIRST_ARG_AT, SECOND_ARG_AT = 0, 4, 16, 24  # lower halves, on little-endian machines
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
INSTRUCTION = struct.Struct("=HBBI")
FEW = 3


@dataclass(frozen=True, slots=True)
class Refusal:
    """An instruction that ends the call with this errno."""

    errno: int


_EPERM, _ENOSYS, _NO_FAMILY = Refusal(errno.EPERM), Refusal(errno.ENOSYS), Refusal(errno.EAFNOSUPPORT)


class _Assembly:
    """Instructions whose jumps name what they lead to."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, int, object, object]] = []
        self._at: dict[object, int] = {}

    def place(self, label: object) -> None:
        self._at[label] = len(self._lines)

    def add(self, code: int, value: int, true: object = None, false: object = None) -> None:
        """``true``, ``false``: labels; None is the next instruction."""
        self._lines.append((code, value, true, false))

    def jump(self, label: object) -> None:
        self._lines.append((JUMP, 0, label, None))

    def pack(self) -> bytes:
        return b"".join(self._encode(at, *line) for at, line in enumerate(self._lines))

    def _encode(self, at: int, code: int, value: int, true: object, false: object) -> bytes:
        def distance(label: object) -> int:
            return 0 if label is None else self._at[label] - at - 1

        if code == JUMP:
            return INSTRUCTION.pack(code, 0, 0, distance(true))
        return INSTRUCTION.pack(code, distance(true), distance(false), value)


@cache
def filter_program(machine: str) -> bytes:
    """An array of ``struct sock_filter``. ``machine``: as uname(2) names it.

    Where only the number decides, the kernel remembers what is allowed (since Linux 5.11), and asks no more.
    """
    code = _Assembly()
    own = (machine, *COMPANIONS[machine])
    code.add(LOAD, ARCH_AT)
    for architecture in own:
        code.add(EQUAL, AUDIT_ARCH[architecture], None, ("not", architecture))
        code.jump(architecture)
        code.place(("not", architecture))
    code.add(RETURN, REFUSE | _ENOSYS.errno)
    for architecture in own:
        code.place(architecture)
        code.add(LOAD, NUMBER_AT)
        if architecture == "x86_64":
            code.add(AT_LEAST, X32_BIT, (architecture, _ENOSYS), None)
        _search(code, architecture, _ranges(architecture))
        _arguments(code, architecture)
        code.place((architecture, "allow"))
        code.add(RETURN, ALLOW)
        for refusal in (_EPERM, _ENOSYS, _NO_FAMILY):
            code.place((architecture, refusal))
            code.add(RETURN, REFUSE | refusal.errno)
    return code.pack()


def _ranges(architecture: str) -> list[tuple[int, int, object]]:
    """First, last and what decides, of numbers that follow each other."""
    found: list[tuple[int, int, object]] = []
    for number, name in sorted((number, name) for name, number in NUMBERS[architecture].items()):
        decides = (architecture, _decides(name))
        if found and found[-1][1:] == (number - 1, decides):
            found[-1] = (found[-1][0], number, decides)
        else:
            found.append((number, number, decides))
    return found


def _search(code: _Assembly, architecture: str, ranges: list[tuple[int, int, object]]) -> None:
    """By halves: the kernel runs it for each of its calls when the filter is installed."""
    if len(ranges) > FEW:
        middle = len(ranges) // 2
        upper = (architecture, "from", ranges[middle])
        code.add(AT_LEAST, ranges[middle][0], upper, None)
        _search(code, architecture, ranges[:middle])
        code.place(upper)
        _search(code, architecture, ranges[middle:])
        return
    for first, last, decides in ranges:
        if first == last:
            code.add(EQUAL, first, decides, None)
        else:
            code.add(AT_LEAST, first, None, (architecture, "allow"))
            code.add(AT_LEAST, last + 1, None, decides)
    code.jump((architecture, "allow"))


def _decides(name: str) -> object:
    if name in ("ioctl", "socket", "socketcall"):
        return name
    return _ENOSYS if name in ENOSYS_NAMES else _EPERM


def _arguments(code: _Assembly, architecture: str) -> None:
    allow = (architecture, "allow")
    code.place((architecture, "ioctl"))
    code.add(LOAD, SECOND_ARG_AT)  # of the number, the kernel looks at the lower half alone
    for request in TERMINAL_REQUESTS.values():
        code.add(EQUAL, request, (architecture, _EPERM), None)
    code.jump(allow)
    code.place((architecture, "socket"))
    code.add(LOAD, FIRST_ARG_AT)
    code.add(EQUAL, VSOCK, (architecture, _NO_FAMILY), allow)
    if "socketcall" in NUMBERS[architecture]:
        # Its arguments are in memory, which no filter reads. C libraries have used socket(2) since Linux 4.3.
        code.place((architecture, "socketcall"))
        code.add(LOAD, FIRST_ARG_AT)
        code.add(EQUAL, SOCKETCALL_SOCKET, (architecture, _ENOSYS), allow)


@cache
def filter_buffer() -> tuple[Any, int]:
    """For C: the address, alive as long as this process, and the count of instructions."""
    program = filter_program(os.uname().machine)
    return ffi.from_buffer(program), len(program) // INSTRUCTION.size

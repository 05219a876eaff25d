"""Run a command as Docker runs one by default: ``python docker_like.py [--uid UID] [--old] COMMAND…``.

What counts here of moby's default seccomp profile (profiles/seccomp/default_linux.go) for a container without
CAP_SYS_ADMIN: these calls are refused with EPERM, clone3 with ENOSYS, so that libc goes back to clone, and that with
EPERM where it asks for a namespace. The capabilities are those of moby's oci/caps/defaults.go. Files are as they are:
no container has a root of its own here. ``--old``: as before Docker 23, whose filter lets Landlock through.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import struct
import sys
from collections.abc import Iterator
from errno import ENOSYS, EPERM

#: By (x86_64, aarch64); None: it has no such call.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "get_mempolicy": (239, 236),
    "init_module": (175, 105),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mbind": (237, 235),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "set_mempolicy": (238, 237),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
LANDLOCK = (444, 444)  # landlock_create_ruleset
CLONE, CLONE3, SOCKET = (56, 220), (435, 435), (41, 198)
CAPGET, CAPSET = (125, 90), (126, 91)
NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEW* of linux/sched.h that clone(2) takes
AF_VSOCK = 40
#: chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod audit_write
#: setfcap
CAPABILITIES = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))

LOAD, JUMP_IF_EQUAL, JUMP_IF_ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NUMBER_AT, FIRST_ARGUMENT_AT = 0, 16
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 24, 38, 22, 2

libc = ctypes.CDLL(None, use_errno=True)
this = 0 if platform.machine() == "x86_64" else 1


def check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def program(*, is_old: bool) -> Iterator[tuple[int, int, int, int]]:
    """BPF: (code, jump if true, jump if false, value)."""
    yield LOAD, 0, 0, NUMBER_AT
    for numbers in (*REFUSED.values(), *([LANDLOCK] if is_old else [])):
        if (number := numbers[this]) is not None:
            yield JUMP_IF_EQUAL, 0, 1, number
            yield RETURN, 0, 0, ERRNO | EPERM
    yield JUMP_IF_EQUAL, 0, 1, CLONE3[this]
    yield RETURN, 0, 0, ERRNO | ENOSYS
    yield JUMP_IF_EQUAL, 0, 4, CLONE[this]
    yield LOAD, 0, 0, FIRST_ARGUMENT_AT
    yield JUMP_IF_ANY_BIT, 0, 1, NAMESPACE_FLAGS
    yield RETURN, 0, 0, ERRNO | EPERM
    yield RETURN, 0, 0, ALLOW
    yield JUMP_IF_EQUAL, 0, 3, SOCKET[this]
    yield LOAD, 0, 0, FIRST_ARGUMENT_AT
    yield JUMP_IF_EQUAL, 0, 1, AF_VSOCK
    yield RETURN, 0, 0, ERRNO | EPERM
    yield RETURN, 0, 0, ALLOW


def install_filter(*, is_old: bool) -> None:
    rules = [*program(is_old=is_old)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(code)))
    if os.geteuid() != 0:  # else Docker leaves it to the image
        check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_, 0, 0), "seccomp")


def keep_capabilities() -> None:
    """Of root alone: others have none, and lose what they could get with the user."""
    for number in range(64):
        if not CAPABILITIES >> number & 1:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # EINVAL past the last
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
    data = ctypes.create_string_buffer(24)
    check(libc.syscall(CAPGET[this], header, data), "capget")
    halves = [*struct.unpack("=6I", data.raw)]
    for half, mask in ((0, CAPABILITIES & 0xFFFFFFFF), (1, CAPABILITIES >> 32)):
        halves[3 * half] &= mask
        halves[3 * half + 1] &= mask
        halves[3 * half + 2] = 0
    kept = ctypes.create_string_buffer(struct.pack("=6I", *halves))
    check(libc.syscall(CAPSET[this], header, kept), "capset")


def main() -> None:
    arguments = sys.argv[1:]
    uid = os.geteuid()
    if arguments[:1] == ["--uid"]:
        uid, arguments = int(arguments[1]), arguments[2:]
    is_old = arguments[:1] == ["--old"]
    arguments = arguments[is_old:]
    command = shutil.which(arguments[0]) or arguments[0]  # now: who it becomes may not read Python's modules
    install_filter(is_old=is_old)
    if os.geteuid() == 0:
        keep_capabilities()
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    os.execv(command, arguments)


if __name__ == "__main__":
    main()

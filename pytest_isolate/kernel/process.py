"""Processes: capabilities, resource limits, and what an init gives up before a test may meet it."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import struct
import warnings
from enum import IntEnum

from pytest_isolate.kernel import interrupts
from pytest_isolate.syscalls._native import lib
from pytest_isolate.syscalls.program import Program

__all__ = [
    "ROOT_CAPABILITIES",
    "Capability",
    "deliver",
    "descendants",
    "effective_capabilities",
    "fork",
    "kill",
    "mask",
    "parent_of",
    "seal",
]

CAPABILITY_VERSION_3 = 0x20080522


class Capability(IntEnum):
    """linux/capability.h"""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    FSETID = 4
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_RAW = 13
    SYS_CHROOT = 18
    SYS_ADMIN = 21
    SETFCAP = 31


def mask(capabilities: frozenset[Capability]) -> int:
    return sum(1 << capability for capability in capabilities)


#: What root keeps in its user namespace, so that tests which chown, setuid or read a file of mode 000 end
#: as they do outside. Inside a user namespace none of these reaches past the ids that are mapped.
ROOT_CAPABILITIES = frozenset(
    {
        Capability.CHOWN,
        Capability.DAC_OVERRIDE,
        Capability.DAC_READ_SEARCH,
        Capability.FOWNER,
        Capability.FSETID,
        Capability.KILL,
        Capability.SETGID,
        Capability.SETUID,
        Capability.SETPCAP,
        Capability.NET_BIND_SERVICE,
        Capability.SYS_CHROOT,
        Capability.SETFCAP,
    }
)


def effective_capabilities(proc: str = "/proc") -> int:
    with open(f"{proc}/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def seal(program: Program) -> None:
    """The init keeps no capability, cannot be traced or read from inside (ptrace(2), dumpable), and dies
    with the supervisor. The last comes last: a change of credentials clears it (PR_SET_PDEATHSIG(2const))."""
    program.call("capset", struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24))
    program.call("prctl", lib.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    program.call("prctl", lib.PR_SET_DUMPABLE, 0, 0, 0, 0)
    program.call("prctl", lib.PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def fork() -> int:
    with warnings.catch_warnings():
        # CPython 3.12 warns of forks with threads around. The child runs Python code that does not wait for
        # any of them, and glibc's fork takes the locks that matter (malloc).
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        interrupts.forget()
    return pid


def deliver(pid: int, number: signal.Signals) -> None:
    """Send a signal to a child, even if it blocks every one."""
    if lib.isolate_interrupt(pid, number) != 0:
        kill(pid, number)  # ptrace is forbidden (Yama): works unless it is blocked


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Does nothing if there is no such process any more, or it is not ours."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def descendants(pid: int) -> list[int]:
    """As far as they are still of the family: whose parent has ended is init's child."""
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as children:
            found += [int(child) for child in children.read().split()]
    return [*found, *(inner for child in found for inner in descendants(child))]


def parent_of(pid: int) -> int:
    """Raises OSError if there is no such process."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return int(stat.read().rpartition(b")")[2].split()[1])


def wait_for_exit(pid: int) -> int | None:
    """Reap a child and give its wait status, or None if somebody else had the right to (SIGCHLD ignored)."""
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return None

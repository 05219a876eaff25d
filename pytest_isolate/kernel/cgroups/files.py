"""Reading and writing cgroup files, and removing cgroup directories.

Plain paths and bare system calls: this is done several times for every test.  A file that is not
there, or not any more, reads as None: not measured.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time

from pytest_isolate.errors import SetupError
from pytest_isolate.kernel.process import kill

__all__ = [
    "REMOVE_TIMEOUT_S",
    "kill_tree",
    "make_directory",
    "processes",
    "read",
    "read_fields",
    "read_int",
    "remove_tree",
    "set_limit",
    "subdirectories",
    "write",
]

REMOVE_TIMEOUT_S = 2.0


def read(path: str) -> str | None:
    """The whole of a file, or None if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        chunks = [os.read(fd, 65536)]
        # seq_file gives what fits its buffer of a page or more: less than this is all there is.
        while len(chunks[-1]) >= 2048:
            chunks.append(os.read(fd, 65536))
    except OSError:  # ENODEV: the cgroup was removed; EOPNOTSUPP: not for this type of cgroup
        return None
    finally:
        os.close(fd)
    return b"".join(chunks).decode(errors="surrogateescape")


def read_int(path: str) -> int | None:
    """A file that holds one number."""
    text = read(path)
    return int(text) if text is not None and text.strip().isdecimal() else None


def read_fields(path: str) -> dict[str, int]:
    """A "flat keyed" file: a name and a number per line.  Empty if it cannot be read."""
    lines = (line.split() for line in (read(path) or "").splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdecimal()}


def write(path: str, value: str) -> None:
    """Write a value in one piece, as cgroup files want it.  An OSError names the file."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def set_limit(directory: str, name: str, value: str) -> None:
    """Write a limit; SetupError if the kernel refuses it."""
    try:
        write(f"{directory}/{name}", value)
    except OSError as error:
        raise _failed(f"cgroup {name}={value}", error) from error


def make_directory(path: str) -> None:
    """Make a cgroup; SetupError if the kernel refuses."""
    try:
        os.mkdir(path)
    except OSError as error:
        raise _failed(f"cgroup {os.path.basename(path)}", error) from error


def processes(directory: str) -> list[int]:
    """Process ids; 0 stands for each one that our pid namespace cannot see."""
    return [int(pid) for pid in (read(f"{directory}/cgroup.procs") or "").split()]


def subdirectories(directory: str) -> list[str]:
    """The cgroups right below."""
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def kill_tree(directory: str) -> None:
    """SIGKILL every process in and below a cgroup.

    Repeated until a round finds nobody new: a fork that was under way when its parent was signalled
    is undone by the kernel, so from then on nobody is left who could fork.
    """
    with contextlib.suppress(OSError):
        write(f"{directory}/cgroup.kill", "1")  # cgroup2 since Linux 5.14, in and below at once
        return
    signalled: set[int] = set()
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    while time.monotonic() < deadline:
        # 0 is a process that we cannot see, and os.kill(0) would kill our own process group.
        fresh = _processes_below(directory) - signalled - {0}
        if not fresh:
            return
        for pid in fresh:
            kill(pid)
        signalled |= fresh


def remove_tree(directory: str, *, kill: bool = False, deadline: float | None = None) -> None:
    """Remove a cgroup and those below it; waits for dying processes, then raises OSError (EBUSY).

    A process leaves its cgroup only some time after it stopped to count as alive.  ``kill`` kills whoever
    is inside, again and again: a child may be on its way in.
    """
    if deadline is None:
        deadline = time.monotonic() + REMOVE_TIMEOUT_S
    while True:
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        if kill:
            kill_tree(directory)
        for below in subdirectories(directory):
            remove_tree(below, kill=kill, deadline=deadline)
        time.sleep(0.001)


def _processes_below(directory: str) -> set[int]:
    found = set(processes(directory))
    for below in subdirectories(directory):
        found |= _processes_below(below)
    return found


def _failed(step: str, error: OSError) -> SetupError:
    return SetupError(step, error.errno or 0, f"{error.filename}: {error.strerror}")

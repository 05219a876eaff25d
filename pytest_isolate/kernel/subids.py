"""Subordinate ids (subuid(5), subgid(5)): ranges that root has granted to a user, for user namespaces.

Only root may map them; the set-user-ID programs newuidmap(1) and newgidmap(1) do it for the user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pytest_isolate.errors import IsolateError
from pytest_isolate.kernel import process
from pytest_isolate.kernel.cgroups.base import Problem
from pytest_isolate.kernel.host import Host
from pytest_isolate.syscalls._native import ffi, lib

__all__ = ["Range", "SubordinateIds", "find_subordinate_ids", "run_as_root", "usable_subordinate_ids"]

HELPERS = ("newuidmap", "newgidmap")
HELPER_S = 30.0  # it may ask a name service over the network
FIRST_SUBORDINATE, USUAL_COUNT = 100_000, 65_536  # SUB_UID_MIN, SUB_UID_COUNT of login.defs(5)
MAX_FILE_BYTES = 2**20
LINE = re.compile(r"^([^:\s]+):([0-9]{1,10}):([0-9]{1,10})\s*$", re.MULTILINE)  # subuid(5)
MAX_RESULT_BYTES = 2**23
#: What the two processes of :func:`run_as_root` say to each other.
READY, MAPPED, DONE, FAILED = b"r", b"m", b"d", b"f"


@dataclass(frozen=True, slots=True)
class Range:
    """Ids ``first`` to ``first + count - 1`` of the host."""

    first: int
    count: int

    def __str__(self) -> str:
        return f"{self.first}-{self.first + self.count - 1}"

    def map(self, outside: int, seen_as: int = 0) -> str:
        """Lines of an id map (user_namespaces(7)): in a namespace, 0 is ``outside``, the caller, and 1 to
        ``count`` are the range.

        With another ``seen_as`` the caller is that id, and nobody is 0: each other id stays what it is.
        """
        if seen_as == 0:
            return f"0 {outside} 1\n1 {self.first} {self.count}"
        before = min(seen_as - 1, self.count)
        after = self.count - seen_as
        lines = [(1, self.first, before), (seen_as, outside, 1), (seen_as + 1, self.first + seen_as, after)]
        return "\n".join(f"{inside} {first} {count}" for inside, first, count in lines if count > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubordinateIds:
    """The caller's ranges, and the programs that map them."""

    uids: Range
    gids: Range
    newuidmap: str
    newgidmap: str

    def maps(self, host: Host, seen_as: tuple[int, int] = (0, 0)) -> tuple[str, str]:
        """uid_map and gid_map of a namespace in which the caller is ``seen_as``."""
        return self.uids.map(host.uid, seen_as[0]), self.gids.map(host.gid, seen_as[1])


# -- finding them ---------------------------------------------------------------------------------------


def find_subordinate_ids(host: Host, etc: Path = Path("/etc")) -> SubordinateIds | Problem:
    """Those of the caller, tried once; or why there are none."""
    programs = [os.path.abspath(path) for name in HELPERS if (path := shutil.which(name)) is not None]
    if len(programs) < len(HELPERS):
        return Problem("newuidmap and newgidmap are not installed", "run: sudo apt-get install uidmap")
    names = _names(host.uid)
    ranges = []
    for name in ("subuid", "subgid"):
        lines = _lines(etc / name)
        found = _largest(lines, names)
        if found is None:
            return Problem(f"{etc / name} has no range for {names[0]}", _grant(etc, names[0]))
        ranges.append(found)
    ids = SubordinateIds(uids=ranges[0], gids=ranges[1], newuidmap=programs[0], newgidmap=programs[1])
    try:
        run_as_root(ids, host, lambda: b"")
    except IsolateError as error:
        return Problem(str(error))
    return ids


def usable_subordinate_ids(host: Host) -> SubordinateIds | None:
    """None for whoever has none, or needs none: root may give files to everybody."""
    found = None if host.privileged else find_subordinate_ids(host)
    return found if isinstance(found, SubordinateIds) else None


def _names(uid: int) -> list[str]:
    """As which a user stands in the files."""
    try:
        return [pwd.getpwuid(uid).pw_name, str(uid)]
    except KeyError:  # newuidmap wants one; the trial tells
        return [str(uid)]


def _lines(path: Path) -> list[tuple[str, Range]]:
    """(owner, range) of each line that is one; a file that is not there has none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            found = LINE.findall(file.read(MAX_FILE_BYTES))
    except OSError:
        return []
    return [(owner, Range(int(first), int(count))) for owner, first, count in found if int(count) > 0]


def _largest(lines: Iterable[tuple[str, Range]], names: list[str]) -> Range | None:
    """One range is enough for the ids that images have; of equal ones the first."""
    mine = [found for owner, found in lines if owner in names]
    return max(mine, key=lambda found: found.count, default=None)


def _grant(etc: Path, name: str) -> str:
    """The command that grants ids which nobody has yet."""
    taken = [found for file in ("subuid", "subgid") for _, found in _lines(etc / file)]
    first = max([FIRST_SUBORDINATE, *(found.first + found.count for found in taken)])
    ids = f"{first}-{first + USUAL_COUNT - 1}"
    return f"run: sudo usermod --add-subuids {ids} --add-subgids {ids} {name}"


# -- using them -----------------------------------------------------------------------------------------


def run_as_root(ids: SubordinateIds, host: Host, function: Callable[[], bytes]) -> bytes:
    """What ``function`` returns in a forked process that is root of a user namespace over the ids: it may
    give files to them, and remove theirs.

    Raises IsolateError with the text of what it raised, or if there is no such namespace. The process is gone
    when this returns, and does not outlive the caller.
    """
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    with ours, theirs:
        pid = process.fork()
        if pid == 0:
            ours.close()
            _run_child(theirs, parent, function)
        try:
            theirs.close()
            answer = ours.recv(1)
            if answer == READY:
                _map_ids(ids, host, pid)
                ours.send(MAPPED)
                answer = b""
            answer += _receive(ours)
        finally:
            process.kill(pid)  # it has said all that it had to say
            process.wait_for_exit(pid)
    if not answer:
        raise IsolateError(f"process {pid}, root of a user namespace, ended unexpectedly; run it again")
    if answer[:1] != DONE:
        raise IsolateError(answer[1:].decode(errors="replace"))
    return answer[1:]


def _run_child(theirs: socket.socket, parent: int, function: Callable[[], bytes]) -> NoReturn:
    answer = b""
    try:
        if lib.isolate_unshare_user(parent) != 0:
            raise IsolateError(f"cannot make a user namespace: {os.strerror(ffi.errno)}")
        theirs.send(READY)
        if theirs.recv(1) == MAPPED:
            answer = DONE + function()
    except IsolateError as error:
        answer = FAILED + str(error).encode(errors="replace")
    except BaseException as error:
        answer = FAILED + f"{type(error).__name__}: {error}".encode(errors="replace")
    finally:
        with contextlib.suppress(OSError):  # nobody listens any more
            theirs.sendall(answer)
        os._exit(0)


def _receive(ours: socket.socket) -> bytes:
    """All that comes. The other end may have died, but does not lie: bounded nevertheless."""
    answer = bytearray()
    while chunk := ours.recv(2**16):
        answer += chunk
        if len(answer) > MAX_RESULT_BYTES:
            raise IsolateError(f"a process answered with more than {MAX_RESULT_BYTES} bytes")
    return bytes(answer)


def _map_ids(ids: SubordinateIds, host: Host, pid: int) -> None:
    for helper, text in zip((ids.newuidmap, ids.newgidmap), ids.maps(host), strict=True):
        try:
            ran = subprocess.run(
                [helper, str(pid), *text.split()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=HELPER_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise IsolateError(f"cannot map subordinate ids: {error}") from None
        if ran.returncode != 0:
            said = ran.stderr.decode(errors="replace").strip().splitlines()
            why = said[-1] if said else f"{helper}: status {ran.returncode}"
            raise IsolateError(f"cannot map subordinate ids: {why}")

"""A test without namespaces of its own: what is left to keep it from the machine that it shares.

What it may write is written, and not thrown away; all else is refused. There is no way to hide anything, nor
to have anything at another place: who asks for that gets an error.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_isolate.errors import UnsupportedError
from pytest_isolate.kernel.landlock import Ruleset, gaps, landlock_abi, make_ruleset, why_no_landlock
from pytest_isolate.kernel.process import ROOT_CAPABILITIES, Capability, effective_capabilities
from pytest_isolate.kernel.seccomp_filter import why_no_filter
from pytest_isolate.spec import HostRootfs, ImageRootfs, Network, PathRootfs, Spec, User
from pytest_isolate.syscalls._native import ffi

if TYPE_CHECKING:
    from pytest_isolate.kernel.host import Host

__all__ = [
    "Confinement",
    "best",
    "describe",
    "enter_tmp",
    "kept_capabilities",
    "lacks",
    "refusal",
    "request_of",
    "sweep",
]

#: What every program writes to. /dev/shm is the host's own: without it there is no lock of multiprocessing.
DEVICES = tuple(
    f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm")
)
TMP = "isolate-tmp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What the test's process is put into, with all that it starts."""

    ruleset: Ruleset | None  #: of Landlock; None: this kernel has none
    writable: tuple[str, ...]  #: host paths, and all that is below them
    closes_network: bool
    tmp: str  #: where the directory is made that TMPDIR names

    @property
    def level(self) -> str:
        return "fork" if self.ruleset is None else "landlock"


def best(spec: Spec, basetemp: str) -> Confinement:
    """All that this machine can do for one Spec without namespaces."""
    closes_network = spec.network is not Network.HOST
    abi = landlock_abi()
    own = (bind.source for bind in spec.binds if not bind.readonly)
    return Confinement(
        ruleset=make_ruleset(abi, closes_network=closes_network) if abi > 0 else None,
        writable=(basetemp, *own, *DEVICES),
        closes_network=closes_network and why_no_filter() is None,
        tmp=os.path.join(basetemp, TMP),
    )


def lacks(spec: Spec, confinement: Confinement) -> Iterator[UnsupportedError]:
    """What a Spec asks for, or every sandbox has, that is neither given nor refused."""
    if confinement.ruleset is None:
        problem = why_no_landlock(landlock_abi())
        yield UnsupportedError("Landlock", problem.reason, problem.cure)
    else:
        yield from gaps(confinement.ruleset.abi)
    if spec.network is not Network.HOST and (filters := why_no_filter()) is not None:
        yield UnsupportedError("closing the network", filters.reason, filters.cure)
    if spec.limits.tmp_size_bytes is not None:
        yield UnsupportedError("the tmp_size limit", "what a test writes goes to the host's own file systems")
    if spec.artifacts:
        yield UnsupportedError(
            "copying of artifacts", "there is no layer to copy them from", "write to tmp_path"
        )


def kept_capabilities(spec: Spec, host: Host) -> frozenset[Capability] | None:
    """Of root, who with others could undo the confinement. None: it keeps all, or cannot drop any."""
    can_drop = effective_capabilities(host.proc) >> Capability.SETPCAP & 1
    return ROOT_CAPABILITIES if can_drop and spec.user is not User.HOST_ROOT else None


def refusal(spec: Spec, host: Host, why: UnsupportedError) -> UnsupportedError | None:
    """What is asked for and cannot be had without namespaces, of which there are none for the reason ``why``.

    To go on without would be another test, or one that does harm.
    """
    for asked in _impossible(spec, host):
        return UnsupportedError(asked, f"it takes namespaces, and {why.reason}", why.cure)
    return None


def _impossible(spec: Spec, host: Host) -> Iterator[str]:
    match spec.rootfs:
        case HostRootfs():
            pass
        case PathRootfs(path, name):
            yield f"rootfs={name or path!r}"
        case ImageRootfs(name):
            yield f"rootfs={name!r}"
    for bind in spec.binds:
        if os.path.realpath(bind.source) != os.path.realpath(bind.target):
            yield f"the bind of {bind.source} at {bind.target}"
    if spec.network not in (Network.NONE, Network.HOST):
        yield f"network={spec.network.value!r}"
    if spec.ports:
        yield "ports"
    if spec.hosts:
        yield "hosts"
    if spec.user is User.ROOT and host.uid != 0:
        yield "user='root'"
    if spec.workdir is not None and not os.path.isdir(spec.workdir):
        yield f"workdir={spec.workdir!r}"
    if spec.readonly and landlock_abi() < 1:
        yield "readonly"


def describe(confinement: Confinement) -> Iterator[str]:
    """Its parts, a line each for people."""
    if confinement.ruleset is not None:
        places = " ".join(path for path in confinement.writable if path not in DEVICES)
        abi = confinement.ruleset.abi
        yield f"forbid itself by Landlock (ABI {abi}) to write, but below {places} and in /dev"
        if confinement.ruleset.scoped:
            yield "forbid itself to send signals to processes outside"
    if confinement.closes_network:
        yield "have a seccomp filter refuse all sockets but those of Unix"
    yield f"set TMPDIR to a new directory in {confinement.tmp}"


@cache
def _native(confinement: Confinement) -> tuple[Any, Any]:
    """``struct confinement``, and the text that it points to. Cached, as the struct does not own it."""
    ruleset = confinement.ruleset
    paths = b"".join(os.fsencode(path) + b"\0" for path in confinement.writable if path)
    text = ffi.new("char[]", paths)
    request = ffi.new("struct confinement *")
    request.writable = text
    request.closes_network = confinement.closes_network
    if ruleset is not None:
        request.uses_landlock = 1
        request.handled_files, request.handled_tcp = ruleset.files, ruleset.tcp
        request.scoped = ruleset.scoped
        request.in_directories, request.in_files = ruleset.files, ruleset.in_files
    return request, text


def request_of(confinement: Confinement) -> Any:
    """``struct confinement``, which lives as long as this process."""
    return _native(confinement)[0]


# -- the directory for temporary files ------------------------------------------------------------------


def enter_tmp(confinement: Confinement) -> None:
    """In the test's process: a TMPDIR of its own, as there is no /tmp of its own."""
    path = os.path.join(confinement.tmp, str(os.getpid()))
    os.mkdir(path, mode=0o700)
    os.environ["TMPDIR"] = path
    tempfile.tempdir = None  # as it was found in pytest


def sweep(directories: Iterable[str]) -> None:
    """Remove what tests that are over had in these: the name says whose it was.

    Tests may write there: what they have put in the place of a directory is not followed.
    """
    for directory in directories:
        with contextlib.suppress(OSError):  # removed or replaced by a test
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                _sweep(f"/proc/self/fd/{fd}")
            finally:
                os.close(fd)


def _sweep(directory: str) -> None:
    for name in os.listdir(directory):
        if name.isdecimal() and not os.path.exists(f"/proc/{name}"):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)

"""What the user asked for: frozen values, no parsing (``values.py``), no mechanism (``sandbox/plan.py``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from pytest_isolate.violation import Kind

__all__ = [
    "NATIVE",
    "Bind",
    "EnvMode",
    "Environment",
    "Fixtures",
    "HostRootfs",
    "ImageRootfs",
    "Limits",
    "Network",
    "PathRootfs",
    "Port",
    "PrivateNetwork",
    "Rootfs",
    "Scope",
    "Seccomp",
    "Spec",
    "Start",
    "TcpPort",
    "UnixPort",
    "User",
    "Watch",
]


#: The runtime that is this plugin itself.
NATIVE = "native"


class Network(Enum):
    """What of the network a test reaches."""

    NONE = "none"  #: a namespace with nothing but ``lo``, which is up
    HOST = "host"  #: the host's network namespace


@dataclass(frozen=True, slots=True)
class PrivateNetwork:
    """``lo``, and ``eth0`` at a bridge where tests of one group that run at the same time meet each other."""

    group: str = ""

    @property
    def value(self) -> str:
        """As it is written: ``private`` or ``private:GROUP``."""
        return f"private:{self.group}" if self.group else "private"


@dataclass(frozen=True, slots=True)
class TcpPort:
    """A port of the host's loopback that a test finds on its own."""

    host: int
    inside: int

    def __str__(self) -> str:
        return str(self.host) if self.host == self.inside else f"{self.host}:{self.inside}"


@dataclass(frozen=True, slots=True)
class UnixPort:
    """A Unix socket of the host that a test finds at the same path."""

    path: str

    def __str__(self) -> str:
        return self.path


Port = TcpPort | UnixPort


class User(Enum):
    """Whom a test runs as."""

    IMAGE = "image"  #: whom the image's configuration names, as which the caller is seen; else CALLER
    CALLER = "caller"  #: a user namespace with the caller's own uid and gid mapped to themselves
    ROOT = "root"  #: a user namespace where the caller's uid and gid are seen as 0
    HOST_ROOT = "host-root"  #: no user namespace; only where pytest itself runs as root


class Scope(Enum):
    """How many tests share a sandbox."""

    FUNCTION = "function"  #: each has its own
    CLASS = "class"  #: consecutive tests of a class; a test outside of one has its own
    MODULE = "module"  #: consecutive tests of a module


class Fixtures(Enum):
    """Where fixtures of a wider scope than the sandbox's are set up."""

    SHARED = "shared"  #: in pytest, once, as without isolation; tests inherit them
    FRESH = "fresh"  #: in each sandbox anew


class Start(Enum):
    """How a sandbox's process comes to be."""

    FORK = "fork"  #: a copy of pytest, with all that is imported and set up in it
    SPAWN = "spawn"  #: a fresh interpreter that collects and runs these tests alone


class Watch(Enum):
    """What becomes of a violation: something that a hermetic test must not do."""

    OFF = "off"  #: nobody looks
    REPORT = "report"  #: it is in the record and in the summary
    FAIL = "fail"  #: the test fails


class Seccomp(Enum):
    """Which system calls are refused."""

    DEFAULT = "default"  #: those that reach past namespaces (kernel/seccomp.py)
    OFF = "off"  #: none


class EnvMode(Enum):
    """What of the caller's environment variables a test starts with."""

    INHERIT = "inherit"
    CLEAN = "clean"  #: PATH, HOME, LANG, TZ and what pytest itself needs, with fixed values


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Environment variables of a test: a starting point, and changes to it (``None`` removes)."""

    mode: EnvMode = EnvMode.INHERIT
    changes: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class HostRootfs:
    """The host's own tree; what is written goes to a throw-away layer."""


@dataclass(frozen=True, slots=True)
class PathRootfs:
    """A directory as the root, or a file or OCI layout with an image; what is written goes to a throw-away
    layer."""

    path: str
    name: str = ""  #: of an image in the store, if nothing is at ``path``
    asked: str = field(default="", compare=False)  #: what the user has written for it


@dataclass(frozen=True, slots=True)
class ImageRootfs:
    """An image of a registry; what is written goes to a throw-away layer."""

    name: str
    asked: str = field(default="", compare=False)  #: what the user has written for it


Rootfs = HostRootfs | PathRootfs | ImageRootfs


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A host path that a test sees at ``target`` (an absolute path inside)."""

    source: str
    target: str
    readonly: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps. ``None``: no cap was asked for."""

    memory_bytes: int | None = None  #: of the whole process tree, files in the sandbox's tmpfs included
    swap_bytes: int | None = None  #: beyond memory_bytes; 0 when memory is capped and swap is not named
    cpus: float | None = None  #: processor time per wall time, 0.5 is half a core
    cpu_time_s: float | None = None  #: user + system of the whole tree
    pids: int | None = None  #: processes and threads of the tree
    files: int | None = None  #: open descriptors per process (RLIMIT_NOFILE)
    tmp_size_bytes: int | None = None  #: all that the test writes outside tmp_path and writable binds
    timeout_s: float | None = None  #: wall clock, from the fork to the last report


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """All that a user can ask for one test."""

    limits: Limits = field(default_factory=Limits)
    network: Network | PrivateNetwork = Network.NONE
    ports: tuple[Port, ...] = ()  #: of the host, that a network of one's own reaches nevertheless
    hosts: tuple[tuple[str, str], ...] = ()  #: (name, address) in addition to the root's own /etc/hosts
    rootfs: Rootfs = field(default_factory=HostRootfs)
    readonly: bool = False  #: the root refuses writes (EROFS) in place of throwing them away
    binds: tuple[Bind, ...] = ()
    artifacts: tuple[str, ...] = ()  #: absolute globs of files that are copied out of the sandbox
    writes: tuple[str, ...] = ()  #: absolute globs of files that may be written, and are thrown away
    env: Environment = field(default_factory=Environment)
    hostname: str = "isolated"
    user: User = User.IMAGE
    workdir: str | None = None  #: absolute path inside; None: the image's, else pytest's
    start: Start = Start.FORK
    runtime: str = NATIVE  #: the name or path of an OCI runtime's command; needs Start.SPAWN
    scope: Scope = Scope.FUNCTION
    fixtures: Fixtures = Fixtures.SHARED
    seccomp: Seccomp = Seccomp.DEFAULT
    exclusive: bool = False  #: no other test runs at the same time (of this pytest)
    watch: Watch = Watch.REPORT
    allow: tuple[Kind, ...] = ()  #: kinds of violations that are not held against this test
    strict: bool = (
        False  #: --isolate-strict: an empty home, a read-only project, a fixed umask; see strict.py
    )

    @property
    def declared(self) -> dict[str, object]:
        """What the test said that it needs of the network, as the user writes it; nothing by default."""
        found: dict[str, object] = {}
        if self.network is not Network.NONE:
            found["network"] = self.network.value
        if self.ports:
            found["ports"] = [str(port) for port in self.ports]
        if self.hosts:
            found["hosts"] = dict(self.hosts)
        return found

"""What is said of an attempt to leave the sandbox, whoever has seen it."""

from __future__ import annotations

from pytest_isolate.kernel.attempts import Act
from pytest_isolate.runner import cures
from pytest_isolate.violation import Kind, Violation

__all__ = ["UNIX", "describe", "is_agent", "is_attempt", "is_unknown", "socket_of"]

UNIX = "unix"
NETWORK = 'network="host"'
UNKNOWN = " to an unknown address"
VERBS = ("connected to ", "sent to ", "looked up ", "asked ", "tried to open a ")
#: As native/notify.c has them.
AGENTS = (
    *("docker.sock", "containerd.sock", "podman.sock", "/ssh-", "/.ssh/agent/", "S.gpg-agent"),
    *("system_bus_socket", "/keyring/"),
)


def is_agent(path: str) -> bool:
    """Whether a Unix socket leads to the user's own agents, or to daemons that obey their callers."""
    return any(part in path for part in AGENTS)


def is_attempt(violation: Violation) -> bool:
    """Whether :func:`describe` has made it."""
    return violation.kind in (Kind.NETWORK, Kind.SECRETS) and violation.what.startswith(VERBS)


def socket_of(violation: Violation) -> str:
    """The path that :func:`describe` was told, or ""."""
    return violation.what.partition(" to ")[2] if violation.kind is Kind.SECRETS else ""


def is_unknown(violation: Violation) -> bool:
    """Whether :func:`describe` was told no address."""
    return UNKNOWN in violation.what


def describe(act: Act, protocol: str, host: str, port: int, where: str, count: int) -> Violation:
    """``host``: an address; a path for the protocol UNIX; a name if it was looked up."""
    if act is Act.QUERY:
        return Violation(
            kind=Kind.NETWORK,
            what=f"looked up {host}" if host else "asked a name server what nobody can read",
            where=where,
            cure=cures.hosts(host) or NETWORK,
            count=count,
        )
    if act is Act.OPEN:
        kind = "packet" if protocol == "packet" else "raw"
        what = f"tried to open a {kind} socket" + (f" ({protocol})" if protocol != kind else "")
        return Violation(
            kind=Kind.NETWORK, what=what, where=where, cure=cures.allow(Kind.NETWORK), count=count
        )
    verb = "connected" if act is Act.CONNECT else "sent"
    if not host and protocol != UNIX:  # nobody can read it
        what = verb + UNKNOWN + (f" ({protocol})" if protocol else "")
        return Violation(kind=Kind.NETWORK, what=what, where=where, cure=NETWORK, count=count)
    path, host = host, "".join(char if char.isprintable() else "?" for char in host)
    if protocol == UNIX:
        cure = ", ".join(filter(None, (cures.ports([path]), cures.allow(Kind.SECRETS))))
        return Violation(kind=Kind.SECRETS, what=f"{verb} to {host}", where=where, cure=cure, count=count)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Violation(
        kind=Kind.NETWORK,
        what=f"{verb} to {address}" + (f" ({protocol})" if protocol else ""),
        where=where,
        cure=NETWORK,
        count=count,
    )

"""What is said of an attempt to leave the sandbox, whoever has seen it."""

from __future__ import annotations

from pytest_isolate.kernel.attempts import Act
from pytest_isolate.violation import Kind, Violation

__all__ = ["describe"]


def describe(act: Act, protocol: str, host: str, port: int, where: str, count: int) -> Violation:
    """``host``: an address; a path for the protocol "unix"; a name if it was looked up."""
    if act is Act.QUERY:
        return Violation(
            kind=Kind.NETWORK,
            what=f"looked up {host}" if host else "asked a name server what nobody can read",
            where=where,
            cure=f'hosts={{"{host}": "127.0.0.1"}}' if host else 'network="host"',
            count=count,
        )
    verb = "connected" if act is Act.CONNECT else "sent"
    if protocol == "unix":
        return Violation(
            kind=Kind.SECRETS, what=f"{verb} to {host}", where=where, cure=f'binds=["{host}"]', count=count
        )
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Violation(
        kind=Kind.NETWORK,
        what=f"{verb} to {address}" + (f" ({protocol})" if protocol else ""),
        where=where,
        cure='network="host"',
        count=count,
    )

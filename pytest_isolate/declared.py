"""What a test says of the network that it needs, in text or in Python, as values of a Spec.

``ValueError`` says what is allowed. ``spec.py`` and ``ipaddress`` are imported late: see ``values.py``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_isolate.units import quoted

if TYPE_CHECKING:
    from pytest_isolate.spec import Network, Port, PrivateNetwork

__all__ = ["parse_hosts", "parse_network", "parse_ports"]


def parse_network(value: object) -> Network | PrivateNetwork:
    from pytest_isolate.spec import Network, PrivateNetwork

    if isinstance(value, Network | PrivateNetwork):
        return value
    if isinstance(value, str):
        kind, colon, group = value.partition(":")
        if kind == "private" and (re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", group) or not colon):
            return PrivateNetwork(group)
        if value in ("none", "host"):
            return Network(value)
    raise ValueError(
        f"{quoted(value)} is not 'none', 'host', 'private' or 'private:GROUP', a group of letters, digits, "
        "'.', '_' and '-'"
    )


_PORT_FORMS = "a port of the host from 1 to 65535, HOST:INSIDE or the absolute path of a Unix socket"
_MOST_PORTS = 16  # each is two sockets that the init of the sandbox hands out at once


def parse_ports(value: object) -> tuple[Port, ...]:
    from pytest_isolate.spec import TcpPort

    entries = value if isinstance(value, list | tuple) else [value]
    ports = tuple(dict.fromkeys(_port(entry) for entry in entries))
    inside = [port.inside for port in ports if isinstance(port, TcpPort)]
    for number in inside:
        if inside.count(number) > 1:
            raise ValueError(f"two ports of the host are to be port {number} inside; name one")
    if len(inside) > _MOST_PORTS:
        raise ValueError(f"{len(inside)} ports are more than the most allowed, {_MOST_PORTS}")
    return ports


def _port(entry: object) -> Port:
    from pytest_isolate.spec import TcpPort, UnixPort

    if isinstance(entry, TcpPort | UnixPort):
        return entry
    text = str(os.fspath(entry)) if isinstance(entry, os.PathLike) else entry
    if isinstance(text, str) and text.startswith("/") and "\0" not in text:
        return UnixPort("/" + os.path.normpath(text).lstrip("/"))
    if isinstance(text, int | str) and not isinstance(text, bool):
        numbers = re.fullmatch(r"([0-9]{1,5})(?::([0-9]{1,5}))?", str(text))
        if numbers is not None:
            host, inside = int(numbers[1]), int(numbers[2] or numbers[1])
            if 0 < host < 2**16 and 0 < inside < 2**16:
                return TcpPort(host, inside)
    raise ValueError(f"port {quoted(entry)} is not {_PORT_FORMS}")


_HOST_FORMS = "{'NAME': 'ADDRESS'} or NAME=ADDRESS, as in db=127.0.0.1"
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_LONGEST_NAME = 253  # RFC 1035, 2.3.4


def parse_hosts(value: object) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[object, object]]
    if isinstance(value, Mapping):
        pairs = [*value.items()]
    else:
        lines = [value] if isinstance(value, str) else value
        if not isinstance(lines, list | tuple):
            raise ValueError(f"{quoted(value)} is not {_HOST_FORMS}")
        pairs = [_pair(line) for line in lines]
    hosts: dict[str, str] = {}
    for name, address in pairs:
        known, found = _host(name, address)
        if hosts.setdefault(known, found) != found:
            raise ValueError(f"host {quoted(known)} has two addresses; name one")
    return tuple(hosts.items())


def _pair(line: object) -> tuple[object, object]:
    if isinstance(line, str) and "=" in line:
        name, _, address = line.partition("=")
        return name, address
    if isinstance(line, tuple) and len(line) == 2:  # as a Spec has it
        return line
    raise ValueError(f"host {quoted(line)} is not {_HOST_FORMS}")


def _host(name: object, address: object) -> tuple[str, str]:
    import ipaddress  # only for those who name hosts

    known = name.lower() if isinstance(name, str) else ""  # names of hosts have no case
    if len(known) > _LONGEST_NAME or not re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*", known):
        raise ValueError(f"host {quoted(name)} is not a name of letters, digits, '-' and '.'; {_HOST_FORMS}")
    if known == "localhost":
        raise ValueError("host 'localhost' is the sandbox itself, always; choose another name")
    try:
        return known, str(ipaddress.ip_address(address if isinstance(address, str) else ""))
    except ValueError:
        reason = f"needs an IP address, not {quoted(address)}"
        raise ValueError(f"host {quoted(name)} {reason}; {_HOST_FORMS}") from None

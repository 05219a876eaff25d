"""What the supervisor tells of calls that would leave a sandbox, or read a secret (native/notify.c)."""

from __future__ import annotations

import itertools
import os
import socket
import struct
from dataclasses import dataclass
from enum import Enum

from pytest_isolate.syscalls._native import lib

__all__ = ["ATTEMPT", "Act", "Attempt", "Counts", "opened_name", "query_name"]

ATTEMPT = struct.Struct("=ii6H")  # struct attempt of wire.h
HEADER_BYTES = 12  # of a message of DNS
MAX_NAME_BYTES = 255
_SOCKET_TYPE = 0xF  # SOCK_TYPE_MASK of linux/net.h


class Act(Enum):
    CONNECT = lib.ATTEMPT_CONNECT
    SEND = lib.ATTEMPT_SEND
    QUERY = lib.ATTEMPT_QUERY  #: of a name server
    READ = lib.ATTEMPT_READ  #: of a secret that is not there
    OPEN = lib.ATTEMPT_OPEN  #: a socket past TCP and UDP


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The first of its kind since the last :class:`Counts`; that tells how many there were."""

    sandbox_id: int
    index: int  #: its place among the counts
    pid: int  #: of the process, as we see it
    inner_pid: int  #: as the sandbox sees it
    act: Act
    protocol: str  #: tcp, udp, icmp, raw, packet; unix; "" if nobody knows
    host: str  #: an address; the path of a socket or a secret; "" for a query over a connected socket
    port: int
    name: str | None  #: that a query asks for; None: it cannot be read
    command: bytes  #: as /proc/PID/cmdline has it, cut off

    @classmethod
    def unpack(cls, sandbox_id: int, index: int, data: bytes) -> Attempt:
        """Our own supervisor made the frame; address, payload and command are a test's."""
        pid, inner_pid, act, kind, protocol, *sizes = ATTEMPT.unpack_from(data)
        ends = [ATTEMPT.size + sum(sizes[:n]) for n in range(4)]
        address, payload, command = (data[start:end] for start, end in itertools.pairwise(ends))
        family, host, port = _read_address(address)
        if act == lib.ATTEMPT_READ:
            host, payload = os.fsdecode(payload), b""
        return cls(
            sandbox_id=sandbox_id,
            index=index,
            pid=pid,
            inner_pid=inner_pid,
            act=Act(act),
            protocol=_FAMILIES.get(family) or protocol_name(kind, protocol),
            host=host,
            port=port,
            name=query_name(payload),
            command=command,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How often each attempt was made, in the order of their index; all begin anew after this."""

    sandbox_id: int
    times: tuple[int, ...]
    more: int  #: attempts that nothing else is known of


_FAMILIES = {int(socket.AF_UNIX): "unix", int(socket.AF_PACKET): "packet"}


def opened_name(family: int, kind: int, protocol: int) -> str:
    """Of what socket(2) is asked for past TCP and UDP, as ``Attempt.protocol``; "" if it is not."""
    if family == socket.AF_PACKET:
        return _FAMILIES[family]
    is_icmp = protocol in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)
    if family in (socket.AF_INET, socket.AF_INET6) and (is_icmp or kind & _SOCKET_TYPE == socket.SOCK_RAW):
        return protocol_name(kind & _SOCKET_TYPE, protocol)
    return ""


def protocol_name(kind: int, protocol: int) -> str:
    """Of a socket's type and protocol, as getsockopt(2) tells them."""
    by_protocol = {
        socket.IPPROTO_TCP: "tcp",
        socket.IPPROTO_UDP: "udp",
        socket.IPPROTO_ICMP: "icmp",
        socket.IPPROTO_ICMPV6: "icmp",
    }
    by_type = {int(socket.SOCK_STREAM): "tcp", int(socket.SOCK_DGRAM): "udp", int(socket.SOCK_RAW): "raw"}
    return by_protocol.get(protocol) or by_type.get(kind, "")


def _read_address(address: bytes) -> tuple[int, str, int]:
    if len(address) < 2:
        return socket.AF_UNSPEC, "", 0
    (family,) = struct.unpack_from("=H", address)
    if family == socket.AF_INET and len(address) >= 8:
        (port,) = struct.unpack_from("!H", address, 2)
        return family, socket.inet_ntop(socket.AF_INET, address[4:8]), port
    if family == socket.AF_INET6 and len(address) >= 24:
        (port,) = struct.unpack_from("!H", address, 2)
        return family, socket.inet_ntop(socket.AF_INET6, address[8:24]), port
    if family == socket.AF_UNIX:
        return family, os.fsdecode(address[2:].split(b"\0")[0]), 0
    return family, "", 0


def query_name(payload: bytes) -> str | None:
    """The name that a message of DNS asks for (RFC 1035, 4.1.2), in lower case and without the last dot.

    None for what is no such message: it comes from the test. What is no letter, digit, dash or underscore is
    shown escaped, as in zone files.
    """
    at = HEADER_BYTES
    labels: list[str] = []
    while at < len(payload) and at - HEADER_BYTES < MAX_NAME_BYTES:
        size = payload[at]
        if size == 0:
            return ".".join(labels).lower() or "."
        label = payload[at + 1 : at + 1 + size]
        if size > 63 or len(label) < size:  # a pointer has nothing before it to point to
            return None
        labels.append("".join(map(_shown, label)))
        at += 1 + size
    return None


def _shown(byte: int) -> str:
    char = chr(byte)
    return char if char.isascii() and (char.isalnum() or char in "-_") else f"\\{byte:03d}"

"""The network inside a sandbox. Bringing ``lo`` up is one ioctl (netdevice(7)), not a library of 180 ms."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from pytest_isolate.syscalls._native import lib
from pytest_isolate.syscalls.program import Program

__all__ = ["has_local_socket", "has_route", "known_hosts", "listen_on", "loopback_up", "open_low_ports"]

IFF_UP = 0x1
IPV6_FREEBIND = 78  # linux/in6.h, since Linux 4.15
BACKLOG = 4096  # the kernel's own default cap (net.core.somaxconn)
#: struct nlmsghdr and struct rtmsg, then the attribute RTA_DST (rtnetlink(7)).
ROUTE = struct.Struct("=IHHII8BI")
ATTRIBUTE = struct.Struct("=HH")
RTM_NEWROUTE, RTM_GETROUTE, NLM_F_REQUEST, RTA_DST, RTN_BLACKHOLE = 24, 26, 1, 1, 6
IFREQ = struct.Struct("=16sh22x")  # struct ifreq with ifr_flags


def loopback_up(program: Program) -> None:
    control = program.call("socket", socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0, keep=True)
    program.call("ioctl", control, lib.SIOCSIFFLAGS, IFREQ.pack(b"lo", IFF_UP))
    program.call("close", control)


def listen_on(program: Program, address: str, port: int) -> None:
    """Export a socket that listens at an address of ``lo``, which is up."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    listener = program.call("socket", family, kind, 0, keep=True, export=True)
    packed = socket.inet_pton(family, address)
    if family == socket.AF_INET6:
        # A machine may keep ::1 away from interfaces; then nobody comes.
        one = struct.pack("=i", 1)
        program.call("setsockopt", listener, socket.IPPROTO_IPV6, IPV6_FREEBIND, one, len(one))
        name = struct.pack("=H", family) + struct.pack("!HI", port, 0) + packed + struct.pack("=I", 0)
    else:
        name = struct.pack("=H", family) + struct.pack("!H", port) + packed + bytes(8)
    program.call("bind", listener, name, len(name))
    program.call("listen", listener, BACKLOG)


def open_low_ports(program: Program, proc: str) -> None:
    """Root may bind ports below 1024; in a user namespace that does not own the network namespace it lost
    the right, so the namespace gives it to everybody (ip(7), ip_unprivileged_port_start)."""
    program.write_file(f"{proc}/sys/net/ipv4/ip_unprivileged_port_start", "0")


def has_route(host: str) -> bool:
    """Whether the caller's network has a way to an address, as the kernel would go. Sends nothing."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        address = socket.inet_pton(family, host)
        bits, size = 8 * len(address), ROUTE.size + ATTRIBUTE.size + len(address)
        ask = ROUTE.pack(size, RTM_GETROUTE, NLM_F_REQUEST, 0, 0, family, bits, 0, 0, 0, 0, 0, 0, 0)
        attribute = ATTRIBUTE.pack(ATTRIBUTE.size + len(address), RTA_DST)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
            netlink.send(ask + attribute + address)
            answer = netlink.recv(4096, socket.MSG_DONTWAIT)
    except OSError:
        return False
    if len(answer) < ROUTE.size:
        return False
    _, message, _, _, _, *route, _ = ROUTE.unpack_from(answer)
    return bool(message == RTM_NEWROUTE and route[7] < RTN_BLACKHOLE)


def has_local_socket(path: str) -> bool:
    """Whether a socket of the caller's network namespace is bound to a path that ends alike."""
    name = "/" + path.rpartition("/")[2]
    try:
        lines = Path("/proc/self/net/unix").read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.endswith(name) for line in lines)


def known_hosts() -> set[str]:
    """The names of hosts(5), and the machine's own, in lower case."""
    own = socket.gethostname().lower()
    try:
        lines = Path("/etc/hosts").read_text(errors="replace").splitlines()
    except OSError:
        return {own}
    return {own} | {name.lower() for line in lines for name in line.partition("#")[0].split()[1:]}

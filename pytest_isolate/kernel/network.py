"""The network inside a sandbox. Bringing ``lo`` up is one ioctl (netdevice(7)), not a library of 180 ms."""

from __future__ import annotations

import socket
import struct

from pytest_isolate.syscalls._native import lib
from pytest_isolate.syscalls.program import Program

__all__ = ["listen_on", "loopback_up", "open_low_ports"]

IFF_UP = 0x1
IPV6_FREEBIND = 78  # linux/in6.h, since Linux 4.15
BACKLOG = 4096  # the kernel's own default cap (net.core.somaxconn)
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

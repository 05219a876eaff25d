"""The network inside a sandbox. Bringing ``lo`` up is one ioctl (netdevice(7)), not a library of 180 ms."""

from __future__ import annotations

import socket
import struct

from pytest_isolate.syscalls._native import lib
from pytest_isolate.syscalls.program import Program

__all__ = ["loopback_up", "open_low_ports"]

IFF_UP = 0x1
IFREQ = struct.Struct("=16sh22x")  # struct ifreq with ifr_flags


def loopback_up(program: Program) -> None:
    control = program.call("socket", socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0, keep=True)
    program.call("ioctl", control, lib.SIOCSIFFLAGS, IFREQ.pack(b"lo", IFF_UP))
    program.call("close", control)


def open_low_ports(program: Program, proc: str) -> None:
    """Root may bind ports below 1024; in a user namespace that does not own the network namespace it lost
    the right, so the namespace gives it to everybody (ip(7), ip_unprivileged_port_start)."""
    program.write_file(f"{proc}/sys/net/ipv4/ip_unprivileged_port_start", "0")

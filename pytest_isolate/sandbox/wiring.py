"""A program: network namespaces, joined by bridges, for a test or for the tests of a session.

    wiring.py nested SYS_PATH    for a test: in a user and a mount namespace of its own
    wiring.py hub    SYS_PATH    for a session without privileges: sandboxes are made in its user namespace
    wiring.py plain  SYS_PATH    for a session of root

It is told what to do on a socket, one JSON object a message, and answers each. All that it makes is in
namespaces that nobody else holds: it is gone when this is, and this ends when its socket is closed.

Each node has one address, on ``lo``, and a route to each node that it shares a switch with. A switch is a
bridge between veth pairs; one that is partitioned has a bridge for each part. So nothing is needed of the
kernel but veth and bridges.

Nothing here imports the package; pyroute2 takes a quarter of a second, which pytest does not pay.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MESSAGE_BYTES", "main"]

CONTROL_FD = 3
MESSAGE_BYTES = 2**16
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
HOSTS = "/etc/hosts"
NETEM_PACKETS = 10_000
TBF_LATENCY_US = 50_000
LEAST_BURST_BYTES = 16 * 1024
#: Of a switch's end of a veth pair. It must not be that of the other end, in the other namespace: the
#: kernel takes it for a plain interface then, and has a second to say that it is up (linkwatch_urgent_event).
FIRST_PORT = 1000
UP_S = 5.0
LOOPBACK = 1  # the index of lo in every network namespace

libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _unshare(flags: int) -> None:
    _check(libc.unshare(flags), "unshare")


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    _check(libc.mount(source.encode(), target.encode(), kind.encode(), flags, None), f"mount on {target}")


def _open_namespace(name: str) -> int:
    return os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)


def _enter_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _await_up(netlink: Any, index: int) -> None:
    """Packets are lost until the kernel has said so, which it does in a moment."""
    deadline = time.monotonic() + UP_S
    while netlink.get_links(index)[0].get_attr("IFLA_OPERSTATE") != "UP" and time.monotonic() < deadline:
        time.sleep(0.0005)


@dataclass
class Shape:
    """What happens to packets on their way to a switch."""

    latency_us: int = 0
    loss_percent: float = 0.0
    rate_bytes: int = 0  #: a second; 0: as fast as it goes


@dataclass
class Node:
    net_fd: int
    address: str
    ports: dict[int, tuple[int, int]] = field(default_factory=dict)  #: by switch: own interface, switch's


@dataclass
class Switch:
    number: int
    members: list[str] = field(default_factory=list)
    shape: Shape = field(default_factory=Shape)
    bridges: dict[int, int] = field(default_factory=dict)  #: by part: index of the bridge


class Wiring:
    def __init__(self, ip_route: Any) -> None:
        self._ip_route = ip_route
        self._hub_fd = _open_namespace("net")
        self._hub = ip_route()
        self._nodes: dict[str, Node] = {}
        self._switches: list[Switch] = []
        self._parts: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._hosts_fd = -1
        self._port_count = 0

    # ---- names ----------------------------------------------------------------------------------

    def have_hosts_file(self) -> int | None:
        """In a mount namespace of its own, in which /etc/hosts is a file that knows the nodes. None if the
        root has no such file."""
        if not os.path.isfile(HOSTS):
            return None
        with open(HOSTS, "rb") as own:
            text = own.read(MESSAGE_BYTES)
        _unshare(CLONE_NEWNS)
        _mount("none", "/", "", MS_REC | MS_PRIVATE)
        # On a tmpfs that nobody sees: the test's directories stay as they are.
        _mount("tmpfs", "/tmp", "tmpfs", 0)
        self._hosts_fd = os.open("/tmp/hosts", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.write(self._hosts_fd, text if text.endswith(b"\n") or not text else text + b"\n")
        _mount("/tmp/hosts", HOSTS, "", MS_BIND)
        _check(libc.umount2(b"/tmp", MNT_DETACH), "umount /tmp")
        return _open_namespace("mnt")

    def _tell_name(self, name: str, address: str) -> None:
        if self._hosts_fd >= 0:
            os.write(self._hosts_fd, f"{address}\t{name}\n".encode())

    # ---- nodes ----------------------------------------------------------------------------------

    def add_node(self, name: str, address: str) -> int:
        """A fresh network namespace, of which this is a descriptor."""
        _unshare(CLONE_NEWNET)
        net_fd = _open_namespace("net")
        self._return()
        self._nodes[name] = Node(net_fd, address)
        with self._in(net_fd) as there:
            there.link("set", index=LOOPBACK, state="up")
            there.addr("add", index=LOOPBACK, address=address, prefixlen=32)
        self._tell_name(name, address)
        return net_fd

    def join(self, name: str, group: str, address: str, net_fd: int) -> None:
        """Give a network namespace that is there an interface in the network of a group."""
        # The sandbox of an earlier attempt may be about to go.
        for other in [name for name, node in self._nodes.items() if node.address == address]:
            self.forget_node(other)
        self._nodes[name] = node = Node(net_fd, address)
        if group not in self._groups:
            self._groups[group] = self.add_switch([], Shape())
        own_index = self._connect(name, self._groups[group])
        with self._in(node.net_fd) as there:
            there.addr("add", index=own_index, address=address, prefixlen=16, broadcast="10.78.255.255")

    def forget_node(self, name: str) -> None:
        """It is gone, or about to be: with its namespace go its interfaces and what they are paired with."""
        node = self._nodes.get(name)
        if node is None:
            return
        for number in [*node.ports]:
            self._unplug(name, self._switches[number])
        del self._nodes[name]
        os.close(node.net_fd)

    def _in(self, net_fd: int) -> Any:
        """A netlink socket in that namespace: a socket stays in the one that it was made in."""
        _check(libc.setns(net_fd, CLONE_NEWNET), "setns")
        try:
            return self._ip_route()
        finally:
            self._return()

    def _return(self) -> None:
        _check(libc.setns(self._hub_fd, CLONE_NEWNET), "setns")

    # ---- switches -------------------------------------------------------------------------------

    def add_switch(self, members: Sequence[str], shape: Shape) -> int:
        switch = Switch(len(self._switches), shape=shape)
        self._switches.append(switch)
        try:
            for name in members:
                self.plug(name, switch.number)
        except Exception:
            for name in [*switch.members]:
                self._unplug(name, switch)
            raise
        return switch.number

    def _unplug(self, name: str, switch: Switch) -> None:
        switch.members.remove(name)
        _, port = self._nodes[name].ports.pop(switch.number)
        self._hub.link("del", index=port)  # and with it the node's end, and its routes

    def plug(self, name: str, number: int) -> None:
        """Join a node to a switch, and tell all there about it."""
        switch = self._switches[number]
        self._connect(name, number)
        self._shape(name, switch)
        for other in switch.members:
            if other != name:
                self._route(name, other, number)
                self._route(other, name, number)

    def _connect(self, name: str, number: int) -> int:
        """The index of the node's new interface, which is up."""
        switch, node = self._switches[number], self._nodes[name]
        own, port = f"eth{len(node.ports)}", f"port{self._port_count}"
        self._port_count += 1
        port_index = FIRST_PORT + self._port_count
        self._hub.link(
            "add", index=port_index, ifname=port, kind="veth", peer={"ifname": own, "net_ns_fd": node.net_fd}
        )
        with self._in(node.net_fd) as there:
            own_index: int = there.link_lookup(ifname=own)[0]
            there.link("set", index=own_index, state="up")
        node.ports[number] = own_index, port_index
        switch.members.append(name)
        self._hub.link("set", index=port_index, state="up", master=self._bridge(switch, name))
        with self._in(node.net_fd) as there:
            _await_up(there, own_index)
        _await_up(self._hub, port_index)
        return own_index

    def _route(self, name: str, other: str, number: int) -> None:
        node, target = self._nodes[name], self._nodes[other]
        with self._in(node.net_fd) as there:
            there.route(
                "replace",
                dst=f"{target.address}/32",
                oif=node.ports[number][0],
                prefsrc=node.address,
                scope="link",
            )

    def _bridge(self, switch: Switch, name: str) -> int:
        """The one of the part that a node is in."""
        part = self._parts.get(name, -1)
        if part not in switch.bridges:
            ifname = f"sw{switch.number}x{len(switch.bridges)}"
            self._hub.link("add", ifname=ifname, kind="bridge")
            index = self._hub.link_lookup(ifname=ifname)[0]
            self._hub.link("set", index=index, state="up")
            switch.bridges[part] = index
        return switch.bridges[part]

    def reshape(self, number: int, shape: Shape) -> None:
        switch = self._switches[number]
        switch.shape = shape
        for name in switch.members:
            self._shape(name, switch)

    def _shape(self, name: str, switch: Switch) -> None:
        node, shape = self._nodes[name], switch.shape
        index = node.ports[switch.number][0]
        with self._in(node.net_fd) as there:
            if there.get_qdiscs(index=index)[0].get_attr("TCA_KIND") in ("netem", "tbf"):
                there.tc("del", index=index, root=True)
            if shape.latency_us or shape.loss_percent:
                more = {"rate": shape.rate_bytes} if shape.rate_bytes else {}
                there.tc(
                    "add",
                    "netem",
                    index,
                    "1:",
                    delay=shape.latency_us,
                    loss=shape.loss_percent,
                    limit=NETEM_PACKETS,
                    **more,
                )
            elif shape.rate_bytes:
                burst = max(LEAST_BURST_BYTES, shape.rate_bytes // 250)
                limit = burst + shape.rate_bytes * TBF_LATENCY_US // 1_000_000
                there.tc("add", "tbf", index, "1:", rate=shape.rate_bytes, burst=burst, limit=limit)

    # ---- partitions -----------------------------------------------------------------------------

    def partition(self, parts: Iterable[Iterable[str]]) -> None:
        """Nodes reach only those of their own part; those that are in none are one more."""
        self._parts = {name: part for part, names in enumerate(parts) for name in names}
        for switch in self._switches:
            for name in switch.members:
                port = self._nodes[name].ports[switch.number][1]
                self._hub.link("set", index=port, master=self._bridge(switch, name))


def _serve(wiring: Wiring, command: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
    match command:
        case {"do": "node", "name": name, "address": address}:
            return {}, [wiring.add_node(name, address)]
        case {"do": "join", "name": name, "group": group, "address": address}:
            wiring.join(name, group, address, fds.pop())
        case {"do": "forget", "name": name}:
            wiring.forget_node(name)
        case {"do": "switch", "nodes": nodes, "shape": shape}:
            return {"switch": wiring.add_switch(nodes, Shape(**shape))}, []
        case {"do": "shape", "switch": number, "shape": shape}:
            wiring.reshape(number, Shape(**shape))
        case {"do": "partition", "parts": parts}:
            wiring.partition(parts)
        case _:
            raise ValueError(f"no such command: {command!r}")
    return {}, []


def _begin(kind: str) -> tuple[Wiring, list[int]]:
    """And descriptors of the namespaces to enter before a node's: user, and mount if it knows the nodes."""
    if kind != "plain":
        _enter_user_namespace()
    _unshare(CLONE_NEWNET)
    from pyroute2 import IPRoute  # type: ignore[import-untyped]

    wiring = Wiring(IPRoute)
    if kind != "nested":
        return wiring, []
    mount_fd = wiring.have_hosts_file()
    return wiring, [_open_namespace("user"), *([] if mount_fd is None else [mount_fd])]


def main() -> None:
    kind, path = sys.argv[1:]
    sys.path += [place for place in json.loads(path) if place not in sys.path]
    os.closerange(CONTROL_FD + 1, os.sysconf("SC_OPEN_MAX"))
    control = socket.socket(fileno=CONTROL_FD)
    wiring: Wiring | None = None
    while True:
        data, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 4)
        if not data:
            return
        try:
            if wiring is None:
                wiring, handed = _begin(kind)
                answer: dict[str, Any] = {}
            else:
                answer, handed = _serve(wiring, json.loads(data), fds)
        except Exception as error:  # told to the one who asked, whoever it comes from: libc or netlink
            number = getattr(error, "errno", None) or getattr(error, "code", 0)
            answer, handed = {"error": str(error), "errno": number}, []
        socket.send_fds(control, [json.dumps(answer).encode()], handed)


if __name__ == "__main__":
    main()

"""Steps for what a test declared that it needs of the network: ports of the host, and names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_isolate.errors import SpecError
from pytest_isolate.kernel import mounts, network
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.tree import Tree
from pytest_isolate.sandbox.oci.stage import HOSTS_FILE
from pytest_isolate.spec import NATIVE, Network, PrivateNetwork, Spec, TcpPort, UnixPort
from pytest_isolate.syscalls.program import Program
from pytest_isolate.units import quoted

__all__ = [
    "HOSTS",
    "MOST_BYTES",
    "ListenOn",
    "MountHosts",
    "apply",
    "check",
    "describe",
    "hosts_text",
    "listeners",
    "sockets",
]

MOST_BYTES = 2**16  # of a root's own /etc/hosts
HOSTS = "/etc/hosts"
#: Debian's for a machine's own name, which many a server looks up to bind its port.
OWN_ADDRESS = "127.0.1.1"
STANDARD = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


@dataclass(frozen=True, slots=True)
class ListenOn:
    """Sockets that listen for what goes to a port of the host; pytest gets them, one for each address."""

    port: TcpPort
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MountHosts:
    """A file with names of hosts over the root's own."""

    target: str
    text: str


def listeners(spec: Spec, host: Host) -> Iterator[ListenOn]:
    """For the sandbox's own network, when its lo is up."""
    addresses = ("127.0.0.1", "::1") if host.has_ipv6 else ("127.0.0.1",)
    yield from (ListenOn(port, addresses) for port in spec.ports if isinstance(port, TcpPort))


def sockets(spec: Spec, host: Host) -> Iterator[tuple[str, str]]:
    """(source, target) of the Unix sockets of the host. Raises SpecError if one is not there."""
    for port in spec.ports:
        if not isinstance(port, UnixPort):
            continue
        if not host.is_socket(port.path):
            cure = "start its server before the test, or leave it away"
            raise SpecError(f"no Unix socket is at {quoted(port.path)}; {cure}", origin="ports")
        real = os.path.realpath(port.path)
        # Where links lead to; and at the path itself, where a private /tmp or /run lacks the link.
        place = f"{os.path.realpath(os.path.dirname(port.path))}/{os.path.basename(port.path)}"
        yield from ((real, target) for target in dict.fromkeys((real, place)))


def check(spec: Spec) -> None:
    """Raises SpecError for what does not go together, as a hook may ask for it."""
    forwarded = [port for port in spec.ports if isinstance(port, TcpPort)]
    if spec.ports and spec.network is Network.HOST:
        raise SpecError("network=host gives the test all ports of the host; leave ports away", origin="ports")
    if spec.runtime == NATIVE:
        return
    why = f"{spec.runtime} makes the network of its containers itself; say runtime=native"
    if forwarded:
        raise SpecError(f"port {forwarded[0]} cannot be forwarded: {why}", origin="ports")
    if isinstance(spec.network, PrivateNetwork):
        raise SpecError(f"{spec.network.value} is not to be had: {why}", origin="network")


def hosts_text(spec: Spec, tree: Tree) -> str:
    """The root's own file without the names that are declared, and those; and the name of the sandbox."""
    declared = dict(spec.hosts)
    kept = []
    for line in _own_hosts(tree).splitlines():
        words = line.partition("#")[0].split()
        names = [name for name in words[1:] if name.lower() not in declared]
        if len(names) == len(words) - 1 or not words:
            kept.append(line)
        elif names:
            kept.append("\t".join((words[0], *names)))
    text = "".join(f"{line}\n" for line in kept)
    if "localhost" not in text.split():
        text = STANDARD + text
    if spec.hostname.lower() not in {*declared, *text.lower().split()}:
        text += f"{OWN_ADDRESS}\t{spec.hostname}\n"
    return text + "".join(f"{address}\t{name}\n" for name, address in spec.hosts)


def _own_hosts(tree: Tree) -> str:
    path = tree.find(HOSTS)
    if path is None or not os.path.isfile(path):
        return ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MOST_BYTES)
    except PermissionError:
        return ""


def apply(step: ListenOn | MountHosts, program: Program, new_root: str) -> None:
    match step:
        case ListenOn(port, addresses):
            for address in addresses:
                network.listen_on(program, address, port.inside)
        case MountHosts(target, text):
            file = f"/{HOSTS_FILE}"
            mounts.make_directory(program, new_root + os.path.dirname(target))
            mounts.make_file(program, file)
            program.write_file(file, text)
            mounts.make_file(program, new_root + target)
            mounts.bind(program, file, new_root + target)


def describe(step: ListenOn | MountHosts) -> str:
    match step:
        case ListenOn(port, addresses):
            places = " and ".join(f"[{a}]" if ":" in a else a for a in addresses)
            return f"listen on port {port.inside} of {places}, for port {port.host} of the host's 127.0.0.1"
        case MountHosts(target):
            return f"mount a file with names of hosts on {target}"

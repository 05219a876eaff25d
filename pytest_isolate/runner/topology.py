"""What the fixture ``isolated_network`` gives to a test: nodes with networks of their own, joined by links.

All of it is in a user namespace inside the test's own sandbox, so it takes no privileges, is nobody else's
network, and ends with the test. ``sandbox/wiring.py`` builds it.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pytest_isolate.errors import IsolateError, SetupError, SpecError, UnsupportedError
from pytest_isolate.kernel.process import fork
from pytest_isolate.runner.isolation import Isolation
from pytest_isolate.sandbox import wiring
from pytest_isolate.sandbox.aside import Aside
from pytest_isolate.spec import Network
from pytest_isolate.syscalls._native import ffi, lib
from pytest_isolate.units import parse_duration, quoted

__all__ = ["IsolatedNetwork", "Link", "Node", "open_network"]

T = TypeVar("T")
MOST_NODES = 250
KILLED_S = 5.0
NO_QDISC = 2  # ENOENT: the kernel knows no such queueing discipline
RATES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}


@dataclass(frozen=True, slots=True)
class _Place:
    """Namespaces to enter, in this order."""

    user_fd: int
    mount_fd: int  #: -1: the caller's own
    net_fd: int

    def enter(self) -> None:
        """For a process with one thread; there is no way back. The working directory stays."""
        directory = os.getcwd()
        if lib.isolate_enter_node(self.user_fd, self.mount_fd, self.net_fd) != 0:
            raise OSError(ffi.errno, os.strerror(ffi.errno), "enter the node")
        os.chdir(directory)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A machine of the network: a network namespace with ``lo``, and an interface for each link.

    Nodes share everything else with the test: files, processes, environment. In each of them the names of all
    nodes resolve (not in a root without /etc/hosts).
    """

    name: str
    address: str  #: IPv4; the same on all its links
    _place: _Place = field(repr=False)
    _running: list[subprocess.Popen[Any]] = field(repr=False)

    def run(self, args: Sequence[str | os.PathLike[str]], **kwargs: Any) -> subprocess.CompletedProcess[Any]:
        """:func:`subprocess.run` in the node. A program that runs there may use raw sockets, ports below 1024
        and the node's own interfaces."""
        with _may_fork():
            return subprocess.run(
                args, preexec_fn=self._place.enter, check=kwargs.pop("check", False), **kwargs
            )

    def popen(self, args: Sequence[str | os.PathLike[str]], **kwargs: Any) -> subprocess.Popen[Any]:
        """:class:`subprocess.Popen` in the node; what still runs at the end of the test is killed."""
        with _may_fork():
            process = subprocess.Popen(args, preexec_fn=self._place.enter, **kwargs)  # noqa: PLW1509  it is C
        self._running.append(process)
        return process

    def call(self, function: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Call a function in a forked child of the test that is in the node, and return what it returns, or
        raise what it raises: both must be fit for :mod:`pickle`. What it changes in memory stays there.

        There is no ``with node:`` for the test's own process: one with threads, or a sandbox to come back to,
        cannot enter another user namespace (setns(2)).
        """
        reading, writing = os.pipe()
        pid = fork()
        if pid == 0:
            os.close(reading)
            self._answer(writing, function, args, kwargs)
        os.close(writing)
        with open(reading, "rb") as pipe:
            told = pipe.read()
        status = os.waitpid(pid, 0)[1]
        if not told:
            why = (
                f"killed by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else "ended"
            )
            raise RuntimeError(f"the call in node {self.name} {why} before it returned")
        is_raised, value = pickle.loads(told)
        if is_raised:
            raise value
        return value  # type: ignore[no-any-return]

    def _answer(self, writing: int, function: Callable[..., T], args: Any, kwargs: Any) -> NoReturn:
        try:
            self._place.enter()
            answer = _pickled(False, function(*args, **kwargs))
        except BaseException as error:
            answer = _pickled(True, error)
        with contextlib.suppress(OSError), open(writing, "wb") as pipe:  # nobody listens any more
            pipe.write(answer)
        os._exit(0)


def _pickled(is_raised: bool, value: object) -> bytes:
    try:
        data = pickle.dumps((is_raised, value))
        pickle.loads(data)  # exceptions with arguments of their own can be written, and not read
    except Exception as error:
        text = "".join(traceback.format_exception(value)) if isinstance(value, BaseException) else repr(error)
        return pickle.dumps(
            (True, RuntimeError(f"what the call returned or raised cannot be pickled: {text}"))
        )
    return data


@contextlib.contextmanager
def _may_fork() -> Iterator[None]:
    with warnings.catch_warnings():
        # CPython 3.12 warns of forks with threads around; the child enters the node by C code, and execs.
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork")
        yield


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """Nodes that reach each other directly; a cable if they are two, else a switch."""

    nodes: tuple[Node, ...]
    _number: int = field(repr=False)
    _ask: Callable[..., Any] = field(repr=False)

    def change(self, *, latency: str | float = 0, loss: str | float = 0, rate: str | None = None) -> None:
        """From now on packets take this long to cross it, this share of them is lost (``"1%"``), and a node
        sends no more than this (``"10mbit"``); what is not named is as good as it gets."""
        self._ask("shape the link", do="shape", switch=self._number, shape=_shape(latency, loss, rate))


class IsolatedNetwork:
    """Nodes and what joins them. A node reaches those that it has a link with, and no other."""

    def __init__(self, builder: Aside) -> None:
        self._builder = builder
        self._nodes: dict[str, Node] = {}
        self._running: list[subprocess.Popen[Any]] = []
        self._fds: list[int] = []
        _, handed = self._ask("make namespaces in the sandbox", do="begin")
        self._user_fd = handed[0]
        self._mount_fd = handed[1] if len(handed) > 1 else -1

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self._nodes.values())

    def node(self, name: str) -> Node:
        """A new node; its address is 10.77.0.1 for the first, and so on."""
        if not name or not all(part.isalnum() for part in name.split("-")) or not name.isascii():
            raise ValueError(f"node {quoted(name)} is not a name of letters, digits and '-'")
        if name in self._nodes or len(self._nodes) == MOST_NODES:
            why = "there is one of this name" if name in self._nodes else f"{MOST_NODES} are the most"
            raise ValueError(f"no new node {quoted(name)}: {why}")
        address = f"10.77.0.{len(self._nodes) + 1}"
        _, (net_fd,) = self._ask(f"make node {name}", do="node", name=name, address=address)
        place = _Place(self._user_fd, self._mount_fd, net_fd)
        self._nodes[name] = node = Node(name, address, place, self._running)
        return node

    def link(
        self,
        one: Node,
        other: Node,
        *,
        latency: str | float = 0,
        loss: str | float = 0,
        rate: str | None = None,
    ) -> Link:
        """Join two nodes; see :meth:`Link.change`."""
        return self.switch(one, other, latency=latency, loss=loss, rate=rate)

    def switch(
        self, *nodes: Node, latency: str | float = 0, loss: str | float = 0, rate: str | None = None
    ) -> Link:
        """Join any number of nodes; see :meth:`Link.change`."""
        if len(set(nodes)) < 2 or len(set(nodes)) != len(nodes):
            raise ValueError("a link is between two or more different nodes")
        names, shape = self._names(nodes), _shape(latency, loss, rate)
        answer, _ = self._ask("join nodes", do="switch", nodes=names, shape=shape)
        return Link(nodes, answer["switch"], self._ask)

    def partition(self, *groups: Iterable[Node]) -> None:
        """From now on packets between nodes of different groups are lost, without a word to the sender. Nodes
        that are in no group are one more. Replaces an earlier partition."""
        parts = [self._names(group) for group in groups]
        names = [name for part in parts for name in part]
        if len(set(names)) != len(names):
            raise ValueError("a node is in one group of a partition")
        self._ask("partition the network", do="partition", parts=parts)

    def heal(self) -> None:
        """End the partition."""
        self.partition()

    def _names(self, nodes: Iterable[Node]) -> list[str]:
        found = []
        for node in nodes:
            if self._nodes.get(node.name) is not node:
                raise ValueError(f"node {quoted(node.name)} is of another network")
            found.append(node.name)
        return found

    def _ask(self, what: str, **command: object) -> tuple[dict[str, Any], list[int]]:
        try:
            self._builder.tell(command)
        except OSError as error:
            raise SetupError(what, error.errno or 0, f"cannot {what}: its builder has ended") from error
        answer, fds = self._builder.hear()
        self._fds += fds
        if "error" in answer:
            raise _explained(what, answer["errno"], answer["error"], command)
        return answer, fds

    def close(self) -> None:
        """Kill what runs in nodes, and drop it all."""
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        for process in self._running:
            process.wait(KILLED_S)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # what was written last has no reader
                        pipe.close()
        self._builder.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


def _explained(what: str, number: int, text: str, command: dict[str, Any]) -> IsolateError:
    shape = command.get("shape") or {}
    if number == NO_QDISC and any(shape.values()):
        netem = bool(shape["latency_us"] or shape["loss_percent"])
        name, feature = ("sch_netem", "latency and loss") if netem else ("sch_tbf", "a rate")
        return UnsupportedError(
            f"{feature} of a link", f"this kernel has no {name}", f"run as root: modprobe {name}"
        )
    if what.startswith("make namespaces"):
        cure = "see pytest-isolate doctor"
        return UnsupportedError("a network of nodes", f"{text} (user namespaces in a sandbox)", cure)
    return SetupError(what, number, f"cannot {what}: {text}")


def _shape(latency: str | float, loss: str | float, rate: str | None) -> dict[str, float]:
    return {
        "latency_us": round(parse_duration(latency) * 1_000_000),
        "loss_percent": _percent(loss),
        "rate_bytes": _rate_bytes(rate) if rate is not None else 0,
    }


def _percent(loss: str | float) -> float:
    """``"1%"``, or a share as 0.01."""
    try:
        percent = float(loss[:-1]) if isinstance(loss, str) and loss.endswith("%") else float(loss) * 100
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise ValueError(f"loss {quoted(loss)} is not a percentage or a share of 1, as in '1%' or 0.01")
    return percent


def _rate_bytes(rate: str) -> int:
    number = rate.rstrip("abcdefghijklmnopqrstuvwxyz")
    factor = RATES.get(rate[len(number) :])
    try:
        bits = float(number) * (factor or 0)
    except ValueError:
        bits = 0.0
    if not 8000 <= bits < 8 * 2**32:
        raise ValueError(f"rate {quoted(rate)} is not one from 8kbit to 30gbit, as in '10mbit'")
    return int(bits) // 8


@contextlib.contextmanager
def open_network(isolation: Isolation) -> Iterator[IsolatedNetwork]:
    """Raises SpecError or UnsupportedError where there can be none."""
    if not isolation:
        cure = "mark it @pytest.mark.isolated, or run pytest with --isolate-all"
        raise SpecError(
            f"is for isolated tests, and this one is not; {cure}", origin="fixture isolated_network"
        )
    if isolation.spec.network is Network.HOST:
        cure = "leave network=host away"
        raise SpecError(
            f"is for tests with a network of their own; {cure}", origin="fixture isolated_network"
        )
    path = json.dumps([place for place in map(os.path.abspath, sys.path) if os.path.exists(place)])
    builder = Aside(str(Path(wiring.__file__)), "nested", path)
    try:
        network = IsolatedNetwork(builder)
    except BaseException:
        builder.close()
        raise
    try:
        yield network
    finally:
        network.close()

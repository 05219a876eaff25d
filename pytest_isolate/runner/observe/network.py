"""Where in Python the network is used: the kernel tells what was tried (``runner/network_watch.py``), and
cannot tell which line it was. Where it tells nothing, this is all there is.

What processes do that the test forks is seen as well: they share a few pages of memory with it.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from pytest_isolate.kernel.attempts import Act, opened_name, protocol_name
from pytest_isolate.kernel.network import has_local_socket, has_route, known_hosts
from pytest_isolate.kernel.process import Capability, effective_capabilities
from pytest_isolate.runner.network_words import UNIX, describe, is_agent
from pytest_isolate.runner.observe import audit
from pytest_isolate.violation import Violation

__all__ = ["Network"]

SLOTS, SLOT_BYTES = 64, 512
IS_USED = SLOTS * SLOT_BYTES  # where a byte says so
#: Whoever is to share the memory needs it before.
FORKS = ("os.fork", "os.forkpty", "subprocess.Popen")
SLOT = struct.Struct("=IH")  # count, length of the text
#: Found without a look at the address: most of what tests do.
INSIDE = ("127.", "localhost", "::1")
NOWHERE = ("", "0.0.0.0", "::", None, b"")


class Network:
    def __init__(self) -> None:
        self._hears = False
        self._shared: mmap.mmap | None = None  # nearly all tests need none
        self._slots: dict[bytes, int] = {}
        self._pid = 0
        for event in FORKS:
            audit.listen(event, self._before_fork)
        for event, handler in {
            "socket.__new__": self._open,
            "socket.connect": self._connect,
            "socket.sendto": self._send,
            "socket.sendmsg": self._send,
            "socket.getaddrinfo": self._look_up,
            "socket.gethostbyname": self._look_up,
        }.items():
            audit.listen(event, handler)

    def enter(self) -> None:
        """In the process of a test that has a network of its own."""
        self._hears = True

    def begin(self) -> None:
        if self._shared is not None:
            self._shared, self._slots = None, {}

    def _page(self) -> mmap.mmap:
        if self._shared is None:
            self._shared = mmap.mmap(-1, IS_USED + 1)  # shared with forks, and zero
            self._pid = os.getpid()
        return self._shared

    def aside(self) -> Callable[[], None]:
        """The kernel counts these attempts too: they stay."""
        return lambda: None

    def found(self) -> Iterator[Violation]:
        if self._shared is None or not self._shared[IS_USED]:
            return
        page, hosts = self._shared, None
        for at in range(0, IS_USED, SLOT_BYTES):
            count, size = SLOT.unpack_from(page, at)
            start = at + SLOT.size
            try:
                fields = page[start : start + size].decode().split("\0")
                act, protocol, host, port, place = fields
                if not count or not host:
                    continue
                if Act(int(act)) is Act.QUERY:
                    hosts = known_hosts() if hosts is None else hosts
                    is_inside = host in hosts
                elif Act(int(act)) is Act.OPEN:
                    is_inside = bool(effective_capabilities() >> Capability.NET_RAW & 1)
                elif protocol == UNIX:
                    is_inside = has_local_socket(host)
                else:
                    is_inside = has_route(host)
                if not is_inside:
                    yield describe(Act(int(act)), protocol, host, int(port), place, count)
            except ValueError:
                continue  # never used, or two forks have written it at the same time

    # ---- the events -------------------------------------------------------------------------------

    def _before_fork(self, args: tuple[Any, ...]) -> None:
        if self._hears:
            self._page()

    def _open(self, args: tuple[Any, ...]) -> None:
        if self._hears and (name := opened_name(*args[1:])):
            self._keep(Act.OPEN, name, name, 0)

    def _connect(self, args: tuple[Any, ...]) -> None:
        self._reach(Act.CONNECT, *args)

    def _send(self, args: tuple[Any, ...]) -> None:
        self._reach(Act.SEND, *args)

    def _reach(self, act: Act, sock: socket.socket, address: Any = None, *_: object) -> None:
        if not self._hears:
            return
        if isinstance(address, str) and is_agent(address):
            self._keep(act, UNIX, address, 0)
        if not isinstance(address, tuple) or len(address) < 2 or address[0] in NOWHERE:
            return
        host, port = address[:2]
        if not isinstance(host, str) or host.startswith(INSIDE) or not isinstance(port, int):
            return
        try:
            host = socket.inet_ntop(sock.family, socket.inet_pton(sock.family, host.partition("%")[0]))
        except (OSError, ValueError):
            return  # a name, which was looked up, or another family
        self._keep(act, protocol_name(sock.type, sock.proto), host, port)

    def _look_up(self, args: tuple[Any, ...]) -> None:
        host = args[0] if args else None
        if not self._hears or host in NOWHERE or not isinstance(host, str | bytes):
            return
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
        if name.startswith(INSIDE) or _is_number(name):
            return
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            return  # the call fails too
        self._keep(Act.QUERY, "", name.lower().rstrip("."), 0)

    def _keep(self, act: Act, protocol: str, host: str, port: int) -> None:
        page = self._page()
        text = "\0".join((str(act.value), protocol, host, str(port), _place()))
        data = text.encode("utf-8", "replace")[: SLOT_BYTES - SLOT.size]
        at = self._slots.get(data)
        if at is None:
            at = self._free_slot(page)
            if at is None:
                return
            self._slots[data] = at
            page[IS_USED] = 1
            page[at + SLOT.size : at + SLOT.size + len(data)] = data
            SLOT.pack_into(page, at, 0, len(data))
        (count, size) = SLOT.unpack_from(page, at)
        SLOT.pack_into(page, at, min(count + 1, 2**32 - 1), size)

    def _free_slot(self, page: mmap.mmap) -> int | None:
        # Processes look from different places: they write without a lock.
        first = 0 if (pid := os.getpid()) == self._pid else pid * 7
        for n in range(SLOTS):
            at = (first + n) % SLOTS * SLOT_BYTES
            if SLOT.unpack_from(page, at)[1] == 0:
                return at
        return None


def _place() -> str:
    """An event loop has a thread of its own look up names: then it is where the main thread waits for it."""
    if (found := audit.place()) or threading.current_thread() is threading.main_thread():
        return found
    return audit.place(sys._current_frames().get(threading.main_thread().ident or 0))


def _is_number(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False

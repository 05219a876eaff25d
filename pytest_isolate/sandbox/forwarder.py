"""A program: what comes to sockets in sandboxes goes to ports of the host, and back.

    pytest --socket--> this, with listening sockets of sandboxes --tcp--> 127.0.0.1:PORT of the host

A process of its own, because pytest is busy while tests connect. It ends when pytest closes its end of the
socket, by dying too. Nothing here imports the package: it starts in a few milliseconds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import selectors
import socket
import struct
import time
from collections.abc import Callable

__all__ = ["CONTROL_FD", "MESSAGE_BYTES", "main"]

CONTROL_FD = 3
MESSAGE_BYTES = 4096
CHUNK_BYTES = 2**17
#: How long what a test has sent may take to arrive when its sandbox is gone.
PARTING_S = 1.0
HOST_ADDRESSES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
RESET = struct.pack("=ii", 1, 0)  # struct linger: a close is a reset (socket(7))
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Flow:
    """One direction of a connection: at most one chunk is under way, so a slow reader slows the writer."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.waiting = b""
        self.is_at_end = False  # nothing more will come
        self.is_shut = False  # and the other side has been told

    def pump(self) -> None:
        """Once. Raises OSError if the connection is broken."""
        if not self.waiting and not self.is_at_end:
            with contextlib.suppress(BlockingIOError):
                self.waiting = self.source.recv(CHUNK_BYTES)
                self.is_at_end = not self.waiting
        if self.waiting:
            with contextlib.suppress(BlockingIOError):
                self.waiting = self.waiting[self.sink.send(self.waiting) :]
        if self.is_at_end and not self.waiting and not self.is_shut:
            self.is_shut = True
            self.sink.shutdown(socket.SHUT_WR)


class Connection:
    """``client`` is in the sandbox; ``server`` is made here."""

    def __init__(self, forwarder: Forwarder, client: socket.socket, port: int) -> None:
        self._forwarder = forwarder
        self._client = client
        self._port = port
        self._untried = list(HOST_ADDRESSES)
        self._server: socket.socket | None = None
        self._flows: tuple[Flow, Flow] | None = None
        self._next_server()

    def _next_server(self) -> None:
        """Nobody may be listening at 127.0.0.1, but at ::1."""
        self._close_server()
        while self._untried:
            family, address = self._untried.pop(0)
            try:
                self._server = socket.socket(family, socket.SOCK_STREAM)
            except OSError:
                continue  # a machine without IPv6, or out of descriptors
            self._server.setblocking(False)
            failure = self._server.connect_ex((address, self._port))
            if failure in (0, errno.EINPROGRESS):
                self._forwarder.watch(self._server, selectors.EVENT_WRITE, self._connected)
                return
            self._close_server()
        self.reset()

    def _connected(self) -> None:
        assert self._server is not None
        if self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._next_server()
            return
        for end in (self._client, self._server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # who waits for more is the sender
        self._flows = Flow(self._client, self._server), Flow(self._server, self._client)
        self._turn()

    def _turn(self) -> None:
        assert self._flows is not None
        try:
            for flow in self._flows:
                flow.pump()
        except OSError:
            self.reset()
            return
        if all(flow.is_shut for flow in self._flows):
            self.close()
            return
        there, back = self._flows
        for end, of, to in ((there.source, there, back), (back.source, back, there)):
            wanted = selectors.EVENT_READ if not of.is_at_end and not of.waiting else 0
            wanted |= selectors.EVENT_WRITE if to.waiting else 0
            self._forwarder.watch(end, wanted, self._turn)

    def reset(self) -> None:
        """What one side sees when the other is broken, or was never there."""
        for end in (self._client, self._server):
            if end is not None and end.fileno() >= 0:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def close(self) -> None:
        self._close_server()
        self._forwarder.unwatch(self._client)
        self._client.close()
        self._forwarder.forget(self)

    def _close_server(self) -> None:
        if self._server is not None:
            self._forwarder.unwatch(self._server)
            self._server.close()
            self._server = None


class Forwarder:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._watched: dict[socket.socket, int] = {}
        self._listeners: dict[int, list[tuple[socket.socket, int]]] = {}
        self._connections: dict[Connection, int] = {}  # and their sandboxes
        self._partings: dict[int, float] = {}
        self._is_starved = False
        self._is_over = False
        self.watch(control, selectors.EVENT_READ, self._command)

    def run(self) -> None:
        while not self._is_over:
            rest = min(self._partings.values(), default=None)
            timeout = None if rest is None else max(0.0, rest - time.monotonic())
            for key, _ in self._selector.select(timeout):
                if self._watched.get(key.fileobj):  # type: ignore[call-overload]  # else closed by an earlier one
                    key.data()
            self._part()

    def watch(self, source: socket.socket, events: int, callback: Callable[[], None]) -> None:
        if not events:
            self.unwatch(source)
        elif source not in self._watched:
            self._selector.register(source, events, callback)
            self._watched[source] = events
        else:
            self._selector.modify(source, events, callback)
            self._watched[source] = events

    def unwatch(self, source: socket.socket) -> None:
        if self._watched.pop(source, None) is not None:
            self._selector.unregister(source)

    def forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        if self._is_starved:
            self._is_starved = False
            self._watch_listeners()

    def _command(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 64)
        if not data:
            self._is_over = True
            return
        command = json.loads(data)
        sandbox = command["sandbox"]
        if command["do"] == "add":
            listeners = [socket.socket(fileno=fd) for fd in fds]
            self._listeners[sandbox] = [*zip(listeners, command["ports"], strict=True)]
            self._watch_listeners()
        else:
            for listener, _ in self._listeners.pop(sandbox, ()):
                self.unwatch(listener)
                listener.close()
            if sandbox in self._connections.values():
                self._partings[sandbox] = time.monotonic() + PARTING_S

    def _watch_listeners(self) -> None:
        for sandbox, listeners in self._listeners.items():
            for listener, port in listeners:
                listener.setblocking(False)
                self.watch(listener, selectors.EVENT_READ, self._acceptor(sandbox, listener, port))

    def _acceptor(self, sandbox: int, listener: socket.socket, port: int) -> Callable[[], None]:
        return lambda: self._accept(sandbox, listener, port)

    def _accept(self, sandbox: int, listener: socket.socket, port: int) -> None:
        try:
            client, _ = listener.accept()
        except OSError as error:
            if error.errno in NO_DESCRIPTORS:  # until a connection ends
                self._is_starved = True
                for every in self._listeners.values():
                    for waiting, _ in every:
                        self.unwatch(waiting)
            return  # or whoever came has left
        client.setblocking(False)
        connection = Connection(self, client, port)
        if client.fileno() >= 0:
            self._connections[connection] = sandbox

    def _part(self) -> None:
        """From those whose sandboxes are gone, and who have had their time."""
        now = time.monotonic()
        for sandbox, deadline in [*self._partings.items()]:
            mine = [connection for connection, of in self._connections.items() if of == sandbox]
            if not mine or now >= deadline:
                del self._partings[sandbox]
                for connection in mine:
                    connection.reset()


def main() -> None:
    os.closerange(CONTROL_FD + 1, os.sysconf("SC_OPEN_MAX"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.chdir("/")
    Forwarder(socket.socket(fileno=CONTROL_FD)).run()


if __name__ == "__main__":
    main()

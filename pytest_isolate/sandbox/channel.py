"""The two ends of the socket between a child and its parent. A frame is a length and a message.

The length is there so that the parent need not wait for the end of the stream, which comes only after the
kernel has torn down the child's page tables (12 against 22 ms at 660 MB).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

from pytest_isolate.errors import ChannelError
from pytest_isolate.sandbox.messages import Begin, Finish, Message, RunNext, UsageAnswer, decode, encode

__all__ = ["MAX_FRAME_BYTES", "ChildEnd", "ParentEnd", "open_channel"]

LENGTH = struct.Struct("!I")
MAX_FRAME_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 512 * 2**20
CHUNK_BYTES = 256 * 2**10


class ChildEnd:
    """The test's end: blocking, and used by one process only."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._pid = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def claim(self) -> None:
        """From here on only the calling process may send: what a test forks inherits the descriptor."""
        self._pid = os.getpid()

    def is_mine(self) -> bool:
        return os.getpid() == self._pid

    def send(self, message: Message) -> None:
        data = encode(message)
        if len(data) > MAX_FRAME_BYTES:
            raise ChannelError(f"a {type(message).__name__} of {len(data)} bytes is over {MAX_FRAME_BYTES}")
        self._socket.sendall(LENGTH.pack(len(data)) + data)

    def receive(self) -> Message:
        (size,) = LENGTH.unpack(self._read(LENGTH.size))
        return decode(self._read(size))

    def _read(self, size: int) -> bytes:
        data = self._socket.recv(size, socket.MSG_WAITALL)
        if len(data) != size:
            raise ChannelError("pytest closed the channel")
        return data


class ParentEnd:
    """pytest's end: never blocks, never trusts."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._buffer = bytearray()
        self._total = 0
        self.closed = False  #: the child's end is closed, by all that had it

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> Iterator[Message]:
        """The messages that are complete by now, as far as :class:`ChannelError` does not end them."""
        while not self.closed and self.fileno() >= 0:  # a message may be what pytest closes it for
            try:
                data = self._socket.recv(CHUNK_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError:  # the child died with our answer unread
                data = b""
            self.closed = not data
            self._buffer += data
            self._total += len(data)
            if self._total > MAX_TOTAL_BYTES:
                raise ChannelError(f"more than {MAX_TOTAL_BYTES} bytes")
            yield from self._messages()

    def _messages(self) -> Iterator[Message]:
        at = 0
        try:
            while len(self._buffer) - at >= LENGTH.size:
                (size,) = LENGTH.unpack_from(self._buffer, at)
                if size > MAX_FRAME_BYTES:
                    raise ChannelError(f"not a message: {bytes(self._buffer[at : at + 80])!r}")
                end = at + LENGTH.size + size
                if len(self._buffer) < end:
                    return
                data = bytes(self._buffer[at + LENGTH.size : end])
                at = end
                yield decode(data)
        finally:
            del self._buffer[:at]

    def renew(self) -> None:
        """Another test: the bound on what it may send is its own."""
        self._total = 0

    def send(self, message: UsageAnswer | Begin | RunNext | Finish) -> None:
        data = encode(message)
        try:
            self._socket.send(LENGTH.pack(len(data)) + data)
        except OSError as error:
            raise ChannelError("the test does not read what it is sent") from error

    def close(self) -> None:
        self._socket.close()


def open_channel() -> tuple[ParentEnd, socket.socket]:
    """The parent's end, and the socket that becomes the :class:`ChildEnd`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return ParentEnd(ours), theirs

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
from pytest_isolate.sandbox.messages import (
    Begin,
    Carried,
    Coverage,
    Finish,
    Message,
    Observed,
    Report,
    RunNext,
    UsageAnswer,
    WarningRecorded,
    decode,
    encode,
)
from pytest_isolate.sandbox.weight import weigh

__all__ = ["MAX_FRAME_BYTES", "ChildEnd", "ParentEnd", "open_channel"]

LENGTH = struct.Struct("!I")
#: Of a frame; but for those that have something to carry, far less.
MAX_FRAME_BYTES = 64 * 2**20
MAX_SMALL_FRAME_BYTES = 2**20
LARGE = tuple(f'["{cls.__name__}"'.encode() for cls in (Report, WarningRecorded, Observed, Coverage, Carried))
LARGE_BYTES = max(map(len, LARGE))
#: Of all that is sent about one test.
MAX_TOTAL_BYTES = 256 * 2**20
#: And of what pytest keeps of that, which may be many times as much.
MAX_OBJECT_BYTES = 192 * 2**20
MAX_TEXT_BYTES = 512 * 2**20
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
        most = MAX_FRAME_BYTES if data.startswith(LARGE) else MAX_SMALL_FRAME_BYTES
        if len(data) > most:
            raise ChannelError(f"a {type(message).__name__} of {len(data)} bytes is over {most}")
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
        self.total_bytes = 0  #: that the child has sent
        self._objects = self._text = 0
        self.closed = False  #: the child's end is closed, by all that had it

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def is_amid(self) -> bool:
        """Part of a message has come."""
        return bool(self._buffer)

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
            self.total_bytes += len(data)
            if self.total_bytes > MAX_TOTAL_BYTES:
                raise ChannelError(f"more than {MAX_TOTAL_BYTES} bytes")
            yield from self._messages()

    def _messages(self) -> Iterator[Message]:
        at = 0
        try:
            while len(self._buffer) - at >= LENGTH.size:
                (size,) = LENGTH.unpack_from(self._buffer, at)
                begin = at + LENGTH.size
                end = begin + size
                if size > MAX_SMALL_FRAME_BYTES and (size > MAX_FRAME_BYTES or not self._may_be_large(begin)):
                    head = bytes(self._buffer[at : at + 80])
                    raise ChannelError(f"not a message, or too large with {size} bytes: {head!r}")
                if len(self._buffer) < end:
                    return
                data = bytes(self._buffer[begin:end])
                at = end
                self._pay(data)
                yield decode(data)
        finally:
            del self._buffer[:at]

    def _pay(self, data: bytes) -> None:
        objects, text = weigh(data)
        self._objects += objects
        self._text += text
        if self._objects > MAX_OBJECT_BYTES or self._text > MAX_TEXT_BYTES:
            what = "values" if self._objects > MAX_OBJECT_BYTES else "text"
            raise ChannelError(f"more {what} than pytest has memory for: {data[:80]!r}")

    def _may_be_large(self, begin: int) -> bool:
        """Of a frame, as far as it is there."""
        head = bytes(self._buffer[begin : begin + LARGE_BYTES])
        return head.startswith(LARGE) or len(head) < LARGE_BYTES

    def renew(self) -> None:
        """Another test: the bounds on what it may send are its own."""
        self.total_bytes = self._objects = self._text = 0

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

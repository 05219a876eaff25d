"""What the supervisor tells of attempts is partly what a test has made up."""

from __future__ import annotations

import random
import socket
import struct

import pytest

from pytest_isolate.kernel.attempts import ATTEMPT, Act, Attempt, query_name
from pytest_isolate.kernel.network import has_route

HEADER = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0)


def query(*labels: bytes) -> bytes:
    return HEADER + b"".join(bytes([len(label)]) + label for label in labels) + b"\0" + b"\0\1\0\1"


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (query(b"www", b"Example", b"com"), "www.example.com"),
        (query(b"_srv", b"a-b"), "_srv.a-b"),
        (query(), "."),
        (query(b"\x1b[31m", b"a.b", b"\xff"), r"\027\09131m.a\046b.\255"),
        (query(b"x" * 63), "x" * 63),
        (HEADER + b"\x40" + b"x" * 64 + b"\0", None),  # no label is that long
        (HEADER + b"\xc0\x0c", None),  # a pointer to itself
        (HEADER + b"\x03ww", None),  # cut off
        (HEADER + b"\x03www", None),
        (HEADER + b"\x01a" * 300, None),
        (HEADER, None),
        (b"", None),
    ],
)
def test_query_name(payload: bytes, name: str | None) -> None:
    assert query_name(payload) == name


def test_query_name_of_noise() -> None:
    noise = random.Random(1)
    for _ in range(2000):
        name = query_name(HEADER + noise.randbytes(noise.randrange(300)))
        assert name is None or (name.isascii() and name.isprintable())


def frame(address: bytes, payload: bytes = b"", command: bytes = b"", act: Act = Act.CONNECT) -> bytes:
    sizes = (len(address), len(payload), len(command))
    return ATTEMPT.pack(1000, 7, act.value, socket.SOCK_STREAM, 6, *sizes) + address + payload + command


def test_unpack() -> None:
    four = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 443) + bytes([192, 0, 2, 1]) + bytes(8)
    six = (
        struct.pack("=H", socket.AF_INET6)
        + struct.pack("!HI", 53, 0)
        + socket.inet_pton(socket.AF_INET6, "::2")
    )
    for address, host, port in ((four, "192.0.2.1", 443), (six + bytes(4), "::2", 53)):
        attempt = Attempt.unpack(3, 0, frame(address, query(b"a"), b"curl\0x\0"))
        assert (attempt.host, attempt.port, attempt.protocol, attempt.name) == (host, port, "tcp", "a")
        assert (attempt.pid, attempt.inner_pid, attempt.command) == (1000, 7, b"curl\0x\0")


@pytest.mark.parametrize(
    "address", [b"", b"\2", b"\2\0", b"\2\0\0", b"\x0a\0\0", b"\xff\xff", b"\1\0\xff\0x"]
)
def test_unpack_of_what_is_no_address(address: bytes) -> None:
    assert Attempt.unpack(3, 0, frame(address)).port == 0


def test_has_route() -> None:
    assert has_route("127.0.0.1")
    assert not has_route("no address")

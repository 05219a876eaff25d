"""What comes over the channel from a process that nobody trusts: bounds, and what is no message."""

from __future__ import annotations

import json
import struct
import time
import timeit
from collections.abc import Iterator

import pytest

from pytest_isolate.errors import ChannelError
from pytest_isolate.sandbox import channel, weight
from pytest_isolate.sandbox.channel import ChildEnd, ParentEnd
from pytest_isolate.sandbox.loop import Loop
from pytest_isolate.sandbox.messages import (
    Carried,
    End,
    InternalFailure,
    Message,
    Observed,
    Report,
    decode,
    encode,
)
from pytest_isolate.sandbox.moments import ON_ITS_WAY_S, Moments
from pytest_isolate.sandbox.weight import weigh

MIB = 2**20


@pytest.mark.parametrize(
    "said",
    [
        ["End", float("nan"), []],
        ["End", float("inf"), []],
        ["Paused", float("-inf"), []],
        ["Entered", {}, float("nan")],
        ["ExitRequested", "x", 10**30],
        ["Interrupted", "x", "f", 10**30],
        ["Report", {}, False, 10**50],
        ["Observed", [], 10**40, {}, {}],
        ["Report", [], False, 0],
        ["Report", {}, 0, 0],
        ["Report", {}, False, True],
        ["End", 1, []],
        ["End", 1.0],
        ["Nobody", 1.0],
        [["End"], 1.0, []],
        {"End": 1.0},
        [],
        None,
    ],
)
def test_no_messages(said: object) -> None:
    with pytest.raises(ChannelError):
        decode(json.dumps(said).encode())


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[" * 10**5, b'["End", 1e999, []]', b'["End", ' + b"9" * 5000]
)
def test_no_json(data: bytes) -> None:
    with pytest.raises(ChannelError):
        decode(data)


@pytest.mark.parametrize(("opening", "closing"), ["[]", ('{"a":', "}")])
def test_values_in_each_other(opening: str, closing: str) -> None:
    """xdist, for one, would send them on by a function that calls itself."""

    def said(depth: int) -> bytes:
        text = opening * depth + '"[[[[{"' + closing * depth
        return f'["Carried", "x", {{"a": [{text}{", [1]" * 1000}]}}]'.encode()

    assert weigh(said(100))[0] > 0
    with pytest.raises(ChannelError, match="in each other"):
        weigh(said(300))


# ---- bounds -----------------------------------------------------------------------------------------


@pytest.fixture
def ends() -> Iterator[tuple[ParentEnd, ChildEnd]]:
    ours, theirs = channel.open_channel()
    theirs.setblocking(False)  # what a test sends here fits into the socket
    with theirs:
        yield ours, ChildEnd(theirs)
    ours.close()


def hear(parent: ParentEnd, data: bytes, size: int | None = None) -> list[Message]:
    """As it would be after a read of the socket."""
    parent._buffer += struct.pack("!I", len(data) if size is None else size) + data
    return [*parent._messages()]


def test_only_who_has_something_to_carry_may_be_large(ends: tuple[ParentEnd, ChildEnd]) -> None:
    parent, child = ends
    text = "x" * (2 * MIB)
    with pytest.raises(ChannelError, match=r"InternalFailure of \d+ bytes is over"):
        child.send(InternalFailure(text))
    with pytest.raises(ChannelError, match="not a message"):
        hear(parent, encode(InternalFailure(text)))
    for large in (Report({"longrepr": text}, False, 0), Carried("benchmark", {"durations": text})):
        fresh, theirs = channel.open_channel()
        with theirs:
            assert hear(fresh, encode(large)) == [large]
        fresh.close()


def test_what_is_too_large_is_known_from_its_beginning(ends: tuple[ParentEnd, ChildEnd]) -> None:
    parent, _ = ends
    assert hear(parent, b"", size=2 * MIB) == []  # it may be a report
    parent._buffer += b'["End", 1.0, [1.0, 2.0'
    with pytest.raises(ChannelError, match="not a message"):
        [*parent._messages()]


@pytest.mark.parametrize("times", [1, 30])
def test_values_are_bounded_by_what_they_take(ends: tuple[ParentEnd, ChildEnd], times: int) -> None:
    parent, _ = ends
    empty = b'["Carried", "none", {"a": [' + b"[]," * (1_260_000 // times) + b"[]]}]"
    started = time.process_time()
    for _ in range(times - 1):
        hear(parent, empty)
    with pytest.raises(ChannelError, match="more values than pytest has memory for"):
        hear(parent, empty)
    assert time.process_time() - started < 5


def test_a_long_output_is_no_multitude_of_values(ends: tuple[ParentEnd, ChildEnd]) -> None:
    parent, _ = ends
    text = '[{"a", \\ [1, 2]}], ' * 10**5
    objects, _ = weigh(encode(Report({"sections": [["Captured stdout call", text]]}, False, 0)))
    assert objects < 2000
    (report,) = hear(parent, encode(Report({"sections": [["Captured stdout call", text]]}, False, 0)))
    assert isinstance(report, Report)
    assert report.data["sections"][0][1] == text


def test_strings_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight, "MOST_STRINGS", 1000)
    assert weigh(b"[" + b'"x",' * 900 + b'""]')[0] < 10**6
    with pytest.raises(ChannelError, match="more than 1000 strings"):
        weigh(b"[" + b'"",' * 2000 + b'""]')


@pytest.mark.parametrize(("text", "width"), [("plain", 1), ("\u20ac", 2), ("\N{PILE OF POO}", 4)])
def test_text_is_as_wide_as_its_widest_character(text: str, width: int) -> None:
    data = encode(InternalFailure(text))
    assert weigh(data)[1] == width * len(data)
    assert weigh(data.replace(b"\\ud", b"\\uD"))[1] == width * len(data)


def test_text_is_bounded_too(ends: tuple[ParentEnd, ChildEnd], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MAX_TEXT_BYTES", 1000)
    parent, _ = ends
    message = Report({"longrepr": "x" * 400}, False, 0)
    hear(parent, encode(message))
    parent.renew()
    hear(parent, encode(message))
    hear(parent, encode(message))
    with pytest.raises(ChannelError, match="more text than pytest has memory for"):
        hear(parent, encode(message))


def test_an_ordinary_message_costs_nothing_to_speak_of() -> None:
    message = encode(Observed([{"kind": "files", "what": "x" * 400}] * 100, 100, {}, {}))
    durations_s = timeit.repeat(lambda: weigh(message), number=5, repeat=20, timer=time.thread_time)
    assert min(durations_s) / 5 < 0.005  # by the least of many: others use the processor too


# ---- times ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [float("nan"), float("inf")])
def test_no_moments(at: float) -> None:
    with pytest.raises(ChannelError, match="no time"):
        Moments(forked=1.0).hear([at])


def test_an_end_is_not_before_it_can_have_been_told() -> None:
    now = time.monotonic()
    moments = Moments(forked=now - 10)
    assert moments.hear_end(now - 0.01, [], quiet_s=now) == now - 0.01  # on its way
    assert moments.hear_end(now - 2, [], quiet_s=now - 5) == now - 2  # pytest was busy
    assert moments.hear_end(1.0, [], quiet_s=now) == moments.received
    assert moments.hear_end(now - 2 * ON_ITS_WAY_S, [], quiet_s=now) == moments.received
    assert moments.received is not None
    assert moments.hear_end(1e12, [], quiet_s=now) <= time.monotonic()


def test_the_loop_knows_since_when_something_may_have_been_there() -> None:
    loop = Loop()
    ours, theirs = channel.open_channel()
    with theirs:
        child, seen = ChildEnd(theirs), []
        loop.watch(ours, lambda: seen.append((loop.quiet_s, [*ours.receive()])))
        loop.run_once(wait=False)
        before = time.monotonic()
        time.sleep(0.02)  # busy
        child.send(End(1.0, []))
        loop.run_once()
        loop.call_later(0.02, lambda: child.send(End(2.0, [])))
        loop.run_once()
        loop.run_once()
    (busy, first), (_, second) = seen
    assert busy <= before
    assert [*first, *second] == [End(1.0, []), End(2.0, [])]
    loop.unwatch(ours)
    ours.close()

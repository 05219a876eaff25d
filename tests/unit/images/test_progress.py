"""What people see of a pull."""

from __future__ import annotations

import io

import pytest

from pytest_isolate.sandbox.images import progress
from pytest_isolate.sandbox.images.blobs import Blobs
from pytest_isolate.sandbox.images.manifest import Descriptor
from pytest_isolate.sandbox.images.progress import ProgressLine
from pytest_isolate.sandbox.images.reference import parse_reference
from pytest_isolate.sandbox.images.registry import pull

from ...fake_registry import FakeRegistry, Reply
from .pulling import AMD64, large

BLOBS = [Descriptor("layer", "sha256:a", 3 * 2**20), Descriptor("layer", "sha256:b", 2**20)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_live_line_and_keeps_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_REDRAW_S", 0)
    monkeypatch.setenv("COLUMNS", "60")
    out = Terminal()
    with ProgressLine(out, "r.example/a:1") as line:
        line.begin(BLOBS)
        line.start(BLOBS[0], 2**20)
        line.advance("sha256:a", 2**19)
        assert (
            out.getvalue()
            .rpartition("\r\033[K")[2]
            .startswith("r.example/a:1: 0/2 blobs, 1.5 MiB of 4.0 MiB, ")
        )
        line.start(BLOBS[0], 0)
        assert line.line().startswith("r.example/a:1: 0/2 blobs, 0 B of 4.0 MiB, ")
        line.done("sha256:a")
        line.done("sha256:b")
        assert line.line().startswith("r.example/a:1: 2/2 blobs, 4.0 MiB of 4.0 MiB, ")
    shown = out.getvalue().split("\r\033[K")
    assert max(map(len, shown)) < 60
    assert shown[-1].startswith("pulled r.example/a:1: 512.0 KiB in ")
    assert out.getvalue().count("\n") == 1


def test_elsewhere_there_is_one_line_in_all() -> None:
    out = io.StringIO()
    with ProgressLine(out, "a") as line:
        line.begin(BLOBS)
        line.advance("sha256:a", 7)
    assert out.getvalue().startswith("pulled a: 7 B in ")
    assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize(("out", "left"), [(Terminal(), "\r\033[K"), (io.StringIO(), "")])
def test_after_an_error_there_is_no_line(out: io.StringIO, left: str) -> None:
    with pytest.raises(ZeroDivisionError), ProgressLine(out, "a"):
        _ = 1 / 0
    assert out.getvalue() == left


def test_a_pull_tells_of_every_blob(fake: FakeRegistry, blobs: Blobs) -> None:
    """Also of one that is cut, and of those that are there."""
    digest = large(fake.layout)
    fake.once(digest, lambda request: Reply(200, fake.layout.blobs[digest], sent_bytes=100_000))
    line = ProgressLine(io.StringIO(), "a")
    pull(parse_reference(f"{fake.host}/a/b:latest"), blobs, AMD64, progress=line)
    text = line.line()
    assert text.startswith("a: 4/4 blobs, ")
    have, _, size = text.split(", ")[1].partition(" of ")
    assert have == size
    again = ProgressLine(io.StringIO(), "a")
    pull(parse_reference(f"{fake.host}/a/b:latest"), blobs, AMD64, progress=again)
    assert again.line().startswith(f"a: 4/4 blobs, {have} of {size}, 0 B/s")

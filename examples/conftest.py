"""Two fixtures for all examples: one keeps them in their sandboxes, one looks at the host afterwards."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

#: What the examples would leave on this machine if their sandboxes leaked.
TRACE = "pytest-isolate-example"
PLACES = [Path.home() / TRACE, Path("/etc", TRACE), Path("/dev/shm", TRACE), Path(__file__).with_name(TRACE)]


@pytest.fixture(autouse=True)
def only_in_a_sandbox(isolation) -> None:
    """``isolation`` is false in a test that is not isolated."""
    if not isolation:
        pytest.skip("would harm this machine outside a sandbox; use --isolate-all")


@pytest.fixture(scope="module", autouse=True)
def host_is_as_before() -> Iterator[None]:
    """A fixture of higher scope than function is set up and torn down by pytest itself, on the host."""
    hostname = socket.gethostname()
    yield
    assert [place for place in PLACES if place.exists()] == []
    assert socket.gethostname() == hostname
    assert no_process_is_left()


def processes() -> list[str]:
    """Command lines of the processes started by an example, as far as /proc shows them."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_text().replace("\0", " ")
        except OSError:
            continue  # it has just ended
        if TRACE in line:
            lines.append(line)
    return lines


def no_process_is_left() -> bool:
    """Sandboxes are taken down beside the next test, so the last one may need a moment."""
    deadline = time.monotonic() + 5
    while processes() and time.monotonic() < deadline:
        time.sleep(0.01)
    return processes() == []


@pytest.fixture
def trace() -> str:
    return TRACE


@pytest.fixture
def running():
    return processes

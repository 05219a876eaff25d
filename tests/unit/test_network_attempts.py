"""What the kernel has seen of a test's attempts, beside what its own process says of them."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pytest_isolate.evidence import Evidence
from pytest_isolate.kernel.attempts import Act, Attempt
from pytest_isolate.runner.network_watch import violations
from pytest_isolate.sandbox.network_log import Attempts
from pytest_isolate.spec import Bind, Spec, UnixPort
from pytest_isolate.violation import Kind, Violation

OWN = 70
WATCHED = Evidence(network_watch="kernel")
CONNECTED = "connected to 1.2.3.4:80 (tcp)"


def attempt(**changes: Any) -> Attempt:
    fields: dict[str, Any] = {
        "sandbox_id": 1,
        "index": 0,
        "pid": OWN,
        "inner_pid": 2,
        "act": Act.CONNECT,
        "protocol": "tcp",
        "host": "1.2.3.4",
        "port": 80,
        "name": None,
        "command": b"python",
    }
    return Attempt(**(fields | changes))


def found(*told: Violation, count: int = 1, **changes: Any) -> tuple[list[tuple[Kind, str, str, int]], int]:
    attempts = Attempts(own_pid=OWN, counted=((attempt(**changes), count),), more=0)
    merged, tries = violations(attempts, told, WATCHED, Spec())
    assert tries is not None
    return [(each.kind, each.what, each.where, each.count) for each in merged], tries


def said(kind: Kind, what: str = CONNECTED, count: int = 1) -> Violation:
    return Violation(kind=kind, what=what, where="test_it.py:3 (test_it)", count=count)


def test_python_says_where() -> None:
    place = (Kind.NETWORK, CONNECTED, "test_it.py:3 (test_it)", 1)
    assert found(said(Kind.NETWORK)) == ([place], 1)
    rest = (Kind.NETWORK, CONNECTED, "the test's own process", 2)
    assert found(said(Kind.NETWORK), count=3) == ([place, rest], 3)


@pytest.mark.parametrize("kind", [Kind.SECRETS, Kind.THREADS])
def test_a_test_cannot_make_another_kind_of_it(kind: Kind) -> None:
    merged, tries = found(said(kind))
    assert (Kind.NETWORK, CONNECTED, "the test's own process", 1) in merged
    assert tries == 1


def test_a_name_with_the_search_domain_of_the_machine() -> None:
    query: dict[str, Any] = {
        "act": Act.QUERY,
        "protocol": "udp",
        "host": "9.9.9.9",
        "port": 53,
        "name": "db.example.org",
    }
    place = (Kind.NETWORK, "looked up db", "test_it.py:3 (test_it)", 1)
    assert found(said(Kind.NETWORK, "looked up db"), **query) == ([place], 1)
    assert found(said(Kind.SECRETS, "looked up db"), **query)[1] == 1


def test_a_query_that_python_sends_itself() -> None:
    """Which knows no query from another message, as dnspython makes them."""
    query: dict[str, Any] = {
        "act": Act.QUERY,
        "protocol": "udp",
        "host": "9.9.9.9",
        "port": 53,
        "name": "db.test",
    }
    found_here = found(said(Kind.NETWORK, "sent to 9.9.9.9:53 (udp)"), **query)
    assert found_here == ([(Kind.NETWORK, "looked up db.test", "test_it.py:3 (test_it)", 1)], 1)
    elsewhere = found(said(Kind.NETWORK, "sent to 9.9.9.8:53 (udp)"), **query)
    assert elsewhere == ([(Kind.NETWORK, "looked up db.test", "the test's own process", 1)], 1)


def test_python_alone_is_nobody_where_the_kernel_looks() -> None:
    merged, tries = violations(Attempts(OWN, (), 0), [said(Kind.NETWORK)], WATCHED, Spec())
    assert (merged, tries) == ([], 0)


@pytest.mark.parametrize("watch", ["kernel", "python"])
@pytest.mark.parametrize(
    ("given", "is_told"),
    [
        ({"ports": (UnixPort("/run/docker.sock"),)}, False),
        ({"binds": (Bind(source="/x", target="/run/docker.sock"),)}, False),
        ({"binds": (Bind(source="/x", target="/run"),)}, False),
        ({"binds": (Bind(source="/x", target=os.getcwd()),)}, True),
        ({}, True),
    ],
)
def test_a_socket_that_was_asked_for(given: dict[str, Any], is_told: bool, watch: str) -> None:
    """Whoever tells of it. A bind of the directory that pytest runs in accounts for no address."""
    of_kernel = attempt(protocol="unix", host="/run/docker.sock", port=0)
    of_python = said(Kind.SECRETS, "connected to /run/docker.sock"), said(Kind.NETWORK)
    attempts = Attempts(OWN, ((of_kernel, 1),) if watch == "kernel" else (), 0)
    merged, _ = violations(attempts, of_python, Evidence(network_watch=watch), Spec(**given))
    told = {each.what for each in merged}
    assert ("connected to /run/docker.sock" in told) is is_told
    assert (CONNECTED in told) is (watch == "python")

"""What a test that failed is told of connections that nobody took."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_isolate.runner import hints
from pytest_isolate.spec import Network, PrivateNetwork, Spec


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        (
            'psycopg2.OperationalError: connection to server at "localhost" (127.0.0.1), port 5432 failed: '
            "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
            "ports=[5432]",
        ),
        (
            'psycopg.OperationalError: connection to server on socket "/run/postgresql/.s.PGSQL.5432" failed: '
            "Connection refused",
            'ports=["/run/postgresql/.s.PGSQL.5432"]',
        ),
        ("redis: Error 111 connecting to localhost:6379. Connection refused.", "ports=[6379]"),
        ("HTTPConnectionPool(host='localhost', port=8081): [Errno 111] Connection refused", "ports=[8081]"),
        ("s.connect(('::1', 80))\nE  ConnectionRefusedError: [Errno 111] Connection refused", "ports=[80]"),
        (
            "connect ECONNREFUSED 127.0.0.1:27017; connect ECONNREFUSED 127.0.0.1:27018",
            "ports=[27017, 27018]",
        ),
        ("ConnectionRefusedError: [Errno 111] Connection refused", "ports=[PORT]"),
        ("connect to 127.0.0.1:99999: Connection refused", "ports=[PORT]"),
        ("urllib: http://127.0.0.1:" + "1" * 9 + ": connection refused", "ports=[PORT]"),
    ],
)
def test_the_port_is_named(text: str, cure: str) -> None:
    assert hints.refused(text, Spec()).endswith(f"declare it with {cure}")
    assert hints.refused(text, replace(Spec(), network=PrivateNetwork())).endswith(cure)
    assert hints.refused(text, replace(Spec(), network=Network.HOST)) == ""


def test_a_runtime_forwards_no_ports() -> None:
    hint = hints.refused("127.0.0.1:80: Connection refused", replace(Spec(), runtime="runc"))
    assert hint.endswith('declare it with network="host"')


def test_other_failures_are_told_nothing() -> None:
    assert hints.refused("assert ('localhost', 80) == ('localhost', 81)", Spec()) == ""

"""The store survives a partition: ``isolated_network`` has three nodes for it, and cuts the cable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import store


@pytest.fixture
def cluster(isolated_network):
    """Three nodes at a switch, with a replica of the store on each."""
    nodes = [isolated_network.node(name) for name in ("anna", "bert", "cleo")]
    isolated_network.switch(*nodes)
    addresses = [f"{node.name}={node.address}" for node in nodes]
    for node in nodes:
        command = [sys.executable, store.__file__, node.name, *addresses]
        server = node.popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout.readline() == "ready\n"
    return nodes


def test_what_one_node_writes_the_others_read(cluster):
    anna, bert, cleo = cluster
    anna.call(store.put, "anna", "colour", "blue")  # names of nodes resolve in nodes
    for node in (anna, bert, cleo):
        assert node.call(store.get, node.address, "colour") == "blue"


def test_a_partition(cluster, isolated_network):
    anna, bert, cleo = cluster
    anna.call(store.put, anna.address, "colour", "blue")

    isolated_network.partition([anna], [bert, cleo])
    with pytest.raises(store.NoMajority, match="anna reaches 1 of 3 nodes"):
        anna.call(store.put, anna.address, "colour", "red")
    bert.call(store.put, bert.address, "colour", "green")  # two of three go on
    assert cleo.call(store.get, cleo.address, "colour") == "green"

    isolated_network.heal()
    assert anna.call(store.get, anna.address, "colour") == "green"

import os
import socket

import pytest


@pytest.mark.isolated
def test_only_loopback():
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


@pytest.mark.isolated
def test_outside_is_unreachable():
    with socket.socket() as client, pytest.raises(OSError, match="Network is unreachable"):
        client.connect(("192.0.2.1", 443))


@pytest.mark.isolated(network="host")
def test_with_the_hosts_network(isolation):
    # All the rest is isolated as usual.
    assert os.listdir("/dev/shm") == []
    assert isolation.spec.network.value == "host"


@pytest.mark.isolated(hosts={"db": "127.0.0.1"})
def test_names():
    with socket.create_server(("db", 0)) as server:
        assert server.getsockname()[0] == "127.0.0.1"


@pytest.mark.isolated(network="private:shop")
def test_private(isolation):
    assert isolation.address in isolation.peers.values()
    assert sorted(name for _, name in socket.if_nameindex()) == ["eth0", "lo"]

"""``network="private:GROUP"``: tests that run at the same time meet each other, and nobody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

TALK = """
import pytest, socket, time

def connect(address, port=8080, patience=60):
    deadline = time.monotonic() + patience
    while True:
        try:
            return socket.create_connection((address, port), timeout=1)
        except OSError:
            assert time.monotonic() < deadline, "nobody is there"
            time.sleep(0.01)
"""


@pytest.mark.vm
def test_two_tests_of_a_group_meet(run: Runner) -> None:
    inner = run(
        TALK
        + """
@pytest.mark.isolated(network="private:shop")
def test_server(isolation):
    assert isolation.address == isolation.peers["test_it.py::test_server"] == "10.78.0.1"
    with socket.create_server(("", 8080)) as server:
        server.settimeout(60)
        connection, (address, _) = server.accept()
        assert address == isolation.peers["test_it.py::test_client"] == "10.78.0.2"
        assert connection.recv(5) == b"hello"

@pytest.mark.isolated(network="private:shop")
def test_client(isolation):
    connect(isolation.peers["test_it.py::test_server"]).sendall(b"hello")
""",
        "--isolate-jobs=2",
    )
    assert inner.outcomes == {"passed": 2}


def test_groups_are_apart_and_the_host_is_out_of_reach(run: Runner) -> None:
    """Both have a server before either looks for the other's."""
    inner = run(
        TALK
        + """
MEMBERS = ("test_it.py::test_one", "test_it.py::test_two")

def meet(tmp_path_factory, mine):
    place = tmp_path_factory.getbasetemp()
    (place / mine).touch()
    deadline = time.monotonic() + 60
    while not all((place / name).exists() for name in ("one", "two")):
        assert time.monotonic() < deadline
        time.sleep(0.01)

def unreachable(address):
    with socket.socket() as client:
        client.settimeout(0.3)
        try:
            client.connect((address, 8080))
        except OSError:
            return True
        return False

@pytest.mark.isolated(network="private:a")
def test_one(isolation, tmp_path_factory):
    assert [*isolation.peers.values()] == [isolation.address] == ["10.78.0.1"]
    with socket.create_server(("", 8080)):
        meet(tmp_path_factory, "one")
        assert unreachable("10.78.0.2")
        assert not unreachable("10.78.0.1")
        (tmp_path_factory.getbasetemp() / "done").touch()
    with pytest.raises(OSError, match="Network is unreachable"):
        socket.create_connection(("192.0.2.1", 80))
    assert sorted(name for _, name in socket.if_nameindex()) == ["eth0", "lo"]

@pytest.mark.isolated(network="private:b")
def test_two(tmp_path_factory):
    with socket.create_server(("", 8080)):
        meet(tmp_path_factory, "two")
        deadline = time.monotonic() + 60
        while not (tmp_path_factory.getbasetemp() / "done").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
""",
        "--isolate-jobs=2",
    )
    assert inner.outcomes == {"passed": 2}


def test_datagrams_to_all(run: Runner) -> None:
    """As programs do that look for others of their kind."""
    inner = run(
        """
        import pytest, socket, time

        @pytest.mark.isolated(network="private")
        def test_ear(isolation):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
                ear.bind(("", 8080))
                ear.settimeout(60)
                data, (address, port) = ear.recvfrom(10)
                assert (data, address) == (b"here", isolation.peers["test_datagrams_to_all.py::test_mouth"])
                ear.sendto(b"heard", (address, port))

        @pytest.mark.isolated(network="private")
        def test_mouth():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
                mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                mouth.settimeout(0.1)
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:
                    mouth.sendto(b"here", ("10.78.255.255", 8080))
                    try:
                        assert mouth.recv(10) == b"heard"
                        return
                    except TimeoutError:
                        continue
                raise AssertionError("nobody heard")
        """,
        "--isolate-jobs=2",
        name="test_datagrams_to_all",
    )
    assert inner.outcomes == {"passed": 2}


@pytest.mark.vm
def test_one_after_the_other_in_every_way(run: Runner) -> None:
    """Sandboxes made ahead, held, by a template, of a group of tests, and in a fresh interpreter."""
    inner = run(
        """
        import pytest

        @pytest.mark.parametrize("number", range(12))
        def test_many(isolation, number):
            assert isolation.address == f"10.78.0.{number + 1}"

        @pytest.mark.isolated(scope="class")
        class TestGroup:
            def test_1(self, isolation):
                assert isolation.address == "10.78.0.13"

            def test_2(self, isolation):
                assert isolation.address == "10.78.0.13"
                assert {isolation.peers[f"test_it.py::TestGroup::test_{n}"] for n in (1, 2)} == {"10.78.0.13"}

        @pytest.mark.isolated(start="spawn")
        def test_spawn(isolation):
            assert isolation.address == isolation.peers["test_it.py::test_spawn"] == "10.78.0.15"

        @pytest.mark.isolated(network="none")
        def test_alone(isolation):
            assert isolation.address is None
            assert isolation.peers == {}
        """,
        "--isolate-network=private",
    )
    assert inner.outcomes == {"passed": 16}


def test_ports_of_the_host_are_for_the_loopback_alone(run: Runner) -> None:
    inner = run(
        """
        import pytest, socket

        def test_it(isolation):
            socket.create_connection(("127.0.0.1", 9)).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((isolation.address, 9))
        """,
        "--isolate-network=private",
        "--isolate-ports=9",
    )
    assert inner.outcomes == {"passed": 1}
    assert inner.record("test_it")["declared"] == {"network": "private", "ports": ["9"]}


def test_a_wiring_that_was_killed(run: Runner) -> None:
    inner = run(
        """
        import os, pathlib, pytest, signal

        def test_1(isolation): assert isolation.address == "10.78.0.1"

        @pytest.mark.not_isolated(reason="looks at pytest")
        def test_kill():
            for pid in pathlib.Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
                if "wiring.py" in pathlib.Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(int(pid), signal.SIGKILL)
                    while pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                        pass
                    return
            raise AssertionError("there is none")

        @pytest.mark.isolated(env={"A": "1"})
        def test_2(isolation): assert isolation.address == "10.78.0.3"
        """,
        "--isolate-network=private",
    )
    assert inner.outcomes == {"passed": 3}


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_runtime_makes_its_network_itself(run: Runner, runtime: str) -> None:
    inner = run("def test_it(): pass\n", "--isolate-network=private:g", f"--isolate-runtime={runtime}")
    assert inner.outcomes == {"errors": 1}
    assert f"network: private:g is not to be had: {runtime} makes the network" in inner.out
    assert "say runtime=native" in inner.out

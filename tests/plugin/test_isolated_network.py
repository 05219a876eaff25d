"""The fixture ``isolated_network``: nodes, links and partitions inside a test's own sandbox."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

TALK = """
import os, pytest, socket, subprocess, sys, time

SERVER = '''
import socket
with socket.create_server(("", 80)) as server:
    print("ready", flush=True)
    while True:
        connection, (address, _) = server.accept()
        connection.sendall(address.encode())
        connection.close()
'''

def serve(node):
    server = node.popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\\n"
    return server

def ask(address, timeout=60):
    with socket.create_connection((address, 80), timeout=timeout) as connection:
        return connection.makefile().read()

def is_cut(node, address):
    try:
        node.call(ask, address, timeout=0.3)
    except OSError:
        return True
    return False
"""


@pytest.mark.vm
def test_nodes_reach_those_they_are_joined_with(run: Runner) -> None:
    inner = run(
        TALK
        + """
def test_it(isolated_network):
    a, b, c, d = map(isolated_network.node, "abcd")
    assert [node.address for node in isolated_network.nodes] == [f"10.77.0.{n}" for n in range(1, 5)]
    isolated_network.switch(a, b, c)
    isolated_network.link(c, d)
    serve(b)
    serve(d)
    assert a.call(ask, b.address) == a.address
    assert c.call(ask, "b") == c.address        # names of nodes resolve
    assert b.call(ask, b.address) == b.address  # and a node reaches itself
    assert c.call(ask, d.address) == c.address
    assert is_cut(a, d.address)                 # c forwards nothing
    with pytest.raises(ConnectionRefusedError): # of the test's own network a node sees nothing
        with socket.create_server(("127.0.0.1", 8080)):
            a.call(socket.create_connection, ("127.0.0.1", 8080))
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
"""
    )
    assert inner.outcomes == {"passed": 1}


@pytest.mark.vm
def test_partition_and_heal(run: Runner) -> None:
    inner = run(
        TALK
        + """
def test_it(isolated_network):
    net = isolated_network
    a, b, c = map(net.node, "abc")
    net.switch(a, b, c)
    for node in (a, b, c): serve(node)

    net.partition([a], [b, c])
    assert is_cut(a, b.address) and is_cut(a, c.address) and is_cut(b, a.address)
    assert b.call(ask, c.address) == b.address

    net.partition([a, b])  # replaces it: the rest is one part
    assert a.call(ask, b.address) == a.address
    assert is_cut(c, a.address)

    net.heal()
    for one in (a, b, c):
        for other in (a, b, c):
            assert one.call(ask, other.address) == one.address

    late = net.node("late")
    net.partition([a], [b, c, late])
    net.link(late, a)  # also what is joined while the network is in parts
    assert is_cut(late, a.address)
    net.heal()
    assert late.call(ask, a.address) == late.address
"""
    )
    assert inner.outcomes == {"passed": 1}


def test_programs_of_nodes(run: Runner) -> None:
    inner = run(
        TALK
        + """
def test_run(isolated_network, tmp_path):
    node = isolated_network.node("n1")
    code = "import os, socket; print(os.getcwd(), os.environ['A'], [n for _, n in socket.if_nameindex()])"
    done = node.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "A": "1"})
    assert (done.returncode, done.stdout) == (0, f"{tmp_path} 1 ['lo']\\n")
    assert node.run([sys.executable, "-c", "raise SystemExit(3)"]).returncode == 3
    with pytest.raises(subprocess.CalledProcessError):
        node.run([sys.executable, "-c", "raise SystemExit(3)"], check=True)
    with pytest.raises(FileNotFoundError):
        node.run(["/no/such/program"])
    with pytest.raises(subprocess.TimeoutExpired):
        node.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.1)

def test_rights(isolated_network):
    "Raw sockets and low ports in the node; and no right over what is outside of it."
    node = isolated_network.node("n1")
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); socket.create_server(('', 1))"
    assert node.run([sys.executable, "-c", code]).returncode == 0
    code = "import socket; socket.sethostname('other')"
    done = node.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "PermissionError" in done.stderr

def test_call(isolated_network):
    node = isolated_network.node("n1")
    assert node.call(divmod, 7, 2) == (3, 1)
    assert node.call(lambda: os.getpid()) != os.getpid()
    with pytest.raises(ZeroDivisionError):
        node.call(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="cannot be pickled"):
        node.call(lambda: lambda: None)
    with pytest.raises(RuntimeError, match="the call in node n1 ended before it returned"):
        node.call(lambda: os._exit(3))
    with pytest.raises(RuntimeError, match="killed by SIGKILL"):
        node.call(lambda: os.kill(os.getpid(), 9))

def test_wrong(isolated_network):
    net = isolated_network
    a, b = net.node("a"), net.node("b")
    for wrong in ("", "a b", "a\\n", "-x-/", "ä"):
        with pytest.raises(ValueError, match="not a name"):
            net.node(wrong)
    with pytest.raises(ValueError, match="there is one of this name"):
        net.node("a")
    with pytest.raises(ValueError, match="two or more different nodes"):
        net.link(a, a)
    with pytest.raises(ValueError, match="one group of a partition"):
        net.partition([a], [a, b])
    with pytest.raises(ValueError, match="as in '1%'"):
        net.link(a, b, loss="many")
    with pytest.raises(ValueError, match="as in '10mbit'"):
        net.link(a, b, rate="fast")
    with pytest.raises(ValueError, match="as in 10s"):
        net.link(a, b, latency="5 parsecs")
"""
    )
    assert inner.outcomes == {"passed": 4}


def test_nothing_is_left_of_it(run: Runner) -> None:
    """What still runs in nodes is killed, and a test with nodes is as hermetic as one without."""
    inner = run(
        TALK
        + """
@pytest.fixture(autouse=True)
def alone():
    yield
    assert sorted(int(p) for p in os.listdir("/proc") if p.isdigit()) == [1, os.getpid()]

def test_it(alone, isolated_network):
    before = os.listdir("/tmp")
    a, b = map(isolated_network.node, "ab")
    isolated_network.link(a, b)
    serve(a)
    a.popen(["sleep", "600"])
    assert os.listdir("/tmp") == before
""",
        "--isolate-watch=fail",
    )
    assert inner.outcomes == {"passed": 1}
    assert inner.record("test_it")["leaked_processes"] in (0, None)


@pytest.mark.vm
def test_latency_loss_and_rate(run: Runner) -> None:
    """As far as the kernel can; what it cannot is an error that says how to get it, and leaves the rest."""
    inner = run(
        TALK
        + """
from pytest_isolate import UnsupportedError

def shaped(isolated_network, **shape):
    a, b = map(isolated_network.node, "ab")
    link = isolated_network.link(a, b)
    serve(b)
    try:
        isolated_network.link(*map(isolated_network.node, "cd"), **shape)
    except UnsupportedError as error:
        c, d = isolated_network.nodes[2:]
        assert c.call(socket.if_nameindex) == [(1, "lo")]
        isolated_network.link(c, d)
        serve(d)
        assert c.call(ask, d.address) == c.address
        with pytest.raises(UnsupportedError):
            link.change(**shape)
        assert f"run as root: modprobe sch_{'tbf' if 'rate' in shape else 'netem'}" in str(error)
        assert a.call(ask, b.address) == a.address
        pytest.skip("not in this kernel")
    link.change(**shape)
    return a, b, link

def test_latency(isolated_network):
    a, b, link = shaped(isolated_network, latency="200ms")
    started = time.monotonic()
    a.call(ask, b.address)
    assert time.monotonic() - started > 0.8  # two round trips at least
    link.change()
    assert a.call(ask, b.address) == a.address

def test_loss(isolated_network):
    a, b, link = shaped(isolated_network, loss="100%")
    assert is_cut(a, b.address)
    link.change(loss=0)
    assert a.call(ask, b.address) == a.address

def test_rate(isolated_network):
    a, b, link = shaped(isolated_network, rate="80kbit")
    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(100):
                sender.sendto(bytes(1000), (b.address, 9))
        sent = int(open("/proc/net/dev").read().split("eth0:")[1].split()[8])
        return sent
    assert a.call(send) < 50_000  # of 100,000 bytes at once only what the bucket holds
    link.change(rate="1gbit")
    assert a.call(ask, b.address) == a.address
    link.change()
    assert a.call(ask, b.address) == a.address
"""
    )
    assert inner.outcomes.get("failed", 0) == inner.outcomes.get("errors", 0) == 0
    assert inner.outcomes["passed"] + inner.outcomes.get("skipped", 0) == 3


def test_in_a_fresh_interpreter_a_group_and_side_by_side(run: Runner) -> None:
    inner = run(
        TALK
        + """
def check(net):
    a, b = map(net.node, "ab")
    net.link(a, b)
    serve(b)
    assert a.call(ask, "b") == a.address

@pytest.mark.isolated(start="spawn")
def test_spawn(isolated_network): check(isolated_network)

@pytest.mark.isolated(network="private")
def test_private(isolated_network): check(isolated_network)

@pytest.mark.isolated(scope="class")
class TestGroup:
    def test_1(self, isolated_network): check(isolated_network)
    def test_2(self, isolated_network): check(isolated_network)
""",
        "--isolate-jobs=2",
    )
    assert inner.outcomes == {"passed": 4}


def test_the_example(run: Runner, pytester: pytest.Pytester) -> None:
    """What the page about distributed programs shows."""
    example = Path(__file__).parents[2] / "examples" / "replicated_store"
    shutil.copy(example / "store.py", pytester.path)
    assert run((example / "test_store.py").read_text()).outcomes == {"passed": 2}


def test_where_there_is_none(run: Runner) -> None:
    inner = run(
        """
        import pytest

        @pytest.mark.not_isolated(reason="shows what is said")
        def test_outside(isolated_network): pass

        @pytest.mark.isolated(network="host")
        def test_host(isolated_network): pass
        """
    )
    assert inner.outcomes == {"errors": 2}
    assert "mark it @pytest.mark.isolated, or run pytest with --isolate-all" in inner.out
    assert "is for tests with a network of their own; leave network=host away" in inner.out

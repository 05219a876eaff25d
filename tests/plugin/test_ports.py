"""``ports=``: what of the host's loopback a test finds on its own, and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_isolate.sandbox.ports import Ports

from .conftest import TIME_SCALE, Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]


class Echo:
    """Answers on the host what it is told, and says ``bye`` when it has heard all."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._serve)]
        listener.settimeout(0.05)
        self._threads[0].start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def _serve(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                connection.settimeout(30 * TIME_SCALE)
                thread = threading.Thread(target=self._echo, args=[connection])
                self._threads.append(thread)
                thread.start()

    def _echo(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(2**16):
                connection.sendall(data)
            connection.sendall(b"bye")

    def close(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo(socket.create_server(("127.0.0.1", 0)))
    yield server
    server.close()


CLIENT = """
import pytest, socket, threading

def talk(port, data, host="127.0.0.1"):
    with socket.create_connection((host, port)) as connection:
        def send():
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send)
        sender.start()
        with connection.makefile("rb") as answers:
            answer = answers.read()
        sender.join()
        return answer
"""


@pytest.mark.vm
def test_a_port_of_the_host_and_no_other(run: Runner, echo: Echo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as undeclared:
        inner = run(
            CLIENT
            + f"""
@pytest.mark.isolated(ports=[{echo.port}, "{echo.port}:5432"])
def test_it():
    for port in ({echo.port}, 5432):
        for host in ("127.0.0.1", *(["::1"] if socket.has_dualstack_ipv6() else [])):
            assert talk(port, b"hello", host) == b"hellobye"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", {undeclared.getsockname()[1]}))

@pytest.mark.isolated
def test_another():
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", {echo.port}))
"""
        )
        assert inner.outcomes == {"passed": 2}
        undeclared.setblocking(False)
        with pytest.raises(BlockingIOError):
            undeclared.accept()


def test_what_a_refused_connection_is_told_helps(run: Runner, echo: Echo) -> None:
    source = (
        CLIENT
        + f"""
def test_it():
    assert talk({echo.port}, b"hello") == b"hellobye"
"""
    )
    inner = run(source)
    assert inner.outcomes == {"failed": 1}
    assert f"if the test needs one, declare it with ports=[{echo.port}]" in inner.out
    inner = run(source, f"--isolate-ports={echo.port}")
    assert inner.outcomes == {"passed": 1}


def test_much_and_many_at_once(run: Runner, echo: Echo) -> None:
    """More than all buffers on the way hold, and an end in each direction of its own."""
    inner = run(
        CLIENT
        + f"""
import os

@pytest.mark.isolated(ports={echo.port})
def test_much():
    data = os.urandom(8_000_000)
    assert talk({echo.port}, data) == data + b"bye"

@pytest.mark.isolated(ports={echo.port})
def test_many():
    answers = []
    threads = [threading.Thread(target=lambda i=i: answers.append(talk({echo.port}, b"%d" % i))) for i in range(60)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert sorted(answers) == sorted(b"%dbye" % i for i in range(60))
"""
    )
    assert inner.outcomes == {"passed": 2}


def test_nobody_listens_on_the_host(run: Runner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    inner = run(
        CLIENT
        + f"""
@pytest.mark.isolated(ports={port})
def test_it():
    with socket.create_connection(("127.0.0.1", {port})) as connection:
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
"""
    )
    assert inner.outcomes == {"passed": 1}


def test_a_server_that_breaks_off(run: Runner) -> None:
    """With a reset, as it does that dies with something unread; and what the test sent before it died arrives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        heard: list[bytes] = []

        def serve() -> None:
            connection, _ = listener.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as stream:
                heard.append(stream.read())

        server = threading.Thread(target=serve)
        server.start()
        port = listener.getsockname()[1]
        inner = run(
            f"""
            import os, pytest, socket

            @pytest.mark.isolated(ports={port})
            def test_reset():
                with socket.create_connection(("127.0.0.1", {port})) as connection:
                    with pytest.raises(ConnectionResetError):
                        connection.recv(1)

            @pytest.mark.isolated(ports={port})
            def test_dies():
                socket.create_connection(("127.0.0.1", {port})).sendall(b"last words")
                os._exit(3)
            """
        )
        server.join()
    assert inner.outcomes == {"passed": 1, "failed": 1}
    assert heard == [b"last words"]


def test_a_server_at_the_other_loopback_address(run: Runner) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    server = Echo(socket.create_server(("::1", 0), family=socket.AF_INET6))
    inner = run(
        CLIENT + f"def test_it(): assert talk({server.port}, b'') == b'bye'", f"--isolate-ports={server.port}"
    )
    server.close()
    assert inner.outcomes == {"passed": 1}


@pytest.mark.vm
def test_unix_sockets(run: Runner, tmp_path: Path) -> None:
    """By the path of the socket and by that of a link to it; in a private /tmp as in other places."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o777)
        server = Echo(listener)
        link = Path(f"/tmp/pytest-isolate-{os.getpid()}")
        link.symlink_to(path)
        try:
            inner = run(
                f"""
                import socket

                def test_it():
                    for path in ({str(path)!r}, {str(link)!r}):
                        with socket.socket(socket.AF_UNIX) as connection:
                            connection.connect(path)
                            connection.shutdown(socket.SHUT_WR)
                            assert connection.recv(10) == b"bye"
                """,
                f"--isolate-ports={path}",
                f"--isolate-ports={link}",
            )
        finally:
            link.unlink()
            server.close()
    assert inner.outcomes == {"passed": 1}


def test_a_declared_socket_of_a_daemon_is_counted(run: Runner) -> None:
    """And is no violation. A bind that only reads lets the test command the daemon as well."""
    with (
        tempfile.TemporaryDirectory() as directory,  # a short name: unix(7)
        socket.socket(socket.AF_UNIX) as listener,
    ):
        path = Path(directory, "docker.sock")
        listener.bind(str(path))
        listener.listen()
        inner = run(
            f"""
            import pathlib, socket, pytest

            @pytest.mark.isolated(ports=[{str(path)!r}])
            def test_port():
                socket.socket(socket.AF_UNIX).connect({str(path)!r})

            @pytest.mark.isolated(binds={{{str(path)!r}: "/srv/docker.sock:ro"}})
            def test_bind():
                socket.socket(socket.AF_UNIX).connect("/srv/docker.sock")
            """,
            "--isolate-strict",
        )
    assert inner.outcomes == {"passed": 2}, inner.out
    assert inner.record("test_port")["escapes"] == [f'ports="{path}"']
    (of_bind,) = inner.record("test_bind")["escapes"]
    assert of_bind == f'binds="{path}:/srv/docker.sock:ro": a socket leads to whoever listens there'


def test_a_unix_socket_that_is_not_there(run: Runner, tmp_path: Path) -> None:
    inner = run("def test_it(): pass\n", f"--isolate-ports={tmp_path}/none")
    assert inner.outcomes == {"errors": 1}
    assert "ports: no Unix socket is at" in inner.out
    assert "start its server before the test" in inner.out


def test_a_network_that_has_all_ports(run: Runner) -> None:
    inner = run("def test_it(): pass\n", "--isolate-ports=80", "--isolate-network=host")
    assert inner.outcomes == {"errors": 1}
    assert "gives the test all ports of the host; leave ports away, or say network=none" in inner.out


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_runtime_makes_its_network_itself(run: Runner, runtime: str) -> None:
    inner = run("def test_it(): pass\n", "--isolate-ports=80", f"--isolate-runtime={runtime}")
    assert inner.outcomes == {"errors": 1}
    assert "ports: port 80 cannot be forwarded" in inner.out
    assert "say runtime=native" in inner.out


def test_in_a_fresh_interpreter_and_in_a_group(run: Runner, echo: Echo) -> None:
    inner = run(
        CLIENT
        + f"""
@pytest.mark.isolated(start="spawn")
def test_spawn():
    assert talk({echo.port}, b"") == b"bye"

@pytest.mark.isolated(scope="class")
class TestGroup:
    def test_1(self): assert talk({echo.port}, b"") == b"bye"
    def test_2(self): assert talk({echo.port}, b"") == b"bye"
""",
        f"--isolate-ports={echo.port}",
    )
    assert inner.outcomes == {"passed": 3}


FORWARDER = """
import os, signal, pathlib, pytest

def forwarders():
    found = []
    for pid in pathlib.Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        if "forwarder.py" in pathlib.Path(f"/proc/{pid}/cmdline").read_text():
            found.append(int(pid))
    return found
"""


def test_a_forwarder_that_was_killed(run: Runner, echo: Echo) -> None:
    inner = run(
        FORWARDER
        + CLIENT
        + f"""
@pytest.mark.isolated(ports={echo.port})
def test_1(): assert talk({echo.port}, b"") == b"bye"

@pytest.mark.not_isolated(reason="looks at pytest")
def test_kill():
    (pid,) = forwarders()
    os.kill(pid, signal.SIGKILL)
    while forwarders() and pathlib.Path(f"/proc/{{pid}}/stat").read_text().split()[2] != "Z":
        pass

@pytest.mark.isolated(ports={echo.port}, env={{"A": "1"}})
def test_2(): assert talk({echo.port}, b"") == b"bye"
"""
    )
    assert inner.outcomes == {"passed": 3}


def test_nothing_without_ports(run: Runner) -> None:
    inner = run(
        FORWARDER
        + """
def test_1(): pass

@pytest.mark.not_isolated(reason="looks at pytest")
def test_2(): assert forwarders() == []
"""
    )
    assert inner.outcomes == {"passed": 2}


def test_the_forwarder_ends_with_pytest(pytester: pytest.Pytester, echo: Echo) -> None:
    pytester.makepyfile(
        f"""
        import pathlib, time, pytest

        @pytest.mark.isolated(ports={echo.port})
        def test_it(tmp_path):
            (tmp_path / "here").touch()
            time.sleep(600)
        """
    )
    base = pytester.path / "base"
    command = [sys.executable, "-m", "pytest", f"--basetemp={base}", "-p", "no:cacheprovider"]
    process = subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60 * TIME_SCALE
    while not [*base.glob("*/here")]:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    forwarder = [c for c in children if "forwarder.py" in Path(f"/proc/{c}/cmdline").read_text()]
    assert len(forwarder) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    while _runs(int(forwarder[0])):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _runs(pid: int) -> bool:
    try:
        return _state(pid) != "Z"
    except OSError:
        return False


MEET = """
import os, pathlib, socket, time

def test_server():
    with socket.create_server(("127.0.0.1", 8080)) as server:
        pathlib.Path("/tmp/name").write_text(__name__)
        here = pathlib.Path("/meet", __name__)
        here.touch()
        deadline = time.monotonic() + 60
        while len(list(here.parent.iterdir())) < 2:
            assert time.monotonic() < deadline, "the other suite never came"
            time.sleep(0.01)
        with socket.create_connection(("127.0.0.1", 8080)):
            server.accept()[0].close()
        assert pathlib.Path("/tmp/name").read_text() == __name__
"""


@pytest.mark.parametrize("way", [("-p", "xdist", "-n", "2"), ("--isolate-jobs", "2")])
def test_two_suites_with_one_port_and_one_file(
    way: tuple[str, ...], run: Runner, pytester: pytest.Pytester, tmp_path: Path
) -> None:
    """Each waits until the other one runs, too: both have port 8080 and /tmp/name at the same time."""
    if "xdist" in way:
        pytest.importorskip("xdist")
    pytester.makepyfile(test_other=MEET)
    tmp_path.chmod(0o777)
    inner = run(MEET, f"--isolate-binds={tmp_path}:/meet", *way)
    assert inner.outcomes == {"passed": 2}


def test_a_forwarder_that_was_killed_with_something_unread() -> None:
    """Then the next message is answered by ECONNRESET, and not by EPIPE."""
    ports = Ports()
    try:
        ports.serve(1, [], [])
        forwarder = ports._forwarder
        assert forwarder is not None
        os.kill(forwarder.pid, signal.SIGSTOP)
        while _state(forwarder.pid) != "T":
            time.sleep(0.001)
        ports.serve(2, [], [])
        os.kill(forwarder.pid, signal.SIGKILL)
        while _runs(forwarder.pid):
            time.sleep(0.001)
        ports.serve(3, [], [])
        assert ports._forwarder is not forwarder
    finally:
        ports.close()

"""The tests of unhermetic.py, mended as the messages of ``--isolate-strict`` propose."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import locale
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path

import pytest

HERE = "127.0.0.1"


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    """Somebody to talk to, in the test's own sandbox: says hello to each who connects."""
    with socket.create_server((HERE, 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(1000):
                            pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


# ---- network ---------------------------------------------------------------------------------------------


def test_phones_home(server: tuple[str, int]) -> None:
    with urllib.request.urlopen(f"http://{HERE}:{server[1]}/version", timeout=5) as answer:
        assert answer.read() == b"hello"


def test_phones_home_in_a_subprocess(server: tuple[str, int]) -> None:
    code = f"import socket; socket.create_connection({server!r}).close()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.isolated(hosts={"updates.example.invalid": HERE})
def test_asks_for_a_name() -> None:
    assert socket.gethostbyname("updates.example.invalid") == HERE


@pytest.mark.isolated(hosts={"metrics.example.invalid": HERE})
def test_asks_for_a_name_by_a_program_in_c() -> None:
    subprocess.run(["getent", "hosts", "metrics.example.invalid"], check=True)


def test_sends_metrics() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        collector.bind((HERE, 0))
        udp.sendto(b"suite.runs:1|c", collector.getsockname())
        assert collector.recv(100) == b"suite.runs:1|c"


def test_connects_in_a_loop_of_its_own(server: tuple[str, int]) -> None:
    async def main() -> bytes:
        reader, writer = await asyncio.open_connection(*server)
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
        return said

    assert asyncio.run(main()).endswith(b"hello")


def test_connects_in_a_thread(server: tuple[str, int]) -> None:
    thread = threading.Thread(target=lambda: socket.create_connection(server).close())
    thread.start()
    thread.join()


# ---- files -----------------------------------------------------------------------------------------------


def test_writes_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "unhermetic"
    cache.mkdir(parents=True)
    (cache / "state.json").write_text("{}")


@pytest.mark.isolated(writes=["/tmp/unhermetic-fixed"])
def test_uses_a_fixed_name_in_tmp() -> None:
    Path("/tmp/unhermetic-fixed").write_text("mine")
    assert Path("/tmp/unhermetic-fixed").read_text() == "mine"


def test_needs_what_an_earlier_test_left(tmp_path: Path) -> None:
    (tmp_path / "fixed").write_text("mine")
    assert (tmp_path / "fixed").read_text() == "mine"


def test_counts_its_runs_in_a_file_that_the_last_run_left(tmp_path: Path) -> None:
    counter = tmp_path / "unhermetic-runs"
    runs = int(counter.read_text()) if counter.exists() else 0
    counter.write_text(str(runs + 1))


def test_writes_into_the_project(tmp_path: Path) -> None:
    (tmp_path / "report.out").write_text("done")


def test_regenerates_its_data(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"answer": 42}))
    assert json.loads(data.read_text())["answer"] == 42


def test_has_a_program_write_its_log(tmp_path: Path) -> None:
    subprocess.run(["sh", "-c", "echo started >> unhermetic.log"], check=True, cwd=tmp_path)


@pytest.mark.isolated(writes=["~/.unhermeticrc"])
def test_configures_a_tool() -> None:
    (Path.home() / ".unhermeticrc").write_text("verbose = true\n")


# ---- secrets ---------------------------------------------------------------------------------------------


def test_reads_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("machine example.invalid login me password none\n")
    assert (Path.home() / ".netrc").read_text().startswith("machine")


@pytest.mark.isolated(allow=["secrets"])
def test_looks_for_keys() -> None:
    assert not (Path.home() / ".ssh").exists()
    with pytest.raises(FileNotFoundError):
        os.listdir(Path.home() / ".ssh")


def test_has_credentials_of_a_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "credentials").write_text("[default]\n")
    assert Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).read_text()


@pytest.mark.isolated(allow=["secrets"])
def test_talks_to_docker() -> None:
    with socket.socket(socket.AF_UNIX) as docker:
        assert docker.connect_ex("/var/run/docker.sock") != 0


# ---- processes and threads -------------------------------------------------------------------------------


def test_leaves_a_server() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]) as process:
        process.terminate()


def test_leaves_a_daemon(tmp_path: Path) -> None:
    script = "setsid sleep 30 >/dev/null 2>&1 & echo $! > pid"
    subprocess.run(["sh", "-c", script], check=True, cwd=tmp_path)
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.001)


def test_leaves_a_thread() -> None:
    thread = threading.Thread(target=time.sleep, args=(0.01,))
    thread.start()
    thread.join()


def test_leaves_a_pool() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(sum, [1, 2]).result() == 3


# ---- descriptors and shared memory -----------------------------------------------------------------------


def test_leaves_a_file_open() -> None:
    with Path("/etc/hostname").open():
        pass


def test_binds_a_fixed_port() -> None:
    with socket.create_server((HERE, 8080)):
        pass


def test_leaves_shared_memory() -> None:
    block = shared_memory.SharedMemory("unhermetic", create=True, size=64)
    block.close()
    block.unlink()


# ---- environment -----------------------------------------------------------------------------------------


def test_changes_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNHERMETIC_MODE", "test")


def test_changes_the_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")


def test_changes_the_umask() -> None:
    before = os.umask(0o077)
    os.umask(before)


def test_changes_a_signal_handler() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, before)


def test_changes_the_locale() -> None:
    before = locale.setlocale(locale.LC_ALL)
    locale.setlocale(locale.LC_ALL, "C")
    locale.setlocale(locale.LC_ALL, before)

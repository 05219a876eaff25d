"""Ways out of a sandbox: ``escape_suite.py``, run once, whose every attempt is to fail; and what is outside, which
is to be as it was."""

from __future__ import annotations

import ast
import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .. import on_demand
from ..conftest import features
from .conftest import TIME_SCALE

SUITE = Path(__file__).with_name("escape_suite.py")
ATTEMPTS = [
    node.name
    for node in ast.parse(SUITE.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]
#: These end with their test.
CHANNEL_BREAKERS = {"test_garbage_for_pytest", "test_forge_the_evidence", "test_forge_an_order_to_pytest"}
KEY = 0x15071A7E
FIRST = "the host's own"
IPC_CREAT, IPC_RMID = 0o1000, 0

pytestmark = pytest.mark.needs("user namespace", "overlay")
libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Tried:
    """How the suite ended, and what is outside before and after it."""

    records: list[dict[str, Any]]
    out: str
    before: dict[str, object]
    after: dict[str, object]


class Outside:
    """Decoys: what an attempt would reach if it worked."""

    def __init__(self, project: Path, hidden: Path) -> None:
        self.project = project
        self.hidden = hidden / "hidden.txt"
        self.hidden.write_text(FIRST)
        for name in ("first", "second", "third"):
            project.joinpath(name).write_text(FIRST)
        self.process = subprocess.Popen(["sleep", "600"])
        self.server = socket.create_server(("127.0.0.1", 0))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.name = f"isolate-{os.getpid()}"
        self.abstract.bind("\0" + self.name)
        self.abstract.listen()
        self.file_socket = socket.socket(socket.AF_UNIX)
        at = os.getcwd()
        os.chdir(project)  # the path of a socket has 108 bytes
        self.file_socket.bind("socket")
        os.chdir(at)
        self.file_socket.listen()
        self.shm = Path("/dev/shm", self.name)
        self.shm.write_text(FIRST)
        self.queue = libc.mq_open(f"/{self.name}".encode(), os.O_RDWR | os.O_CREAT, 0o666, None)
        self.segment = libc.shmget(KEY, 4096, IPC_CREAT | 0o666)
        project.joinpath("outside.json").write_text(json.dumps(self.facts()))

    def facts(self) -> dict[str, Any]:
        return {
            "uid": os.getuid(),
            "file": str(self.project / "first"),
            "hidden": str(self.hidden),
            "disk": os.stat("/").st_dev,
            "pid": self.process.pid,
            "pytest": os.getpid(),
            "port": self.server.getsockname()[1],
            "abstract": self.name,
            "socket": str(self.project / "socket"),
            "shm": self.name,
            "key": KEY,
            "segment": self.segment,
            "has_pids": features()["cgroup pids limit"].available,
        }

    def look(self) -> dict[str, object]:
        """All of it that could change."""
        found: dict[str, object] = {}
        for path in (*sorted(self.project.iterdir()), self.hidden, self.shm):
            if path.is_file() and path.name != "records.jsonl":
                found[str(path)] = (path.read_bytes(), path.stat().st_mode)
        found["hidden directory"] = sorted(os.listdir(self.hidden.parent))
        found["process"] = self.process.poll()
        found["host name"] = socket.gethostname()
        for path in map(Path, ("/dev/null", "/dev/zero", os.path.realpath(sys.executable))):
            status = path.stat()
            found[str(path)] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns)
        found["namespaces"] = [os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")]
        found["core_pattern"] = Path("/proc/sys/kernel/core_pattern").read_text()
        # Nobody has come to these.
        for server in (self.server, self.abstract, self.file_socket):
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for server in (self.server, self.abstract, self.file_socket):
            server.close()
        self.shm.unlink()
        os.close(self.queue)
        libc.mq_unlink(f"/{self.name}".encode())
        libc.shmctl(self.segment, IPC_RMID, None)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    project = tmp_path_factory.mktemp("escapes")
    hidden = tmp_path_factory.mktemp("hidden")
    # Not below pytest's own base directory, which tests are shown.
    hidden = Path(shutil.move(hidden, f"/var/tmp/isolate-hidden-{os.getpid()}"))
    shutil.copy(SUITE, project / "test_escape_suite.py")
    outside = Outside(project, hidden)
    try:
        before = outside.look()
        out = _run(project)
        records = [json.loads(line) for line in (project / "records.jsonl").read_text().splitlines()]
        yield Tried(records, out, before, outside.look())
    finally:
        outside.close()
        shutil.rmtree(hidden)


def _run(project: Path) -> str:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    command = [sys.executable, "-m", "pytest", "--isolate-all", "--isolate-json=records.jsonl"]
    command += ["-p", "no:cacheprovider", "--rootdir", str(project)]
    ran = subprocess.run(
        [*command, "-c", os.devnull, "test_escape_suite.py"],
        cwd=project,
        env={**environ, **on_demand.ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=300 * TIME_SCALE,
        check=False,
        start_new_session=True,  # a signal to the group would end this pytest, too
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr  # for those that break the channel
    return ran.stdout


def _name(record: dict[str, Any]) -> str:
    found: str = record["nodeid"].rpartition("::")[2].partition("[")[0]
    return found


def _not_here() -> set[str]:
    """Ways that this machine does not have."""
    found = set()
    if not features()["cgroup pids limit"].available:
        found.add("test_fork_without_end")
    if os.uname().machine != "x86_64":
        found.add("test_other_doors_to_the_kernel")
    return found


def _check(record: dict[str, Any], out: str) -> None:
    name = _name(record)
    ending = (record["outcome"], record["reason"])
    if name in CHANNEL_BREAKERS:
        assert ending == ("failed", "channel"), out
        assert record["enforced"]["seccomp"] == 2
        assert record["enforced"]["namespaces"]
    elif name in _not_here():
        assert ending == ("skipped", "skipped")
    else:
        assert ending == ("passed", "passed"), out


@pytest.mark.parametrize("name", ATTEMPTS)
def test_the_way_is_closed(tried: Tried, name: str) -> None:
    records = [record for record in tried.records if _name(record) == name]
    assert records
    for record in records:
        _check(record, tried.out)


@pytest.mark.vm
def test_all_ways_are_closed_and_nothing_outside_has_changed(tried: Tried) -> None:
    """As one test, for where a session is dear."""
    assert {_name(record) for record in tried.records} == {*ATTEMPTS}
    for record in tried.records:
        _check(record, tried.out)
    assert tried.after == tried.before


def test_the_decoys_are_in_reach_from_outside(tried: Tried) -> None:
    """Or the attempts would prove nothing."""
    assert tried.before["process"] is None
    assert any(value == (FIRST.encode(), 0o100644) for value in tried.before.values())

"""pytest-xdist: its ways to distribute tests, a worker that dies, and a worker over ssh."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ...on_demand import ALL_OFF
from ..conftest import TIME_SCALE, Both, Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

SUITE = """
    import os, pytest, warnings

    @pytest.fixture(scope="module")
    def shared(worker_id): yield worker_id

    @pytest.mark.xdist_group("a")
    class TestGrouped:
        @pytest.mark.parametrize("i", range(3))
        def test_it(self, i, shared, worker_id, record_property):
            assert shared == worker_id
            record_property("worker", worker_id)

    @pytest.mark.parametrize("i", range(6))
    def test_single(i, tmp_path, shared, request):
        if i == 2: warnings.warn("careful")
        if i == 3: print("said"); assert 0
        if i == 4: pytest.skip("not now")
        (tmp_path / "x").touch()
        request.config.cache.set(f"test/{i}", i)

    def test_subtests(subtests):
        for i in range(3):
            with subtests.test(i=i): assert i != 1
"""


@pytest.mark.parametrize("dist", ["load", "loadscope", "loadfile", "loadgroup", "worksteal"])
def test_distribution(both: Both, dist: str) -> None:
    pytest.importorskip("xdist")
    source = SUITE if pytest.version_tuple >= (9, 0) else SUITE.partition("def test_subtests")[0]
    plain, isolated = both(source, "-n2", f"--dist={dist}", "-p", "cacheprovider")
    assert plain.outcomes == isolated.outcomes
    assert {record["worker"] for record in isolated.records} <= {"gw0", "gw1"}
    # pytest 9.2 has structured ids, into which xdist 3.8 writes its groups in vain, isolated or not.
    if dist == "loadscope" or (dist == "loadgroup" and pytest.version_tuple < (9, 2)):
        grouped = {r["worker"] for r in isolated.records if "TestGrouped" in r["nodeid"]}
        assert len(grouped) == 1


def test_a_test_that_crashes_does_not_take_its_worker_along(run: Runner) -> None:
    pytest.importorskip("xdist")
    inner = run(
        """
        import os, pytest

        @pytest.mark.parametrize("i", range(6))
        def test_it(i):
            if i == 3: os.abort()
        """,
        "-n2",
    )
    assert inner.outcomes == {"passed": 5, "failed": 1}
    assert "killed by SIGABRT" in inner.out
    assert "crashed while running" not in inner.out


def test_a_worker_that_crashes_is_replaced(both: Both, run: Runner) -> None:
    pytest.importorskip("xdist")
    plain, isolated = both(
        """
        import os, pytest

        @pytest.fixture(scope="module")
        def fatal(): os._exit(1)

        def test_before(): pass
        def test_fatal(fatal): pass
        def test_after(): pass
        """,
        "-n2",
    )
    assert plain.outcomes == isolated.outcomes == {"passed": 2, "failed": 1}
    assert "crashed while running" in isolated.out
    run("def test_it(): pass")  # removes the cgroup of a worker that died before it had a supervisor


@pytest.fixture
def sshd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """The command that reaches a server of the test's own on the loopback interface."""
    server = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if server is None or shutil.which("ssh") is None:
        if request.config.getoption("--require-features") == "all":
            pytest.fail("sshd is required here: apt-get install openssh-server")
        pytest.skip("sshd is not installed: apt-get install openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd(8) wants it; Debian's service makes it
    tmp_path.chmod(0o700)
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {tmp_path}/host\nPidFile {tmp_path}/pid\n"
        f"AuthorizedKeysFile {tmp_path}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([server, "-D", "-e", "-f", str(tmp_path / "config")], stderr=log)
    try:
        wait_for_port(port, process, tmp_path / "log")
        yield [
            *("ssh", "-F", "none", "-i", str(tmp_path / "user"), "-p", str(port), "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/known_hosts"),
            f"{getpass.getuser()}@127.0.0.1",
        ]
    finally:
        process.terminate()
        process.wait()


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10 * TIME_SCALE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return


def test_worker_over_ssh(pytester: pytest.Pytester, sshd: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xdist")
    # execnet calls ssh with -C and the words after ``ssh=``, which it splits at blanks.
    address = " ".join(sshd[1:])
    suite = pytester.mkdir("suite")
    (suite / "test_remote.py").write_text(
        "import os, pytest\n\n@pytest.mark.parametrize('i', range(4))\ndef test_it(i, tmp_path):\n"
        "    assert os.getpid() == 2 and 'SSH_CONNECTION' in os.environ\n    if i == 3: os.abort()\n"
    )
    remote = pytester.mkdir("remote")
    records = pytester.path / "records.jsonl"
    result = pytester.runpytest_subprocess(
        "--isolate-all",
        f"--isolate-json={records}",
        "--dist=load",
        f"--tx=ssh={address}//python={sys.executable}//chdir={remote}",
        f"--rsyncdir={suite}",
        *ALL_OFF,  # a variable does not get there
        str(suite),
        timeout=60 * TIME_SCALE,
    )
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"]) == (3, 1)
    found = [json.loads(line) for line in records.read_text().splitlines()]
    assert {record["worker"] for record in found} == {"gw0"}
    assert {record["reason"] for record in found} == {"passed", "signal"}

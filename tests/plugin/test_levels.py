"""--isolate-missing=degrade where nobody gets namespaces: in a container, or where user.max_user_namespaces is 0.

Where that sysctl is 0 (.ci/lanes/vm.sh sets it) it is the reason; elsewhere a filter as Docker's is (docker_like.py).
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_isolate.kernel.landlock import gaps, landlock_abi

from .. import on_demand
from .conftest import TIME_SCALE

NOBODY = 65534
DOCKER_LIKE = pathlib.Path(__file__).with_name("docker_like.py")
FORBIDDEN = pathlib.Path("/proc/sys/user/max_user_namespaces").read_text().strip() == "0"
ABI = max(landlock_abi(), 0)
LEVEL = "landlock" if ABI else "fork"
CONFINED = [*(["files"] if ABI else []), "network", *(["signals"] if ABI >= 6 else [])]
LACK = r"user namespace is not available: .+; .+"
SWITCHES = ("-p", "no:cacheprovider", "--basetemp=base", "-rA", "--isolate-json=records.jsonl")

needs_landlock = pytest.mark.skipif(not ABI, reason="this kernel has no Landlock")


@dataclass
class Ran:
    out: str
    status: int
    records: dict[str, dict[str, Any]]


@dataclass
class Place:
    """A directory of somebody whom nobody gives namespaces."""

    home: pathlib.Path
    uid: int

    def command(
        self, *command: str, docker: bool = not FORBIDDEN, old: bool = False
    ) -> subprocess.CompletedProcess[str]:
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        before = become if self.uid != os.geteuid() else []
        if docker or old:
            before = [sys.executable, str(DOCKER_LIKE), *(["--old"] if old else []), *before]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        return subprocess.run(
            [*before, *command],
            cwd=self.home,
            env={**inherited, **on_demand.ENVIRONMENT, "HOME": str(self.home), "COLUMNS": "1000"},
            capture_output=True,
            text=True,
            timeout=60 * TIME_SCALE,
            check=False,
        )

    def run(self, suite: str, *args: str, missing: str = "degrade", **how: bool) -> Ran:
        (self.home / "test_it.py").write_text(suite)
        records = self.home / "records.jsonl"
        records.unlink(missing_ok=True)
        # It has a socket in every session beside xdist, a fresh interpreter's too.
        options = (
            *SWITCHES,
            "-p",
            "no:rerunfailures",
            "--isolate-all",
            f"--isolate-missing={missing}",
            *args,
        )
        ran = self.command(sys.executable, "-m", "pytest", *options, **how)
        assert ran.stderr == ""
        told = map(json.loads, records.read_text().splitlines())
        return Ran(ran.stdout, ran.returncode, {record["nodeid"].split("::")[1]: record for record in told})


def place_of(uid: int) -> Iterator[Place]:
    if os.geteuid() not in (0, uid):
        pytest.skip(f"takes root to become {uid}")
    with tempfile.TemporaryDirectory() as name:  # not tmp_path: nobody else gets in there
        place = Place(pathlib.Path(name), uid)
        os.chown(name, uid, uid)
        can = (
            "import os, sys, pytest_isolate.syscalls._native; "
            "sys.exit(not (os.access('.', os.W_OK) and os.access(sys.executable, os.X_OK)))"
        )
        tried = place.command(sys.executable, "-c", can)
        if tried.returncode:
            pytest.skip(f"{uid} may not run {sys.executable}, or not in {name}: {tried.stderr}")
        yield place


@pytest.fixture(params=[pytest.param(0, id="root"), pytest.param(NOBODY, id="nobody")])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    yield from place_of(request.param)


@pytest.fixture
def mine() -> Iterator[Place]:
    """For what does not depend on who it is."""
    yield from place_of(os.geteuid())


# -- what it gets ---------------------------------------------------------------------------------------


@pytest.mark.vm
def test_the_record_says_which_level_it_was(place: Place) -> None:
    ran = place.run("def test(isolation): assert isolation.missing")
    assert ran.status == 0
    enforced = ran.records["test"]["enforced"]
    assert (enforced["level"], enforced["confined"], enforced["namespaces"]) == (LEVEL, CONFINED, {})
    assert enforced["landlock"] == (ABI or None)
    assert (enforced["no_new_privs"], enforced["seccomp"]) == (True, 2)
    first, *more = enforced["missing"]
    assert re.fullmatch(LACK, first)
    assert more == [str(error) for error in gaps(ABI)] if ABI else "Landlock is not available" in more[0]
    if place.uid == NOBODY:
        assert int(enforced["capabilities"], 16) == 0
    else:
        assert not int(enforced["capabilities"], 16) >> 21 & 1  # SYS_ADMIN
    assert f"enforced: level {LEVEL}, no namespaces (confined: {' '.join(CONFINED)})" in ran.out
    assert re.search(rf"^degraded: 1 test .*\n +1  {LACK}$", ran.out, re.MULTILINE)


@pytest.mark.vm
@pytest.mark.needs("cgroup memory limit")
def test_a_cgroup_is_joined_without_clone3(mine: Place) -> None:
    """Which enters one of v2 by itself, and is refused in containers. Enough tests for a template, too."""
    suite = """
import pathlib
import pytest

@pytest.mark.isolated(memory="64M")
@pytest.mark.parametrize("n", range(6))
def test(isolation, n):
    own = pathlib.Path("/proc/self/cgroup").read_text()
    assert any(path.endswith(line.split(":")[2]) for path in isolation.cgroup_paths for line in own.split())
"""
    ran = mine.run(suite, docker=True)
    assert ran.status == 0, ran.out
    for record in ran.records.values():
        assert (record["enforced"]["level"], record["enforced"]["namespaces"]) == (LEVEL, {})
        assert str(64 * 2**20) in record["enforced"]["limits"].values()
        assert record["memory_peak_bytes"] > 0


FILES = """
import os, pathlib, subprocess, sys, tempfile
import pytest

OUTSIDE = [pathlib.Path.cwd(), pathlib.Path("/tmp"), pathlib.Path("/var/tmp")]

@pytest.mark.parametrize("outside", OUTSIDE, ids=str)
def test_outside(outside):
    with pytest.raises(PermissionError):
        (outside / "isolate-levels").write_text("left behind")
    with pytest.raises(PermissionError):
        (outside / "isolate-levels").mkdir()
    shell = subprocess.run(["sh", "-c", f"echo > {outside}/isolate-levels"], capture_output=True, text=True)
    assert shell.returncode != 0 and "ermission denied" in shell.stderr

def test_existing():
    for change in (os.unlink, lambda path: open(path, "w"), lambda path: os.rename(path, "other")):
        with pytest.raises(PermissionError):
            change("kept")
    assert open("kept").read() == "kept"

def test_inside(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "file").write_text("new")
    assert subprocess.run(["cp", "file", "a/copy"], cwd=tmp_path).returncode == 0
    with open("/dev/null", "w") as null:
        null.write("nothing")

def test_temporary():
    with tempfile.NamedTemporaryFile() as file:
        assert os.environ["TMPDIR"] in file.name and "/base/" in file.name
        assert os.listdir(os.environ["TMPDIR"]) == [os.path.basename(file.name)]
    program = "import tempfile; print(tempfile.gettempdir())"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout.strip() == os.environ["TMPDIR"]
    tempfile.mkdtemp()  # which nobody removes

def test_another_temporary():
    assert os.listdir(tempfile.gettempdir()) == []

def test_locks_of_multiprocessing():
    import multiprocessing
    assert multiprocessing.Lock().acquire(timeout=10)
"""


@needs_landlock
@pytest.mark.vm
def test_files_are_written_where_they_may_be(place: Place) -> None:
    (place.home / "kept").write_text("kept")
    os.chown(place.home / "kept", place.uid, place.uid)
    ran = place.run(FILES)
    assert ran.status == 0, ran.out
    assert {record["enforced"]["level"] for record in ran.records.values()} == {"landlock"}
    assert (place.home / "kept").read_text() == "kept"
    assert not (place.home / "isolate-levels").exists()
    assert not (place.home / "base" / "isolate-tmp").exists()


SWAP = """
import os, pathlib, pytest

def test_of_a_directory_for_a_link():
    tmp = pathlib.Path(os.environ["TMPDIR"]).parent
    tmp.rename(tmp.with_name("away"))
    tmp.symlink_to(os.environ["VICTIM"])

def test_next():
    pass
"""


@needs_landlock
def test_cleaning_up_is_no_way_to_files_outside(mine: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest itself is not confined, and removes what a test has left."""
    victim = mine.home / "victim"
    (victim / "99999999").mkdir(parents=True)  # as of a process that is over
    monkeypatch.setenv("VICTIM", str(victim))
    ran = mine.run(SWAP)
    assert ran.records["test_of_a_directory_for_a_link"]["outcome"] == "passed"
    assert "test_next" in ran.records  # whose own may have been made before
    assert (victim / "99999999").is_dir()


NETWORK = """
import ctypes, os, socket, subprocess, sys
import pytest

@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET"])
def test_closed(family):
    with pytest.raises(PermissionError):
        socket.socket(getattr(socket, family), socket.SOCK_DGRAM)

def test_closed_to_c():
    assert ctypes.CDLL(None).socket(int(socket.AF_INET), int(socket.SOCK_STREAM), 0) == -1

def test_closed_to_programs():
    program = "import socket; socket.socket()"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "PermissionError" in ran.stderr

def test_names():
    with pytest.raises(OSError):
        socket.getaddrinfo("example.org", 80, type=socket.SOCK_STREAM)

def test_unix(tmp_path):
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))

@pytest.mark.isolated(network="host")
def test_open():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=10).close()
"""


@pytest.mark.vm
def test_the_network_is_closed(place: Place) -> None:
    ran = place.run(NETWORK)
    assert ran.status == 0, ran.out
    opened = ran.records.pop("test_open")["enforced"]
    assert "network" not in opened["confined"]
    assert all("network" in record["enforced"]["confined"] for record in ran.records.values())


OUTSIDERS = """
import ctypes, os, socket
import pytest

PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17

def test_signals():
    with pytest.raises(PermissionError):
        os.kill(os.getppid(), 0)
    os.kill(os.getpid(), 0)

def test_abstract_sockets():
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(PermissionError):
        client.connect("\\0" + os.environ["OUTSIDER"])

def test_tracing():
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    seized = ptrace(PTRACE_SEIZE, os.getppid(), None, None)
    assert seized == -1
"""


@needs_landlock
def test_others_are_out_of_reach(mine: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"isolate-{os.getpid()}"
    monkeypatch.setenv("OUTSIDER", name)
    with socket.socket(socket.AF_UNIX) as outsider:
        outsider.bind(f"\0{name}")
        outsider.listen()
        ran = mine.run(OUTSIDERS, *([] if ABI >= 6 else ["-k", "tracing"]))
    assert ran.status == 0, ran.out


ENDINGS = """
import os, signal, time
import pytest

def test_crash():
    os.kill(os.getpid(), signal.SIGSEGV)

@pytest.mark.isolated(timeout="LIMIT")
def test_timeout():
    time.sleep(1000)

@pytest.mark.isolated(files=40)
def test_files(isolation):
    with pytest.raises(OSError):
        [open("/dev/null") for _ in range(50)]
"""


def test_endings_are_told_as_ever(mine: Place) -> None:
    ran = mine.run(ENDINGS.replace("LIMIT", f"{2 * TIME_SCALE}s"))
    reasons = {name: record["reason"] for name, record in ran.records.items()}
    assert reasons == {"test_crash": "signal", "test_timeout": "timeout", "test_files": "passed"}
    assert ran.records["test_files"]["enforced"]["limits"]["RLIMIT_NOFILE"] == "40"


def test_what_a_stopped_test_has_started_ends_with_it(mine: Place) -> None:
    suite = """
import pathlib, subprocess
import pytest

@pytest.mark.isolated(timeout="LIMIT")
def test(tmp_path):
    program = "sleep 1000 & echo $! $$ > PIDS.part; mv PIDS.part PIDS; wait"
    path = str(tmp_path.parent / "pids")
    subprocess.run(["sh", "-c", program.replace("PIDS", path)])
"""
    ran = mine.run(suite.replace("LIMIT", f"{3 * TIME_SCALE}s"))
    assert ran.records["test"]["reason"] == "timeout"
    pids = (mine.home / "base" / "pids").read_text().split()
    assert len(pids) == 2
    deadline = time.monotonic() + 20 * TIME_SCALE
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(is_running(pid) for pid in pids)


def is_running(pid: str) -> bool:
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"  # nobody's business but init's


@pytest.mark.parametrize(
    "options",
    [("--isolate-start=spawn",), ("--isolate-scope=module",), ("--isolate-jobs=2",)],
    ids=lambda options: options[0],
)
def test_it_is_the_same_however_a_test_starts(mine: Place, options: tuple[str, ...]) -> None:
    """Enough tests for a template to be made, whose children start otherwise."""
    suite = """
import os, socket, tempfile
import pytest

@pytest.mark.parametrize("n", range(8))
def test(n):
    with pytest.raises(PermissionError):
        socket.socket()
    assert os.path.dirname(tempfile.mkdtemp()) == os.environ["TMPDIR"]
"""
    ran = mine.run(suite, *options)
    assert ran.status == 0, ran.out
    assert {str(record["enforced"]["confined"]) for record in ran.records.values()} == {str(CONFINED)}
    assert not (mine.home / "base" / "isolate-tmp").exists()


# -- what it does not get -------------------------------------------------------------------------------


def test_without_landlock_the_network_is_closed_all_the_same(mine: Place) -> None:
    """As in Docker before 23."""
    ran = mine.run("def test(): pass", old=True)
    enforced = ran.records["test"]["enforced"]
    assert (enforced["level"], enforced["confined"], enforced["landlock"]) == ("fork", ["network"], None)
    assert any(re.fullmatch("Landlock is not available: .+; .+", text) for text in enforced["missing"])


IMPOSSIBLE = {
    "rootfs='/srv'": "it takes namespaces",
    "binds={'/etc': '/elsewhere'}": "the bind of /etc at /elsewhere is not available: it takes namespaces",
    "workdir='/nothere'": "workdir='/nothere' is not available",
}


@pytest.mark.parametrize(("option", "text"), IMPOSSIBLE.items(), ids=list(IMPOSSIBLE))
def test_what_cannot_be_done_without_namespaces_is_an_error(mine: Place, option: str, text: str) -> None:
    suite = f"import pytest\n@pytest.mark.isolated({option})\ndef test(): pass"
    ran = mine.run(suite)
    record = ran.records["test"]
    assert (record["outcome"], record["reason"], record["enforced"]["level"]) == ("error", "setup", None)
    assert text in ran.out


@needs_landlock
def test_writable_binds_are_written(mine: Place) -> None:
    data = mine.home / "data"
    data.mkdir()
    suite = f"""
import pathlib
import pytest

@pytest.mark.isolated(binds={{"{data}": "{data}"}})
def test_bound():
    pathlib.Path("{data}/file").write_text("new")

@pytest.mark.isolated(readonly=True)
def test_other():
    with pytest.raises(PermissionError):
        pathlib.Path("{data}/other").write_text("new")
"""
    ran = mine.run(suite)
    assert ran.status == 0, ran.out
    assert (data / "file").read_text() == "new"


def test_limits_that_are_lacking_are_named(mine: Place) -> None:
    suite = "import pytest\n@pytest.mark.isolated(tmp_size='1M', artifacts=['/tmp/*.log'])\ndef test(tmp_path): pass"
    missing = mine.run(suite).records["test"]["enforced"]["missing"]
    assert any(text.startswith("the tmp_size limit is not available") for text in missing)
    assert any(text.startswith("copying of artifacts is not available") for text in missing)


def test_a_failure_says_what_was_refused_and_why(mine: Place) -> None:
    ran = mine.run("import socket\ndef test(): socket.socket()")
    assert ran.status == 1
    assert "PermissionError: [Errno 13] Permission denied" in ran.out
    (told,) = re.findall(r"^it ran at level .+$", ran.out, re.MULTILINE)
    assert "network='host'" in told
    assert re.search(rf"^it ran at level .+\n{LACK}$", ran.out, re.MULTILINE)


def test_fail_and_skip_are_as_ever(mine: Place) -> None:
    failed = mine.run("def test(): pass", missing="fail")
    assert failed.records["test"]["outcome"] == "error"
    assert failed.records["test"]["enforced"]["level"] is None
    assert mine.run("def test(): pass", missing="skip").records["test"]["outcome"] == "skipped"


@pytest.mark.needs("user namespace")
def test_who_could_have_namespaces_is_not_given_less(run: Callable[..., Any]) -> None:
    """The machine lacks nothing: the test asks for what is not there."""
    suite = "import pytest\n@pytest.mark.isolated(binds={'/nothere': '/nothere'})\ndef test(): pass"
    ran = run(suite, "--isolate-missing=degrade")
    assert ran.record("test")["outcome"] == "error"
    assert "/nothere is not there" in ran.out


# -- commands -------------------------------------------------------------------------------------------


def test_doctor_says_which_level_there_would_be(mine: Place) -> None:
    command = (sys.executable, "-m", "pytest_isolate.cli", "doctor")
    report = json.loads(mine.command(*command, "--json").stdout)
    assert (report["ok"], report["level"]) == (False, LEVEL)
    features = {feature["name"]: feature for feature in report["features"]}
    assert features["landlock"]["available"] == bool(ABI)
    assert features["seccomp filter"]["available"]
    last = mine.command(*command).stdout.splitlines()[-1]
    assert last.startswith(f"--isolate-missing=degrade gives level {LEVEL}: a fork, rlimits, ")
    assert "a closed network (seccomp)" in last


def test_explain_prints_what_is_done_at_the_level(mine: Place) -> None:
    (mine.home / "test_it.py").write_text("def test(): pass")
    command = (sys.executable, "-m", "pytest_isolate.cli", "explain", "test_it.py::test")
    shown = mine.command(*command, "--isolate-all", "--isolate-missing=degrade").stdout
    _, _, steps = shown.partition(f"it runs at level {LEVEL}; ")
    assert "have a seccomp filter refuse all sockets but those of Unix" in steps
    assert ("by Landlock" in steps) == bool(ABI)
    assert "set TMPDIR to a new directory in " in steps
    assert "namespaces" not in steps.partition("and without this, too:")[0]

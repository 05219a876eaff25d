"""``runtime="runc"`` and ``"crun"``: a container in place of the sandbox, with the same options, records and
failures; and ``pytest-isolate bundle``."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..registry_server import need_programs
from .conftest import TIME_SCALE, Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]
SBIN = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    need_programs(request.config, name)
    return name


@pytest.fixture
def runc(pytestconfig: pytest.Config) -> str:
    need_programs(pytestconfig, "runc")
    return "runc"


def stages() -> list[str]:
    return [name for name in os.listdir("/tmp") if name.startswith("pytest-isolate-stage-")]


# ---- the same as without --------------------------------------------------------------------------


@pytest.mark.vm
def test_a_test_passes_in_a_container(run: Runner, runtime: str) -> None:
    inner = run(
        """
        import os, socket

        def test_it(tmp_path, isolation):
            assert os.getpid() != 1  # which the container's init is, that reaps
            assert socket.gethostname() == "isolated"
            with open("/tmp/written", "w") as file:
                file.write("22")
            if os.getuid() == 0:
                with open("/at-the-top", "w") as file:
                    file.write("333")
            (tmp_path / "kept").write_text("really")
            assert isolation.spec.runtime in ("runc", "crun")
            print("said")

        def test_next():
            assert not os.path.exists("/tmp/written")
            assert 1 == 2
        """,
        f"--isolate-runtime={runtime}",
        "-rA",
    )
    assert inner.outcomes == {"passed": 1, "failed": 1}
    assert "said" in inner.out
    assert "assert 1 == 2" in inner.out
    record = inner.record("test_it")
    assert (record["written_files"], record["written_bytes"]) == ((2, 5) if os.getuid() == 0 else (1, 2))
    assert record["leaked_processes"] in (0, None)
    assert record["minor_faults"] > 100
    own = {"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"}
    assert {*record["enforced"]["namespaces"]} == own
    assert record["enforced"]["root"] == "tmpfs"
    assert record["enforced"]["no_new_privs"] is True
    assert record["enforced"]["seccomp"] == 2


@pytest.mark.vm
@pytest.mark.needs("cgroup memory limit", "cgroup pids limit")
def test_limits(run: Runner, runtime: str) -> None:
    """Those of the test alone: the runtime, which needs a dozen threads to start, is counted elsewhere."""
    inner = run(
        """
        import os, pytest, threading

        @pytest.mark.isolated(memory="96M", swap=0)
        def test_memory():
            bytearray(200 * 2**20)

        @pytest.mark.isolated(pids=4)
        def test_pids():
            stop = threading.Event()
            threads = [threading.Thread(target=stop.wait) for _ in range(10)]
            with pytest.raises(RuntimeError):
                for thread in threads:
                    thread.start()
            stop.set()
        """,
        f"--isolate-runtime={runtime}",
        all_tests=False,
    )
    assert inner.outcomes == {"failed": 1, "passed": 1}
    memory, pids = inner.record("test_memory"), inner.record("test_pids")
    assert memory["reason"] == "oom"
    assert memory["oom_kills"] >= 1
    assert memory["memory_limit_bytes"] == 96 * 2**20
    assert 60 * 2**20 < memory["memory_peak_bytes"] <= 96 * 2**20
    assert pids["pids_refused"] >= 1
    assert pids["pids_peak"] in (4, None)  # Linux 6.1


@pytest.mark.needs("cgroup cpu limit")
def test_usage(run: Runner, runc: str) -> None:
    inner = run(
        """
        import pytest, subprocess, sys, time

        @pytest.mark.isolated(cpus=0.05)
        def test_cpus():
            end = time.monotonic() + 1
            while time.monotonic() < end:
                pass

        @pytest.mark.isolated
        def test_leaves():
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        """,
        "--isolate-runtime=runc",
        all_tests=False,
    )
    assert inner.outcomes == {"passed": 2}
    assert inner.record("test_cpus")["throttled_s"] > 0
    assert inner.record("test_leaves")["leaked_processes"] == 1


def test_ways_to_fail(run: Runner, runc: str) -> None:
    inner = run(
        """
        import os, pytest, signal, sys, time

        def test_signal(): os.kill(os.getpid(), signal.SIGSEGV)
        def test_exits(): os._exit(3)
        def test_127(): os._exit(127)
        def test_kills_all(): os.kill(-1, signal.SIGKILL) or time.sleep(100)

        @pytest.mark.isolated(timeout="8s")
        def test_hangs():
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(1000)
        """,
        "--isolate-runtime=runc",
    )
    assert inner.outcomes == {"failed": 4, "errors": 0} or inner.outcomes["failed"] >= 4
    found = {r["nodeid"].rpartition("::")[2]: (r["reason"], r["signal"]) for r in inner.records}
    assert found["test_signal"] == ("signal", "SIGSEGV")
    assert found["test_exits"] == ("exited", None)
    assert found["test_127"] == ("exited", None)
    assert found["test_hangs"][0] == "timeout"
    assert "in test_hangs" in inner.out  # the stacks


def test_denied(run: Runner, runtime: str) -> None:
    """By seccomp: no capability is asked for these."""
    inner = run(
        """
        import ctypes, errno, fcntl, os, platform, pty

        libc = ctypes.CDLL(None, use_errno=True)
        KEYCTL = {"x86_64": 250, "aarch64": 219}[platform.machine()]

        def test_it():
            assert libc.syscall(KEYCTL, 0, -3, 0) == -1  # KEYCTL_GET_KEYRING_ID of the session
            assert ctypes.get_errno() == errno.EPERM
            _, terminal = pty.openpty()
            try:
                fcntl.ioctl(terminal, 0x5412, b"x")  # TIOCSTI
            except OSError as error:
                assert error.errno == errno.EPERM
            else:
                assert False
            assert open("/proc/kcore", "rb").read(1) == b"" if os.access("/proc/kcore", os.R_OK) else True
        """,
        f"--isolate-runtime={runtime}",
    )
    assert inner.outcomes == {"passed": 1}, inner.out


def test_options(run: Runner, runc: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("bound")
    inner = run(
        f"""
        import os, pytest, resource

        @pytest.mark.isolated(binds={{{str(tmp_path)!r}: "/data:ro"}}, env={{"A": "b"}}, hostname="other", files=99)
        def test_it():
            assert open("/data/data").read() == "bound"
            assert os.environ["A"] == "b"
            assert os.uname().nodename == "other"
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (99, 99)
            with pytest.raises(OSError, match="Read-only"):
                open("/data/new", "w")

        @pytest.mark.isolated(user="root")
        def test_root():
            assert os.getuid() == 0

        @pytest.mark.isolated(readonly=True)
        def test_readonly():
            with pytest.raises(OSError):
                open(__file__, "a")
            with pytest.raises(OSError):
                open("/new", "w")
            open("/tmp/new", "w").close()

        @pytest.mark.isolated(tmp_size="1M")
        def test_full():
            with pytest.raises(OSError, match="No space"):
                open("/tmp/big", "wb").write(bytes(2**21))
        """,
        "--isolate-runtime=runc",
        all_tests=False,
    )
    assert inner.outcomes == {"passed": 4}, inner.out


def test_another_root(run: Runner, runc: str, tmp_path: Path) -> None:
    for name in ("etc", "usr/share", "data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/file").write_text("of the root")
    (tmp_path / "lib").symlink_to("usr/lib")
    inner = run(
        """
        import os, pathlib

        def test_it():
            assert pathlib.Path("/data/file").read_text() == "of the root"
            pathlib.Path("/data/file").write_text("changed")
            assert not os.path.exists("/etc/passwd")
            assert os.readlink("/lib") == "usr/lib"
        """,
        "--isolate-runtime=runc",
        f"--isolate-rootfs={tmp_path}",
    )
    assert inner.outcomes == {"passed": 1}, inner.out
    assert (tmp_path / "data/file").read_text() == "of the root"
    assert inner.record("test_it")["written_files"] == 1


def test_scope_and_jobs(run: Runner, runc: str) -> None:
    source = """
        import os, pytest

        @pytest.fixture(scope="module")
        def pid():
            return os.getpid()

        @pytest.mark.parametrize("n", range(4))
        def test_it(pid, n):
            assert pid == os.getpid()
        """
    shared = run(source, "--isolate-runtime=runc", "--isolate-scope=module")
    assert shared.outcomes == {"passed": 4}
    assert len({record["sandbox"] for record in shared.records}) == 1
    assert run(source, "--isolate-runtime=runc", "--isolate-jobs=3").outcomes == {"passed": 4}


# ---- what is missing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "outcome"), [("fail", "errors"), ("skip", "skipped"), ("degrade", "passed")]
)
def test_a_runtime_that_is_missing(run: Runner, mode: str, outcome: str) -> None:
    inner = run("def test_it(): pass", "--isolate-runtime=norunc", f"--isolate-missing={mode}", "-rs")
    assert inner.outcomes == {outcome: 1}
    assert (
        "runtime norunc is not available: there is no such command on PATH; did you mean runc? "
        "runc and crun are known; name any other by its path" in (" ".join(inner.out.split()))
    )


@pytest.mark.parametrize(
    ("end", "told"), [("exit 3", "ended with exit status 3"), ("kill -SEGV $$", "was killed by SIGSEGV")]
)
def test_a_runtime_that_ends_without_a_word(run: Runner, tmp_path: Path, end: str, told: str) -> None:
    silent = tmp_path / "silent"
    silent.write_text(f"#!/bin/sh\n{end}\n")
    silent.chmod(0o755)
    inner = run("def test_it(): pass", f"--isolate-runtime={silent}")
    assert inner.outcomes == {"errors": 1}
    assert f"runtime {silent} {told} before it started the test; try: {silent} --version" in inner.out


def test_a_runtime_that_fails(run: Runner, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho it is broken >&2\nexit 3\n")
    broken.chmod(0o755)
    inner = run("def test_it(): pass\ndef test_next(): pass", f"--isolate-runtime={broken}")
    assert inner.outcomes == {"errors": 2}
    assert inner.out.count("it is broken") >= 2
    assert [record["reason"] for record in inner.records] == ["setup", "setup"]


# ---- nothing is left ------------------------------------------------------------------------------


@contextlib.contextmanager
def running(pytester: pytest.Pytester, source: str) -> Iterator[subprocess.Popen[str]]:
    """pytest, when its test has made the file ``started`` in the base directory ``base``."""
    pytester.makepyfile(source)
    base = pytester.path / "base"
    options = ["--isolate-all", "--isolate-runtime=runc", f"--basetemp={base}"]
    command = [sys.executable, "-m", "pytest", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30 * TIME_SCALE
        while not (base / "started").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.vm
def test_nothing_is_left_after_sigkill(pytester: pytest.Pytester, runc: str) -> None:
    source = """
        import time

        def test_it(tmp_path_factory):
            (tmp_path_factory.getbasetemp() / "started").touch()
            time.sleep(1000)
        """
    with running(pytester, source) as process:
        own = f"pytest-isolate-stage-{process.pid}-"
        assert [name for name in stages() if name.startswith(own)] != []
    deadline = time.monotonic() + 10 * TIME_SCALE
    while any(name.startswith(own) for name in stages()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c(pytester: pytest.Pytester, runc: str) -> None:
    source = """
        import os, time

        def test_it(tmp_path_factory):
            base = tmp_path_factory.getbasetemp()
            try:
                (base / "started").touch()
                time.sleep(1000)
            finally:
                (base / "interrupted").touch()
        """
    with running(pytester, source) as process:
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt" in out
    assert (pytester.path / "base" / "interrupted").exists()


def test_explain(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_it(): pass")
    arguments = ["explain", "test_it.py::test_it", "--isolate-all", "--isolate-runtime=norunc"]
    command = [sys.executable, "-m", "pytest_isolate.cli", *arguments]
    told = subprocess.run(command, capture_output=True, text=True, cwd=pytester.path, check=True).stdout
    assert "What norunc is told, in config.json (pytest-isolate bundle writes it):" in told
    assert "because a runtime is named" in told
    assert "/run/pytest-isolate/init read-only" in told
    assert "  - runtime norunc is not available" in told


# ---- by hand --------------------------------------------------------------------------------------


def make_bundle(pytester: pytest.Pytester, *args: str, below: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest_isolate.cli", "bundle", *args]
    cwd = pytester.path / below
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture
def bundle() -> Iterator[Path]:
    """Not in tmp_path, which may be in a directory that a bundle covers with an overlay."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name, "bundle")


@pytest.mark.vm
def test_a_bundle_is_run_by_hand(pytester: pytest.Pytester, runtime: str, bundle: Path) -> None:
    pytester.makepyfile(
        test_it="""
        import os, pytest

        @pytest.mark.isolated(env={"A": "b"})
        def test_it():
            assert os.environ["A"] == "b"
            assert os.getpid() != 1
            with open("/tmp/thrown", "w"):
                pass

        def test_fails(): assert 0
        """
    )
    done = make_bundle(pytester, "test_it.py::test_it", str(bundle), "-p", "no:cacheprovider", "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    name = f"by-hand-{os.getpid()}"
    assert f"  runc run --bundle {bundle} bundle" in done.stdout
    path = shutil.which(runtime, path=SBIN)
    assert path is not None
    if runtime == "crun" and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("crun refuses to start by hand where both versions of cgroups are in use")
    command = [path, "--root", f"{bundle}.state", "run", "--bundle", str(bundle), name]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "test_it.py::test_it PASSED" in ran.stdout
    assert "1 passed" in ran.stdout
    assert (bundle / "scratch/tmp/thrown").exists()  # where one can look at it
    assert not Path("/tmp/thrown").exists()


def test_a_bundle_passes_on_the_exit_status(pytester: pytest.Pytester, runc: str, bundle: Path) -> None:
    pytester.makepyfile("def test_it(): assert 0")
    node = f"{Path(sys._getframe().f_code.co_name).name}.py::test_it"
    assert make_bundle(pytester, node, str(bundle)).returncode == 0
    content: dict[str, Any] = json.loads((bundle / "config.json").read_text())
    assert content["process"]["terminal"] is False
    command = ["runc", "--root", f"{bundle}.state", "run", "--bundle", str(bundle), f"by-hand-{os.getpid()}"]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env={"PATH": SBIN}
    )
    assert ran.returncode == 1
    assert "1 failed" in ran.stdout


@pytest.mark.parametrize("place", ["sub", "sub/deeper", "other"])
def test_a_bundle_from_a_subdirectory(pytester: pytest.Pytester, bundle: Path, place: str) -> None:
    pytester.makeini("[pytest]")
    for name in ("sub", "sub/deeper", "other"):
        pytester.mkdir(name)
    (pytester.path / "sub/test_it.py").write_text("def test_it(): pass")
    node = f"{os.path.relpath('sub/test_it.py', place)}::test_it"
    done = make_bundle(pytester, node, str(bundle), "-p", "no:cacheprovider", below=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"has the bundle of {node}; run it with:" in done.stdout
    process: dict[str, Any] = json.loads((bundle / "config.json").read_text())["process"]
    assert process["cwd"] == str(pytester.path / place)
    command = process["args"][process["args"].index("--") + 1 :]
    ran = subprocess.run(command, cwd=process["cwd"], capture_output=True, text=True, check=False)
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


def test_a_bundle_is_refused(pytester: pytest.Pytester, bundle: Path) -> None:
    pytester.makepyfile(test_it="def test_a(): pass\ndef test_b(): pass")
    bundle.mkdir()
    (bundle / "file").touch()
    full = make_bundle(pytester, "test_it.py::test_a", str(bundle))
    assert full.returncode == 1
    assert f"error: {bundle} is not an empty directory; name one that is not there yet" in full.stdout
    many = make_bundle(pytester, "test_it.py", f"{bundle}-2")
    assert many.returncode == 1
    assert "2 tests match test_it.py; name one, as in test_it.py::test_a" in many.stdout
    inside = make_bundle(pytester, "test_it.py::test_a", str(pytester.path / "bundle"))
    assert inside.returncode == 1
    assert "cannot hold its own layers; name a directory in /tmp or /dev/shm" in inside.stdout
    assert not (pytester.path / "bundle").exists()
    missing = make_bundle(pytester, "test_it.py::test_a", f"{bundle}-2", "--isolate-runtime=nope")
    assert missing.returncode == 1
    assert missing.stdout.startswith("pytest-isolate: error: runtime nope is not available: there is no such")
    absent = make_bundle(pytester, "test_it.py::test_c", f"{bundle}-2")
    assert absent.returncode == pytest.ExitCode.USAGE_ERROR
    assert not Path(f"{bundle}-2").exists()

"""Each kind of violation by a test that does it and one that does nearly the same and none."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any

import pytest

pytestmark = pytest.mark.needs("user namespace")

#: Of each kind: setup of the module, the body of the guilty test, that of the clean one, what is told.
CASES: dict[str, tuple[str, str, str, list[str]]] = {
    "created": (
        "",
        "open('/tmp/fixed', 'w').write('abc')",
        "(tmp_path / 'fixed').write_text('abc'); open('/tmp/gone', 'w'); os.remove('/tmp/gone')",
        ["files: created /tmp/fixed (3 bytes), test_it.py:6 (test_guilty)"],
    ),
    "tree": (
        "",
        "os.makedirs('/var/tmp/a/b'); open('/var/tmp/a/b/c', 'w').write('abc'); open('/var/tmp/a/d', 'w')",
        "os.makedirs('/var/tmp/x/y'); os.removedirs('/var/tmp/x/y')",
        ["files: created /var/tmp/a/ (2 files, 3 bytes), test_it.py:6 (test_guilty)"],
    ),
    "changed": (
        "",
        "open('data.txt', 'a').write('more')",
        "open('data.txt', 'r+').close()",
        ["files: changed data.txt (8 bytes), test_it.py:6 (test_guilty)"],
    ),
    "deleted": (
        "",
        "os.remove('data.txt')",
        "open('data.txt').close()",
        ["files: deleted data.txt, test_it.py:6 (test_guilty)"],
    ),
    "made anew": (
        "import shutil",
        "shutil.rmtree('data'); os.mkdir('data')",
        "os.listdir('data')",
        ["files: replaced data/ (0 files, 0 bytes), test_it.py:6 (test_guilty)"],
    ),
    "rights": (
        "",
        "os.chmod('data', 0o711)",
        "mode = os.stat('data').st_mode; os.chmod('data', 0o711); os.chmod('data', mode); os.utime('data')",
        ["files: changed mode or owner of data, test_it.py:6 (test_guilty)"],
    ),
    "by a subprocess": (
        "",
        "subprocess.run(['touch', '/tmp/fixed'])",
        "subprocess.run(['touch', tmp_path / 'fixed'])",
        ["files: created /tmp/fixed (0 bytes), test_it.py:6 (test_guilty)"],
    ),
    "made up name": (
        "import tempfile",
        "os.close(tempfile.mkstemp(dir='/tmp')[0])",
        "tempfile.TemporaryDirectory().cleanup()",
        ["files: created /tmp/tmp* (0 bytes), test_it.py:6 (test_guilty)"],
    ),
    "secrets": (
        "",
        "exec('try: open(os.path.expanduser(\"~/.netrc\"))\\nexcept OSError: pass')",
        "monkeypatch.setenv('HOME', str(tmp_path)); (tmp_path / '.netrc').write_text(''); "
        "open(os.path.expanduser('~/.netrc')).close()",
        ["secrets: tried to read ~/.netrc, test_it.py:6 (test_guilty)"],
    ),
    "process": (
        "",
        "subprocess.Popen(['sleep', '60'])",
        "subprocess.Popen(['sleep', '0.01'])",
        ["processes: left a process: sleep 60, test_it.py:6 (test_guilty), pid *"],
    ),
    "daemon": (
        "",
        "subprocess.run('setsid sleep 60 & exit 0', shell=True)",
        "subprocess.run('true & wait', shell=True)",
        ["processes: left a process: sleep 60, test_it.py:6 (test_guilty), pid *"],
    ),
    "thread": (
        "def idle(): time.sleep(30)",
        "threading.Thread(target=idle, daemon=True).start()",
        "threading.Thread(target=time.sleep, args=(0.01,)).start()",
        ["threads: left a thread that runs idle, test_it.py:*"],
    ),
    "pool": (
        "from concurrent.futures import ThreadPoolExecutor; kept = []",
        "kept.append(ThreadPoolExecutor(1)); kept[0].submit(id, 1).result()",
        "[pool.submit(id, 1) for pool in [ThreadPoolExecutor(1)]]",
        ["threads: left a thread of a ThreadPoolExecutor*"],
    ),
    "descriptor": (
        "kept = []; package = {'kept': kept}; exec(compile('def keep(): kept.append(open(\"/etc/hosts\"))', "
        "'/site-packages/keeper.py', 'exec'), package)",
        "kept.append(open('data.txt'))",
        "(lambda: None).__dict__.update(mine=open('data.txt')); package['keep']()",
        ["descriptors: left a descriptor open: file data.txt, test_it.py:6 (test_guilty)"],
    ),
    "socket": (
        "import socket; kept = []",
        "kept.append(socket.create_server(('127.0.0.1', 0)))",
        "socket.create_server(('127.0.0.1', 0)).close()",
        ["descriptors: left a descriptor open: a tcp socket, test_it.py:6 (test_guilty)"],
    ),
    "pipe": (
        "kept = []",
        "kept.extend(os.pipe())",
        "list(map(os.close, os.pipe()))",
        ["descriptors: left a descriptor open: a pipe (2 times), test_it.py:6 (test_guilty)"],
    ),
    "shared memory": (
        "from multiprocessing import resource_tracker, shared_memory",
        "memory = shared_memory.SharedMemory('psm', create=True, size=8); memory.close(); "
        "resource_tracker.unregister('/psm', 'shared_memory')",
        "memory = shared_memory.SharedMemory('psm', create=True, size=8); memory.close(); memory.unlink()",
        ["ipc: left POSIX shared memory /psm, test_it.py:6 (test_guilty)"],
    ),
    "system v": (
        "import ctypes; libc = ctypes.CDLL(None)",
        "libc.shmget(7, 4096, 0o1600); libc.msgget(7, 0o1600); libc.semget(7, 1, 0o1600)",
        "libc.shmctl(libc.shmget(7, 4096, 0o1600), 0, None)",
        [
            "ipc: left a System V message queue, test_it.py:6 (test_guilty)",
            "ipc: left a System V semaphore set, test_it.py:6 (test_guilty)",
            "ipc: left a System V shared memory segment, test_it.py:6 (test_guilty)",
        ],
    ),
    "variable": (
        "",
        "os.environ['LEFT'] = '1'",
        "monkeypatch.setenv('LEFT', '1'); os.environ['GONE'] = '1'; del os.environ['GONE']",
        ["environment: changed os.environ: LEFT, test_it.py:6 (test_guilty)"],
    ),
    "directory": (
        "",
        "os.chdir('/')",
        "monkeypatch.chdir(tmp_path)",
        ["environment: changed the current directory, test_it.py:6 (test_guilty)"],
    ),
    "umask": (
        "",
        "os.umask(0o027)",
        "os.umask(os.umask(0o027))",
        ["environment: changed the umask, test_it.py:6 (test_guilty)"],
    ),
    "locale": (
        "import locale",
        "locale.setlocale(locale.LC_TIME, 'C' if 'UTF' in locale.setlocale(locale.LC_TIME) else 'C.UTF-8')",
        "locale.setlocale(locale.LC_TIME, locale.setlocale(locale.LC_TIME))",
        ["environment: changed the locale, test_it.py:6 (test_guilty)"],
    ),
    "signal": (
        "import signal",
        "signal.signal(signal.SIGINT, lambda *_: None)",
        "signal.signal(signal.SIGUSR1, signal.signal(signal.SIGUSR1, lambda *_: None))",
        ["environment: changed the handler of SIGINT, test_it.py:6 (test_guilty)"],
    ),
}
SUITE = """\
import os, subprocess, sys, threading, time
{setup}

def test_clean(tmp_path, monkeypatch): {clean}

def test_guilty(): {guilty}
def test_after(): pass
"""


def run(pytester: pytest.Pytester, suite: str, *args: str) -> dict[str, list[str]]:
    """Violations by the name of the test, without cures."""
    pytester.makepyfile(test_it=suite)
    pytester.path.joinpath("data.txt").write_text("data")
    pytester.path.joinpath("data").mkdir()
    pytester.path.joinpath("data/old").touch()
    result = pytester.runpytest_subprocess(
        "--isolate-all", "--isolate-json=out.json", "-p", "no:randomly", "-p", "no:cacheprovider", *args
    )
    assert result.ret == 0, result.stdout.str()
    return {record["nodeid"].partition("::")[2]: told(record) for record in records(pytester)}


def records(pytester: pytest.Pytester) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (pytester.path / "out.json").read_text().splitlines()]


def told(record: dict[str, Any]) -> list[str]:
    assert all(violation["cure"] for violation in record["violations"])
    return [
        f"{v['kind']}: {v['what']}"
        + (f" ({v['count']} times)" if v["count"] > 1 else "")
        + (f", {v['where']}" if v["where"] else "")
        for v in record["violations"]
    ]


def fits(found: list[str], expected: list[str]) -> bool:
    forms = [re.escape(line).replace(r"\*", ".*") for line in expected]
    return len(found) == len(forms) and all(map(re.fullmatch, forms, sorted(found)))


@pytest.mark.parametrize("case", CASES)
def test_seen(pytester: pytest.Pytester, case: str) -> None:
    setup, guilty, clean, expected = CASES[case]
    found = run(pytester, SUITE.format(setup=setup, guilty=guilty, clean=clean))
    assert fits(found["test_guilty"], expected), found
    assert (found["test_clean"], found["test_after"]) == ([], [])


EVERY = """\
import os, subprocess, sys, threading, time
kept = []
def idle(): time.sleep(30)

class TestAll:
    def test_files(self): open("/tmp/fixed", "w").write("abc")
    def test_files_again(self): open("/tmp/fixed", "a").write("d")
    def test_thread(self): threading.Thread(target=idle, daemon=True).start()
    def test_process(self): subprocess.Popen(["sleep", "60"])
    def test_descriptor(self): kept.append(open("data.txt"))
    def test_environment(self): os.environ["LEFT"] = "1"
    def test_clean(self, tmp_path): (tmp_path / "x").touch()
"""


@pytest.mark.parametrize(
    "args",
    [
        ["--isolate-start=spawn"],
        ["--isolate-jobs=2"],
        ["--isolate-scope=module"],
        ["--isolate-scope=class", "--isolate-start=spawn"],
        ["--isolate-scope=module", "--isolate-fixtures=fresh"],
    ],
    ids=" ".join,
)
def test_each_way_to_run(pytester: pytest.Pytester, args: list[str]) -> None:
    """What the tests of one sandbox leave is told of the one that left it, and once."""
    found = run(pytester, EVERY, *args)
    again = "changed" if any("scope" in arg for arg in args) else "created"
    size = "4 bytes" if again == "changed" else "1 byte"
    expected = {
        "files": ["files: created /tmp/fixed (3 bytes), test_it.py:6 (test_files)"],
        "files_again": [f"files: {again} /tmp/fixed ({size}), test_it.py:7 (test_files_again)"],
        "thread": ["threads: left a thread that runs idle, test_it.py:*"],
        "process": ["processes: left a process: sleep 60, test_it.py:9 (test_process), pid *"],
        "descriptor": ["descriptors: left a descriptor open: file data.txt, test_it.py:10 (test_descriptor)"],
        "environment": ["environment: changed os.environ: LEFT, test_it.py:11 (test_environment)"],
        "clean": [],
    }
    for name, lines in expected.items():
        assert fits(found[f"TestAll::test_{name}"], lines), (name, found)


WIDER = """\
import os, subprocess, threading, time, pytest
kept = []

@pytest.fixture(scope="module")
def server():
    os.environ["SERVER"] = "1"
    os.chdir("/")
    kept.append(open("/etc/passwd"))
    kept.extend(os.pipe())
    process = subprocess.Popen(["sleep", "60"])
    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    yield
    process.kill()
    process.wait()
    del os.environ["SERVER"]

def test_first(server): pass
def test_second(server): pass
"""


@pytest.mark.parametrize(
    "args",
    [["--isolate-scope=module"], ["--isolate-fixtures=fresh"], ["--isolate-scope=class"]],
    ids=" ".join,
)
def test_what_a_wider_fixture_does_is_not_the_tests(pytester: pytest.Pytester, args: list[str]) -> None:
    found = run(pytester, WIDER, *args)
    assert found == {"test_first": [], "test_second": []}


def test_declared_writes(pytester: pytest.Pytester) -> None:
    suite = """
        import os, pytest
        @pytest.mark.isolated(writes=["/var/tmp/cache/**", "out/*.txt"])
        def test_it():
            os.makedirs("/var/tmp/cache/deep"); open("/var/tmp/cache/deep/file", "w")
            os.mkdir("out"); open("out/a.txt", "w")
        @pytest.mark.isolated(writes=["out/*.txt"])
        def test_too_little():
            os.mkdir("out"); open("out/a.txt", "w"); open("out/b.png", "w")
        @pytest.mark.isolated(allow=["files"])
        def test_all(): open("/var/tmp/x", "w")
    """
    pytester.makeini("[pytest]\nisolate_all = true\nisolate_json = out.json\n")
    pytester.makepyfile(test_it=suite)
    pytester.runpytest_subprocess("-p", "no:randomly").assert_outcomes(passed=3)
    found = [told(record) for record in records(pytester)]
    assert fits(found[1], ["files: created out/ (1 file, 0 bytes), test_it.py:8 (test_too_little)"])
    assert (found[0], found[2]) == ([], [])


def test_many_files_are_few_violations(pytester: pytest.Pytester) -> None:
    suite = "def test_it():\n for n in range(50): open(f'/tmp/{n}', 'w')"
    found = run(pytester, suite)["test_it"]
    assert len(found) == 21
    assert sum(line.startswith("files: wrote more (30 times)") for line in found) == 1


def test_descriptors_of_pytests_own(pytester: pytest.Pytester) -> None:
    """Opened by a module, inherited by each test's process, and with one position for all of them."""
    suite = """
        DATA = open("data.txt")
        UNUSED = open("data.txt")
        def test_used(): assert DATA.read() == "data"
        def test_left(): pass
    """
    found = run(pytester, suite, "--isolate-fixtures=fresh")
    assert found == {
        "test_used": [
            "descriptors: used a descriptor of pytest's own: file data.txt, test_it.py:3 (test_used)"
        ],
        "test_left": [],
    }


def test_connections_of_pytests_own(pytester: pytest.Pytester) -> None:
    suite = """
        import socket
        SERVER = socket.create_server(("127.0.0.1", 0))
        CLIENT = socket.create_connection(SERVER.getsockname())
        CONNECTION, _ = SERVER.accept()
        def test_used(): CLIENT.sendall(b"x")
        def test_left(): pass
    """
    found = run(pytester, suite, "--isolate-fixtures=fresh")
    assert found["test_left"] == []
    (line, *_) = found["test_used"]
    assert line.startswith("descriptors: used a descriptor of pytest's own: a tcp socket")


def test_what_pytest_writes_meanwhile_is_not_the_tests(pytester: pytest.Pytester) -> None:
    suite = "import time\ndef test_soon(): pass\ndef test_late(): time.sleep(0.5)"
    found = run(pytester, suite, "--isolate-fixtures=fresh", "--isolate-jobs=2", "-v")
    assert found == {"test_soon": [], "test_late": []}


@pytest.mark.parametrize("args", [[], ["--isolate-jobs=2"], ["--isolate-start=spawn"]], ids=str)
def test_what_is_asked_of_the_clock(pytester: pytest.Pytester, args: list[str]) -> None:
    suite = """
        import datetime, logging, time
        from time import sleep, time as now
        import pytest

        @pytest.fixture
        def stamp(): return now()

        def test_it(stamp):
            for _ in range(3): sleep(0.01)
            time.sleep(0)
            with pytest.raises(TypeError): sleep("x")
            assert now() and time.time_ns() and time.localtime() and time.gmtime() and time.ctime()
            assert datetime.datetime.now() and datetime.datetime.now(tz=datetime.timezone.utc)
            assert datetime.date.today() and datetime.datetime.today()
        def test_converts():
            assert time.localtime(7) and time.gmtime(7) and time.ctime(7) and time.monotonic()
            assert datetime.datetime.fromtimestamp(7)
        def test_logs(): logging.warning("x")
        def test_not(tmp_path, monkeypatch, capsys, caplog): (tmp_path / "x").write_text("x")
    """
    run(pytester, textwrap.dedent(suite), *args)
    found = {record["nodeid"].partition("::")[2]: record for record in records(pytester)}
    assert {name: record["slept_s"] for name, record in found.items()} == {
        **dict.fromkeys(["test_converts", "test_logs", "test_not"], 0.0),
        "test_it": 0.03,
    }
    reads = {name: record["clock_reads"] for name, record in found.items()}
    assert reads == {"test_it": 10, "test_converts": 0, "test_logs": 1, "test_not": 0}


def test_a_test_that_dies_says_what_it_wrote(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="import os\ndef test_it(): open('/tmp/fixed', 'w'); os.abort()")
    pytester.runpytest_subprocess("--isolate-all", "--isolate-json=out.json").assert_outcomes(failed=1)
    (record,) = records(pytester)
    assert told(record) == ["files: created /tmp/fixed (0 bytes), test_it.py:2 (test_it)"]
    assert record["slept_s"] is record["clock_reads"] is None


def test_what_a_test_has_replaced_is_not_called(pytester: pytest.Pytester) -> None:
    suite = """
        import os
        from unittest import mock

        def test_it():
            with mock.patch("os.path.islink", side_effect=AssertionError), \\
                 mock.patch("os.path.realpath", side_effect=AssertionError), \\
                 mock.patch("os.lstat", side_effect=AssertionError):
                open(__file__).close()
    """
    assert run(pytester, textwrap.dedent(suite)) == {"test_it": []}


def test_directories_are_descriptors_too(pytester: pytest.Pytester) -> None:
    suite = """
        import os

        def test_it():
            os.mkdir("/tmp/new")
            os.symlink("new", "/tmp/link")
            for name in ("/tmp/new/", "/tmp/link"):
                os.open(name, os.O_RDONLY)
    """
    found = run(pytester, textwrap.dedent(suite), "--isolate-allow=files")
    assert fits(
        found["test_it"], ["descriptors: left a descriptor open: file /tmp/new (2 times), test_it.py:*"]
    )


def test_where_nobody_can_look_that_is_said(pytester: pytest.Pytester) -> None:
    suite = """
        import os, subprocess
        import pytest
        @pytest.mark.isolated(files=100)
        def test_it():
            subprocess.Popen(["sleep", "1000"])
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    os.open("/etc/hostname", os.O_RDONLY)
    """
    found = run(pytester, textwrap.dedent(suite), "--isolate-allow=descriptors")
    unseen = "environment: left its process so that nobody can look for processes: Too many open files, *"
    (record,) = records(pytester)
    by_its_cgroup = ["processes: left a process: sleep 1000, *"] * (record["enforced"]["cgroup"] is not None)
    assert fits(found["test_it"], [unseen, *by_its_cgroup])

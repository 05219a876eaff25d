"""Attempts to read secrets, by whatever program: in strict mode the kernel tells of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

PROGRAMS = """
    import ctypes, mmap, os, subprocess, sys, threading, pytest

    @pytest.fixture(autouse=True)
    def _home():
        global home  # that of the sandbox
        home = os.path.expanduser("~")

    libc = ctypes.CDLL(None, use_errno=True)
    AT_FDCWD, OPENAT2 = -100, 437

    def test_subprocess():
        subprocess.run(["cat", f"{home}/.netrc"])
        subprocess.run(["cat", f"{home}/.netrc"])

    def test_python_in_a_subprocess():
        code = "import os; open(os.path.expanduser('~/.aws/credentials'))"
        subprocess.run([sys.executable, "-c", code])

    def test_other_names():
        subprocess.run("cd ~; cat .netrc; cat ./.config/.././/.ssh//id_rsa; cat ~/.config//gh/./hosts.yml", shell=True)
        fd = os.open(home, os.O_PATH)
        libc.openat(fd, b".pgpass", os.O_RDONLY)

    def test_c():
        libc.fopen(f"{home}/.pypirc".encode(), b"r")
        thread = threading.Thread(target=lambda: libc.open(f"{home}/.npmrc".encode(), os.O_RDWR))
        thread.start()
        thread.join()

    def test_openat2():
        how = (ctypes.c_uint64 * 3)(os.O_RDONLY | os.O_CLOEXEC, 0, 0)
        assert libc.syscall(OPENAT2, AT_FDCWD, f"{home}/.my.cnf".encode(), how, 24) == -1
        assert ctypes.get_errno() == 2

    def test_at_the_end_of_memory():
        memory = mmap.mmap(-1, 3 * mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        assert libc.munmap(start + 2 * mmap.PAGESIZE, mmap.PAGESIZE) == 0
        for name, end in (("/.s3cfg", 2), ("/.boto", 1)):
            path = (home + name).encode() + bytes(1)
            at = start + end * mmap.PAGESIZE - len(path) + (end == 1) * 3
            ctypes.memmove(at, path, len(path))
            assert libc.open(ctypes.c_char_p(at), os.O_RDONLY) == -1

    def test_fork():
        if (pid := os.fork()) == 0:
            libc.open(f"{home}/.vault-token".encode(), os.O_RDONLY)
            os._exit(0)
        os.waitpid(pid, 0)

    def test_python():
        for _ in range(2):
            with pytest.raises(OSError):
                open(f"{home}/.netrc")
        with pytest.raises(OSError):
            os.listdir(f"{home}/.ssh")

    def test_both():
        with pytest.raises(OSError):
            open(f"{home}/.netrc")
        subprocess.run(["cat", f"{home}/.netrc"])
        libc.open(f"{home}/.pypirc".encode(), os.O_RDONLY)
"""
OWN, CAT, PYTHON = "the test's own process", "pid N: cat", "pid N: python"
FOUND = {
    "test_subprocess": [("~/.netrc", CAT), ("~/.netrc", CAT)],
    "test_python_in_a_subprocess": [("~/.aws/credentials", PYTHON)],
    "test_other_names": [
        ("~/.config/gh/hosts.yml", CAT),
        ("~/.netrc", CAT),
        ("~/.pgpass", OWN),
        ("~/.ssh/id_rsa", CAT),
    ],
    "test_c": [("~/.npmrc", OWN), ("~/.pypirc", OWN)],
    "test_openat2": [("~/.my.cnf", OWN)],
    "test_at_the_end_of_memory": [("~/.boto", OWN), ("~/.s3cfg", OWN)],
    "test_fork": [("~/.vault-token", PYTHON)],
    "test_python": [("~/.netrc", "test_it.py (test_python)"), ("~/.ssh", "test_it.py (test_python)")],
    "test_both": [("~/.netrc", CAT), ("~/.netrc", "test_it.py (test_both)"), ("~/.pypirc", OWN)],
}


def told(record: dict[str, Any]) -> list[tuple[str, str]]:
    """What, and by whom; without what is another one in each run."""
    found = []
    for violation in record["violations"]:
        assert (violation["kind"], violation["cure"]) == ("secrets", 'allow=["secrets"]')
        what = violation["what"].removeprefix("tried to read ")
        where = re.sub(r"^(test_it\.py):\d+", r"\1", violation["where"])
        where = re.sub(r"^pid \d+: (?:\S*/)?([a-z]+).*", r"pid N: \1", where)
        found.append((what, where))
    return sorted(found)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([], id="fork", marks=pytest.mark.vm),
        pytest.param(["--isolate-start=spawn"], id="spawn"),
        pytest.param(["--isolate-jobs=2"], id="jobs"),
        pytest.param(["--isolate-network=host"], id="host's network"),
    ],
)
def test_each_is_named(run: Runner, more: list[str]) -> None:
    inner = run(PROGRAMS, "--isolate-strict", *more)
    assert {record["nodeid"].rpartition(":")[2]: told(record) for record in inner.records} == FOUND
    assert inner.outcomes == {"failed": len(FOUND)}
    assert [record["network_attempts"] or 0 for record in inner.records] == [0] * len(FOUND)


def test_what_is_no_secret(run: Runner) -> None:
    inner = run(
        """
        import ctypes, os, subprocess, pytest

        @pytest.fixture(autouse=True)
        def _home():
            global home  # that of the sandbox
            home = os.path.expanduser("~")

        libc = ctypes.CDLL(None)

        def test_of_another_home(tmp_path):
            subprocess.run(["cat", f"{tmp_path}/.netrc"])
            subprocess.run(["sh", "-c", "cat ~/.ssh/config"], env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]})

        @pytest.mark.isolated(allow=["files"])
        def test_what_it_made():
            subprocess.run(["sh", "-c", "mkdir ~/.aws; echo x > ~/.aws/config"], check=True)
            assert subprocess.run(["cat", f"{home}/.aws/config"], capture_output=True).stdout == b"x\\n"

        def test_others():
            subprocess.run(["cat", f"{home}/.profile", f"{home}/.netrcs", f"{home}/ssh", f"{home}/x.ssh/id_rsa"])

        @pytest.mark.isolated(allow=["files"])
        def test_what_is_a_link():
            os.makedirs(f"{home}/shared/aws")
            os.symlink("../shared/aws", f"{home}/.aws")
            os.symlink("nowhere", f"{home}/.netrc")
            subprocess.run(["cat", f"{home}/.aws/../.aws", f"{home}/.netrc"])

        def test_to_ask_whether_it_is_there():
            assert not os.path.exists(f"{home}/.netrc")
            subprocess.run(["test", "-e", f"{home}/.netrc"])
            assert libc.open(f"{home}/.netrc".encode(), os.O_PATH) == -1

        @pytest.mark.isolated(allow=["files"])
        def test_to_write_it():
            subprocess.run(["sh", "-c", "echo x >> ~/.pgpass; exec 3<>~/.pypirc"], check=True)
            with open(f"{home}/.netrc", "w+") as file:
                assert file.read() == ""
            with open(f"{home}/.s3cfg", "a+") as file:
                assert file.read() == ""

        @pytest.mark.isolated(allow=["secrets"])
        def test_allowed():
            subprocess.run(["cat", f"{home}/.netrc"])

        def test_nonsense():
            for address in (None, 1, 2**47 - 1):
                assert libc.open(ctypes.c_void_p(address), os.O_RDONLY) == -1
            assert libc.openat(77, b".netrc", os.O_RDONLY) == -1
            reading, writing = os.pipe()
            assert libc.openat(reading, b".netrc", os.O_RDONLY) == -1
            os.close(reading), os.close(writing)
            assert libc.open(b"/" * 5000 + b".netrc", os.O_RDONLY) == -1
        """,
        "--isolate-strict",
    )
    assert [record["violations"] for record in inner.records] == [[]] * 8, inner.out
    assert inner.outcomes == {"passed": 8}


@pytest.mark.parametrize("name", ["/tmp/home", "/tmp/home/"])
def test_a_home_of_another_name(run: Runner, name: str) -> None:
    inner = run(
        f"""
        import os, subprocess, pytest

        @pytest.mark.isolated(env={{"HOME": "{name}"}}, allow=["files"])
        def test_it():
            os.makedirs("/tmp/home")
            with pytest.raises(OSError):
                open(os.path.expanduser("~/.netrc"))
            subprocess.run("cat ~/.pgpass; cd ~; cat .s3cfg", shell=True)
        """,
        "--isolate-strict",
    )
    told = [violation["what"] for violation in inner.record("test_it")["violations"]]
    assert sorted(told) == [f"tried to read ~/{name}" for name in (".netrc", ".pgpass", ".s3cfg")]


def test_of_many_some_are_told_and_the_network_keeps_its_room(run: Runner) -> None:
    inner = run(
        """
        import ctypes, os, socket

        def test_it():
            home, libc = os.path.expanduser("~").encode(), ctypes.CDLL(None)
            for n in range(100):
                libc.open(b"/tmp/%d/.ssh" % n, os.O_RDONLY)
            for n in range(300):
                libc.open(home + b"/.ssh/%d" % n, os.O_RDONLY)
            for port in range(1, 65):
                socket.socket().connect_ex(("192.0.2.1", port))
        """,
        "--isolate-strict",
    )
    record = inner.record("test_it")
    kinds = [violation["kind"] for violation in record["violations"]]
    assert (kinds.count("secrets"), kinds.count("network"), record["network_attempts"]) == (32, 64, 64)


def test_without_strict_only_python_tells(run: Runner) -> None:
    inner = run(
        """
        import os, subprocess, pytest

        def test_it():
            subprocess.run(["cat", os.path.expanduser("~/.netrc")])
            with pytest.raises(OSError):
                open(os.path.expanduser("~/.pypirc"))
        """
    )
    assert [violation["what"] for violation in inner.record("test_it")["violations"]] == [
        "tried to read ~/.pypirc"
    ]

"""A suite of kinds of tests that there are, with nothing in it that knows of a root: ``test_any_root.py`` runs
it in several. One test fails, one is skipped, two are expected to fail."""

# Written as people write tests.
# mypy: ignore-errors

from __future__ import annotations

import concurrent.futures
import locale
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("shared") / "numbers.txt"
    path.write_text("1\n2\n3\n")
    return path


@pytest.fixture(scope="module")
def log():
    return []


@pytest.fixture
def server():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()


def square(number):
    return number * number


def test_extension_modules_that_are_imported_late(tmp_path):
    import bz2
    import ctypes
    import decimal
    import lzma
    import sqlite3
    import ssl
    import zlib

    connection = sqlite3.connect(tmp_path / "db")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("INSERT INTO t VALUES (42)")
    assert connection.execute("SELECT x FROM t").fetchall() == [(42,)]
    connection.close()
    assert lzma.decompress(lzma.compress(b"x" * 1000)) == b"x" * 1000
    assert bz2.decompress(bz2.compress(zlib.compress(b"y"))) == zlib.compress(b"y")
    assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED
    assert ctypes.CDLL(None).getpid() == os.getpid()
    assert decimal.Decimal("0.1") + decimal.Decimal("0.2") == decimal.Decimal("0.3")


def test_a_shell_and_commands(tmp_path):
    (tmp_path / "in").write_text("b\na\nc\n")
    shell = subprocess.run(
        ["sh", "-c", 'sort "$1" | head -n 2 | tr a-z A-Z', "sh", tmp_path / "in"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == "A\nB\n"
    assert subprocess.check_output(["cat", tmp_path / "in"]) == b"b\na\nc\n"
    assert shutil.which("env") is not None


def test_another_interpreter():
    code = "import sys, json, hashlib, sqlite3; print(json.dumps([list(sys.version_info[:3]), sys.prefix]))"
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert out.strip() == f'[[{", ".join(map(str, sys.version_info[:3]))}], "{sys.prefix}"]'


def test_processes_that_are_spawned():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(abs, [-1, 2, -3]) == [1, 2, 3]


def test_processes_that_are_forked():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(square, [1, 2, 3]) == [1, 4, 9]


def test_threads(log):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(square, range(5))) == [0, 1, 4, 9, 16]
    threading.Thread(target=log.append, args=[1]).start()
    time.sleep(0)


def test_temporary_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("made").mkdir()
    with tempfile.NamedTemporaryFile() as file, tempfile.TemporaryDirectory() as directory:
        assert Path(file.name).parent == Path(directory).parent == Path(tempfile.gettempdir())
    assert sorted(tmp_path.iterdir()) == [tmp_path / "made"]


def test_files_of_the_system():
    directory = Path("/etc") if os.access("/etc", os.W_OK) else Path("/var/tmp")
    (directory / "any-root.conf").write_text("[any]\n")
    Path("/tmp/any-root").mkdir()
    assert (directory / "any-root.conf").read_text() == "[any]\n"
    assert Path("/proc/self/exe").exists()
    assert Path("/dev/null").is_char_device()


def test_that_nothing_of_the_last_test_is_there():
    assert not Path("/tmp/any-root").exists()
    assert not Path("/etc/any-root.conf").exists()


def test_text_and_time():
    assert sys.getfilesystemencoding() == "utf-8"
    assert locale.setlocale(locale.LC_ALL, "C.UTF-8")
    assert subprocess.check_output(["printf", "ü"]) == "ü".encode()
    assert time.strftime("%Y", time.gmtime(0)) == "1970"


def test_a_server_of_its_own(server):
    with socket.create_connection(server, timeout=5) as client:
        assert client.getpeername() == server
    assert socket.gethostbyname("localhost") == "127.0.0.1"


@pytest.mark.parametrize(("line", "number"), [(0, 1), (1, 2), (2, 3)])
def test_parameters_and_shared_fixtures(database, line, number):
    assert int(database.read_text().splitlines()[line]) == number


def test_output(capfd):
    os.system("echo from a shell")
    sys.stdout.write("from Python\n")
    assert capfd.readouterr().out == "from a shell\nfrom Python\n"


def test_that_fails():
    assert os.listdir("/proc/self/fd") == []


@pytest.mark.xfail(reason="always", strict=True)
def test_that_is_expected_to_fail():
    subprocess.run(["false"], check=True)


@pytest.mark.xfail(raises=OSError, strict=True)
def test_that_is_expected_to_raise():
    subprocess.run(["no-such-command"], check=True)


def test_that_is_skipped():
    pytest.importorskip("no_such_module")

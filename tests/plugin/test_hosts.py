"""``hosts=``: names that a test resolves, in every root."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]


@pytest.mark.vm
def test_names_resolve(run: Runner) -> None:
    inner = run(
        """
        import pytest, socket

        @pytest.mark.isolated(hosts={"db": "127.0.0.1", "API.example.org": "127.0.0.2", "six": "::1"})
        def test_names():
            assert socket.gethostbyname("db") == "127.0.0.1"
            assert socket.gethostbyname("api.example.org") == "127.0.0.2"
            assert socket.getaddrinfo("six", 80)[0][4][0] == "::1"
            assert socket.gethostbyname("localhost") == "127.0.0.1"

        @pytest.mark.isolated
        def test_no_names():
            assert "api.example.org" not in open("/etc/hosts").read()
        """
    )
    assert inner.outcomes == {"passed": 2}
    declared = {"hosts": {"db": "127.0.0.1", "api.example.org": "127.0.0.2", "six": "::1"}}
    assert inner.record("test_names")["declared"] == declared
    assert inner.record("test_no_names")["declared"] is None


def test_from_command_line_and_ini(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nisolate_hosts =\n    one=127.0.0.1\n    two=127.0.0.2\n")
    source = """
        import os, socket

        def test_it():
            for name, address in (pair.split("=") for pair in os.environ["NAMES"].split()):
                assert socket.gethostbyname(name) == address
        """
    names = "one=127.0.0.1 two=127.0.0.2"
    assert run(source, f"--isolate-env=NAMES={names}").outcomes == {"passed": 1}
    names = "three=127.0.0.3"
    inner = run(source, "--isolate-hosts=three=127.0.0.3", f"--isolate-env=NAMES={names}")
    assert inner.outcomes == {"passed": 1}


def test_the_roots_own_lines_stay(run: Runner, pytester: pytest.Pytester) -> None:
    """But for a name that is declared; and nothing of it is what the test wrote."""
    etc = pytester.mkdir("root") / "etc"
    etc.mkdir()
    etc.joinpath("hosts").write_text("# mine\n127.0.0.5 own db other # three names\n")
    inner = run(
        """
        def test_it():
            lines = [line.split() for line in open("/etc/hosts")]
            assert lines[:2] == [["127.0.0.1", "localhost"], ["::1", "localhost", "ip6-localhost", "ip6-loopback"]]
            assert lines[2:] == [["#", "mine"], ["127.0.0.5", "own", "other"], ["127.0.0.9", "db"]]
        """,
        "--isolate-rootfs=root",
        "--isolate-hosts=db=127.0.0.9",
    )
    assert inner.outcomes == {"passed": 1}
    assert not inner.record("test_it")["written_files"]
    assert etc.joinpath("hosts").read_text().startswith("# mine")


def test_a_root_without_the_file(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.mkdir("root")
    inner = run(
        """
        def test_it():
            assert open("/etc/hosts").read().endswith("127.0.0.9\\tdb\\n")
        """,
        "--isolate-rootfs=root",
        "--isolate-hosts=db=127.0.0.9",
    )
    assert inner.outcomes == {"passed": 1}
    assert not inner.record("test_it")["written_files"]


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_in_a_container(run: Runner, runtime: str) -> None:
    if shutil.which(runtime) is None:
        pytest.skip(f"{runtime} is not here; run: apt-get install {runtime}")
    inner = run(
        """
        import socket

        def test_it():
            assert socket.gethostbyname("db") == "127.0.0.9"
        """,
        "--isolate-hosts=db=127.0.0.9",
        f"--isolate-runtime={runtime}",
    )
    assert inner.outcomes == {"passed": 1}


def test_the_hosts_file_stays_as_it_is(run: Runner) -> None:
    before = Path("/etc/hosts").read_bytes()
    inner = run(
        """
        import os

        def test_it():
            with open("/etc/hosts", "a") as file:
                file.write("127.0.0.9 mine\\n")
        """,
        "--isolate-hosts=db=127.0.0.9",
        "--isolate-user=root",
    )
    assert inner.outcomes == {"passed": 1}
    assert Path("/etc/hosts").read_bytes() == before

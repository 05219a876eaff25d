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
            assert lines[2:4] == [["#", "mine"], ["127.0.0.5", "own", "other"]]
            assert lines[4:] == [["127.0.1.1", "isolated"], ["127.0.0.9", "db"]]
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


OWN_NAME = """
    import email.utils, http.server, socket, pytest

    def look():
        name = socket.gethostname()
        assert socket.gethostbyname(name) == "127.0.1.1"
        assert socket.getfqdn() == name
        assert email.utils.make_msgid().endswith(f"@{name}>")
        socket.create_server((name, 0)).close()
        http.server.HTTPServer(("", 0), http.server.BaseHTTPRequestHandler).server_close()

    def test_default(): look()

    @pytest.mark.isolated(hostname="Build-7.example")
    def test_chosen(): look()

    def test_other_family():
        for family in (socket.AF_INET, socket.AF_UNSPEC):
            assert socket.getaddrinfo(socket.gethostname(), 80, family)[0][4] == ("127.0.1.1", 80)
        with pytest.raises(OSError):
            socket.getaddrinfo(socket.gethostname(), 80, socket.AF_INET6)

    @pytest.mark.isolated(hostname="db", hosts={"db": "127.0.0.9"})
    def test_declared(): assert socket.gethostbyname("db") == "127.0.0.9"
"""


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--isolate-start=spawn"],
        ["--isolate-jobs=2"],
        ["--isolate-scope=module"],
        ["-p", "xdist", "-n1"],
        ["--isolate-strict"],
        ["--isolate-readonly"],
        ["--isolate-runtime=crun"],
    ],
    ids=" ".join,
)
def test_a_sandbox_knows_its_own_name(run: Runner, args: list[str]) -> None:
    if "crun" in args[-1:] and shutil.which("crun") is None:
        pytest.skip("crun is not here")
    inner = run(OWN_NAME, *args)
    assert inner.outcomes == {"passed": 4}, inner.out
    assert not any(record["violations"] for record in inner.records), inner.records
    assert not any(record["written_files"] for record in inner.records)


def test_in_other_roots(run: Runner, pytester: pytest.Pytester) -> None:
    """Where there is a place for it; where there is none, nothing is refused and nothing told."""
    (pytester.mkdir("empty") / "etc").mkdir()
    bare, odd = pytester.mkdir("bare"), pytester.mkdir("odd") / "etc"
    odd.symlink_to("/proc/self")
    for root, knows in ((pytester.path / "empty", True), (bare, False), (odd.parent, False)):
        source = f"""
            import pathlib, socket

            def test_it():
                hosts = pathlib.Path("/etc/hosts")
                assert {knows} == (hosts.exists() and "isolated" in hosts.read_text().split())
                try:
                    found = socket.gethostbyname(socket.gethostname())
                except OSError:
                    found = ""
                assert bool(found) == {knows}
            """
        inner = run(source, "test_it.py", f"--isolate-rootfs={root}")
        assert inner.outcomes == {"passed": 1}, inner.out
        record = inner.record("test_it")
        assert not record["written_files"]
        assert record["violations"] == []
    assert not (bare / "etc").exists()


def test_what_a_test_makes_of_the_file_is_told(run: Runner, pytester: pytest.Pytester) -> None:
    """As of any other file; and a file that the user has bound there stays."""
    (pytester.path / "mine").write_text("127.0.0.7 mine\n")
    inner = run(
        """
        import pathlib, pytest
        hosts = pathlib.Path("/etc/hosts")

        def test_read(): assert "isolated" in hosts.read_text().split()

        def test_written(): hosts.write_text("127.0.0.9 other\\n")

        @pytest.mark.isolated(writes=["/etc/hosts"])
        def test_named(): hosts.write_text("127.0.0.9 other\\n")

        @pytest.mark.isolated(readonly=True)
        def test_readonly():
            with pytest.raises(OSError, match="Read-only"):
                hosts.write_text("")

        @pytest.mark.isolated(binds={"mine": "/etc/hosts:ro"})
        def test_bound(): assert hosts.read_text() == "127.0.0.7 mine\\n"
        """,
        "--isolate-user=root",
    )
    assert inner.outcomes == {"passed": 5}, inner.out
    told = {record["nodeid"].partition("::")[2]: record["violations"] for record in inner.records}
    (violation,) = told.pop("test_written")
    assert violation["what"] == "changed /etc/hosts (16 bytes)"
    assert violation["where"] == "test_it.py:6 (test_written)"
    assert not any(told.values())
    assert [inner.record(name)["written_files"] for name in ("test_read", "test_written", "test_named")] == [
        0,
        1,
        1,
    ]

"""pytest-isolate verify over records that were made up: each thing that is not as it must be is named."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from pytest_isolate.account import Checksum
from pytest_isolate.cli import _parser
from pytest_isolate.cli.verify import verify

NAMESPACES = {
    name: 4026532000 + n for n, name in enumerate(("user", "pid", "mnt", "net", "ipc", "uts", "cgroup"))
}


def record(**changes: Any) -> dict[str, Any]:
    enforced = {
        "namespaces": NAMESPACES,
        "root": "overlay",
        "cgroup": "v2",
        "limits": {"memory.max": "67108864"},
        "capabilities": "0000000000000000",
        "no_new_privs": True,
        "seccomp": 2,
        "network_watch": "kernel",
        "secrets_watch": "kernel",
        "missing": [],
    } | changes.pop("enforced", {})
    usual: dict[str, Any] = {
        "schema": 1,
        "nodeid": "test_it.py::test",
        "outcome": "passed",
        "reason": "passed",
        "memory_limit_bytes": 67108864,
        "violations": [],
        "escapes": [],
        "enforced": enforced,
    }
    return usual | changes


def check(
    tmp_path: Path, *records: dict[str, Any], arguments: tuple[str, ...] = (), **summary: Any
) -> list[str]:
    """The problems that are found."""
    escapes = [{"nodeid": r["nodeid"], "what": what} for r in records for what in r["escapes"] or ()]
    usual: dict[str, Any] = {
        "strict": True,
        "exitstatus": 0,
        "selected": len(records),
        "unfinished": 0,
        "tests": len(records),
        "isolated": len(records),
        "escapes": escapes,
        "escapes_max": None,
        "degraded": 0,
        "violations": {"new": 0, "known": 0},
        "stale": 0,
        "enforced": [],
        "hash_seed": "0",
    }
    checksum, path = Checksum(), tmp_path / "out.jsonl"
    lines = [json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in records]
    for line in lines:
        checksum.add(line)
    path.write_bytes(b"".join([*lines, checksum.last_line(usual | summary)]))
    out = io.StringIO()
    status = verify(_parser().parse_args(["verify", str(path), *arguments]), out)
    printed = out.getvalue().splitlines()
    assert printed[-1] == ("not verified" if status else "verified")
    return printed[printed.index("") + 1 : -1] if "" in printed else printed[:-1]


def test_what_it_must_be(tmp_path: Path) -> None:
    assert check(tmp_path, record()) == []


IN_TEST = "test_it.py::test: "


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"enforced": {"namespaces": {"user": 1, "pid": 2}}}, "it shared the host's namespaces: cgroup ipc mnt net uts"),
        ({"enforced": {"no_new_privs": False}}, "no_new_privs was not set"),
        ({"enforced": {"no_new_privs": None}}, "no_new_privs was not set"),
        ({"enforced": {"capabilities": "0000000000200000"}}, "it had capabilities that no test needs: 0000000000200000"),
        ({"enforced": {"capabilities": None}}, "its capabilities are not known"),
        ({"enforced": {"cgroup": None}}, "its memory was to be limited, and it had no cgroup"),
        ({"enforced": {"limits": {}}}, "its memory was to be limited to 67108864 bytes, and no file of its cgroup says so"),
        ({"enforced": {"missing": ["pids is not available"]}}, "degraded: pids is not available"),
        ({"enforced": {"network_watch": "python"}}, "its use of the network was not watched by the kernel (python)"),
        ({"enforced": {"secrets_watch": None}}, "its reads of secrets were not watched by the kernel (nobody)"),
        ({"violations": None}, "nobody watched for violations"),
        ({"violations": [{"kind": "files", "what": "x", "known": False}]}, "violation: files: x"),
        ({"escapes": None}, "it was not run strictly"),
        ({"reason": "setup", "outcome": "error"}, "it was not run in a sandbox (error)"),
        ({"reason": "options", "outcome": "error"}, "it was not run in a sandbox (error)"),
    ],
)  # fmt: skip
def test_what_a_test_lacks(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    assert check(tmp_path, record(**changes)) == [IN_TEST + problem]


@pytest.mark.parametrize(
    ("escape", "enforced"),
    [
        ('network="host"', {"namespaces": {k: v for k, v in NAMESPACES.items() if k != "net"}}),
        ('network="host"', {"network_watch": None}),
        ('runtime="crun"', {"network_watch": "python"}),
        ('watch="off"', {"secrets_watch": None}),
        ('user="host-root"', {"capabilities": "000001ffffffffff"}),
        ('user="host-root"', {"namespaces": {k: v for k, v in NAMESPACES.items() if k != "user"}}),
    ],
)
def test_what_an_escape_accounts_for(escape: str, enforced: dict[str, Any], tmp_path: Path) -> None:
    assert check(tmp_path, record(escapes=[escape], enforced=enforced)) == []
    assert len(check(tmp_path, record(enforced=enforced))) == 1


def test_a_test_that_ran_twice_is_one(tmp_path: Path) -> None:
    again = record(escapes=['env="CI"'])
    escapes = [{"nodeid": again["nodeid"], "what": 'env="CI"'}]
    assert check(tmp_path, again, again, escapes=escapes, tests=1, selected=1) == []


def test_what_is_known_is_no_problem(tmp_path: Path) -> None:
    assert check(tmp_path, record(violations=[{"kind": "files", "what": "x", "known": True}])) == []


@pytest.mark.parametrize(
    ("summary", "problem"),
    [
        ({"strict": False}, "the session was not strict"),
        ({"exitstatus": 1}, "the session ended with exit status 1"),
        ({"unfinished": 3, "selected": 5}, "3 of 5 tests did not run to their end"),
        ({"tests": 3}, "2 of 3 tests have neither a record nor an escape"),
        ({"tests": 0}, "0 tests are fewer than 1"),
        ({"escapes": [{"nodeid": "test_it.py::test", "what": "x"}]}, "the escapes of the records are not those of the summary"),
        ({"escapes": [{"nodeid": "b", "what": "not_isolated: x"}], "escapes_max": 0, "tests": 2}, "1 escapes are more than 0"),
    ],
)  # fmt: skip
def test_what_the_session_lacks(summary: dict[str, Any], problem: str, tmp_path: Path) -> None:
    assert problem in check(tmp_path, record(), **summary)


def test_a_summary_of_nonsense_is_no_crash(tmp_path: Path) -> None:
    (problem,) = check(tmp_path, record(), enforced=[{"tests": 1}])[-1:]
    assert "holds what no run writes" in problem


def test_many_problems_are_cut(tmp_path: Path) -> None:
    found = check(tmp_path, *(record(nodeid=f"t{n}", violations=None) for n in range(30)))
    assert len(found) == 21
    assert found[-1] == "and 10 more"

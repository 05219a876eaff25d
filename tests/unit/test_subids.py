"""Ranges of subordinate ids: found in files, made into maps, given to files."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from pytest_isolate.errors import IsolateError
from pytest_isolate.kernel import subids
from pytest_isolate.kernel.cgroups.base import Problem
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.subids import Range, SubordinateIds, find_subordinate_ids, usable_subordinate_ids
from pytest_isolate.sandbox.images.owners import EVERYBODY, Given

NAME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For subuid and subgid, with programs beside them that nobody runs."""
    for name in subids.HELPERS:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(subids, "run_as_root", lambda *_: b"")
    return tmp_path


def grant(etc: Path, subuid: str, subgid: str) -> SubordinateIds | Problem:
    (etc / "subuid").write_text(subuid)
    (etc / "subgid").write_text(subgid)
    return find_subordinate_ids(Host(), etc)


def test_by_name_and_by_uid(etc: Path) -> None:
    found = grant(etc, f"other:1:9\n{NAME}:100000:65536\n", f"{os.geteuid()}:200000:1000")
    assert isinstance(found, SubordinateIds)
    assert (found.uids, found.gids) == (Range(100000, 65536), Range(200000, 1000))
    assert (found.newuidmap, found.newgidmap) == (str(etc / "newuidmap"), str(etc / "newgidmap"))


def test_the_largest_of_several(etc: Path) -> None:
    lines = f"{NAME}:1000:10\n{NAME}:3000:20\n{NAME}:5000:20\n"
    found = grant(etc, lines, lines)
    assert isinstance(found, SubordinateIds)
    assert found.uids == Range(3000, 20)


@pytest.mark.parametrize(
    "lines", ["", "\n", f"{NAME}:100000", f"{NAME}:x:1", f"{NAME}:-5:10", f"{NAME}:1:0", "\xff:1:2"]
)
def test_no_range(etc: Path, lines: str) -> None:
    ids = "100000-165535"
    cure = f"run: sudo usermod --add-subuids {ids} --add-subgids {ids} {NAME}"
    assert grant(etc, lines, "") == Problem(f"{etc}/subuid has no range for {NAME}", cure)


def test_what_is_to_be_granted_is_nobodys_yet(etc: Path) -> None:
    found = grant(etc, f"{NAME}:100000:65536\n", "other:300000:5\n")
    assert isinstance(found, Problem)
    assert found.reason == f"{etc}/subgid has no range for {NAME}"
    assert "--add-subuids 300005-365540 " in found.cure


def test_files_that_are_not_there(etc: Path) -> None:
    assert isinstance(find_subordinate_ids(Host(), etc), Problem)


def test_without_the_programs(etc: Path) -> None:
    (etc / "newgidmap").unlink()
    found = grant(etc, f"{NAME}:1:1", f"{NAME}:1:1")
    assert isinstance(found, Problem)
    assert found.cure == "run: sudo apt-get install uidmap"


def test_a_range_that_cannot_be_mapped(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise IsolateError("cannot map subordinate ids: newuidmap: no")

    monkeypatch.setattr(subids, "run_as_root", refuse)
    lines = f"{NAME}:1:1"
    assert grant(etc, lines, lines) == Problem("cannot map subordinate ids: newuidmap: no")


def test_root_needs_none() -> None:
    host = Host()
    vars(host)["privileged"] = True
    assert usable_subordinate_ids(host) is None


@pytest.mark.parametrize(
    ("seen_as", "expected"),
    [
        (0, ["0 1000 1", "1 5000 10"]),
        (1, ["1 1000 1", "2 5001 9"]),
        (4, ["1 5000 3", "4 1000 1", "5 5004 6"]),
        (10, ["1 5000 9", "10 1000 1"]),
        (11, ["1 5000 10", "11 1000 1"]),
        (65534, ["1 5000 10", "65534 1000 1"]),
    ],
)
def test_maps(seen_as: int, expected: list[str]) -> None:
    """Whoever is not the caller has one id on the host, whomever the caller is seen as."""
    assert Range(5000, 10).map(1000, seen_as).splitlines() == expected


def test_what_is_given() -> None:
    given = Given(most=10, own=4)
    assert [given.give(wanted) for wanted in (0, 4, 1, 10, 11, -1, 2**32)] == [0, 0, 1, 10, None, None, None]
    assert given.ids == {1, 10}
    assert Given(most=10, own=65534).give(65534) == 0
    assert EVERYBODY.uids.give(2**31) == 2**31

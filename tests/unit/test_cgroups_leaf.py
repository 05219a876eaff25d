"""Who may be moved (only we ourselves) and which controllers are handed down, on files like cgroup2's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_isolate.kernel.cgroups.base import LEAF, Problem
from pytest_isolate.kernel.cgroups.leaf import Leaf, enter_leaf, find_base, hand_down


def cgroup(path: Path, *pids: int, controllers: str = "cpuset cpu io memory pids", root: bool = False) -> str:
    path.mkdir(exist_ok=True)
    (path / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    (path / "cgroup.controllers").write_text(f"{controllers}\n")
    (path / "cgroup.subtree_control").write_text("")
    if not root:
        (path / "cgroup.type").write_text("domain\n")
    return str(path)


def test_alone_moves_itself(tmp_path: Path) -> None:
    own = cgroup(tmp_path, os.getpid())
    cgroup(tmp_path / LEAF)
    assert enter_leaf(own) == Leaf(own)
    assert (tmp_path / LEAF / "cgroup.procs").read_text() == str(os.getpid())


def test_others_are_named_and_not_moved(tmp_path: Path) -> None:
    own = cgroup(tmp_path, os.getpid(), os.getppid(), 0, 4000001, 4000002)
    found = enter_leaf(own)
    assert isinstance(found, Problem)
    assert f"holds other processes too: {os.getppid()} (" in found.reason
    assert found.reason.endswith(", one not visible here, 4000001 (?) and 1 more")
    assert found.cure
    assert not (tmp_path / LEAF).exists()


@pytest.mark.parametrize(
    ("own", "why"),
    [
        ({"controllers": ""}, "nothing to hand down"),
        ({"root": True}, "the root may have processes and children"),
    ],
)
def test_no_need_to_move(tmp_path: Path, own: dict[str, bool], why: str) -> None:
    assert enter_leaf(cgroup(tmp_path, 1, 2, 3, **own)) is None, why  # type: ignore[arg-type]


def test_in_a_leaf_already(tmp_path: Path) -> None:
    own = cgroup(tmp_path / LEAF, os.getpid(), 1)
    assert enter_leaf(own) is None
    assert find_base(own) == str(tmp_path)
    assert find_base("/sys/fs/cgroup/a") == "/sys/fs/cgroup/a"


def test_hand_down_what_there_is(tmp_path: Path) -> None:
    directory = cgroup(tmp_path, controllers="memory pids hugetlb")
    (tmp_path / "cgroup.subtree_control").write_text("memory\n")
    problems = hand_down(directory)
    assert sorted(problems) == ["cpu", "io"]
    assert problems["cpu"].reason == f"{directory}/cgroup.controllers does not list cpu"
    assert problems["cpu"].cure
    assert (tmp_path / "cgroup.subtree_control").read_text().startswith("+pids")


def test_refused_hand_down_keeps_the_kernels_reason(tmp_path: Path) -> None:
    directory = cgroup(tmp_path, controllers="memory")
    (tmp_path / "cgroup.subtree_control").unlink()
    reason = hand_down(directory, ("memory",))["memory"].reason
    assert reason == f"{directory}/cgroup.subtree_control: No such file or directory"


def test_leaving_is_best_effort(tmp_path: Path) -> None:
    Leaf(str(tmp_path)).leave()

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_isolate.kernel.host import Host
from pytest_isolate.sandbox import pool as module
from pytest_isolate.sandbox.lending import Workspace
from pytest_isolate.sandbox.plan import Plan, make_plan
from pytest_isolate.sandbox.pool import Berth, Pool
from pytest_isolate.spec import Spec


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(Spec(), Host(), Workspace(cwd="/", project=(), interpreter=(), writable=()))


def berth(plan: Plan, sandbox_id: int, fds: tuple[int, ...] | None = None) -> Berth:
    return Berth(f"t{sandbox_id}", plan, None, sandbox_id, fds)


def test_takes_what_is_built_first_and_each_once(plan: Plan) -> None:
    pool = Pool()
    pool.add(berth(plan, 1))
    pool.add(berth(plan, 2, fds=()))
    assert pool.count(plan) == 2
    taken = [pool.take(plan) for _ in range(3)]
    assert [t.sandbox_id if t else None for t in taken] == [2, 1, None]
    assert len(pool) == 0


def test_only_of_the_same_plan(plan: Plan, tmp_path: Path) -> None:
    pool = Pool()
    pool.add(berth(plan, 1))
    other = make_plan(Spec(hostname="b"), Host(), Workspace(cwd="/", project=(), interpreter=(), writable=()))
    assert pool.take(other) is None
    assert pool.count(other) == 0


def test_what_could_not_be_built_is_not_taken_and_not_tried_for_ever(plan: Plan) -> None:
    pool = Pool()
    pool.add(berth(plan, 1))
    pool[1].given_up = True
    assert pool.take(plan) is None
    assert pool.count(plan) == 1
    pool.drop(1)
    assert pool.count(plan) == 0


def test_is_bounded(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BERTHS", 2)
    pool = Pool()
    for sandbox_id in (1, 2):
        pool.add(berth(plan, sandbox_id))
        assert pool.surplus() is None
    pool.add(berth(plan, 3))
    surplus = pool.surplus()
    assert surplus is not None
    assert surplus.sandbox_id == 1
    surplus.given_up = True
    assert pool.surplus() is None


def test_dropping_closes_descriptors(plan: Plan) -> None:
    pool = Pool()
    fd = os.open("/", os.O_PATH)
    pool.add(berth(plan, 1, fds=(fd,)))
    pool.drop(1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)

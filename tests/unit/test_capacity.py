"""What the machine has for tests that run at the same time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_isolate.kernel.available import available_cpus, available_memory_bytes
from pytest_isolate.runner.capacity import Capacity
from pytest_isolate.spec import Limits
from pytest_isolate.values import AUTO

MIB = 2**20


def capacity(jobs: int = 4, memory_mib: int = 100, cpus: float = 2.0) -> Capacity:
    return Capacity(jobs=jobs, memory_bytes=memory_mib * MIB, cpus=cpus)


def limits(memory_mib: int | None = None, cpus: float | None = None) -> Limits:
    return Limits(memory_bytes=None if memory_mib is None else memory_mib * MIB, cpus=cpus)


@pytest.mark.parametrize(
    ("wanted", "running", "admitted"),
    [
        (limits(), [], True),
        (limits(), [limits()] * 3, True),
        (limits(), [limits()] * 4, False),
        (limits(60), [limits(40)], True),
        (limits(61), [limits(40)], False),
        (limits(1000), [], True),  # alone, or never
        (limits(1000), [limits()], False),
        (limits(cpus=1.5), [limits(cpus=0.5), limits()], True),
        (limits(cpus=1.6), [limits(cpus=0.5)], False),
    ],
)
def test_admits(wanted: Limits, running: list[Limits], admitted: bool) -> None:
    assert capacity().admits(wanted, running) is admitted


def test_workers_share() -> None:
    shares = [Capacity.find(5, 100 * MIB, worker=number, workers=3) for number in range(3)]
    assert [share.jobs for share in shares] == [2, 2, 1]
    assert {share.memory_bytes for share in shares} == {100 * MIB // 3}
    assert Capacity.find(1, None, worker=3, workers=8).jobs == 1


def test_auto_is_a_job_for_each_processor() -> None:
    found = Capacity.find(AUTO, None)
    assert found.jobs == max(int(available_cpus()), 1) <= len(os.sched_getaffinity(0))
    assert 0 < found.memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A machine with cgroup v2 in which this process is two levels deep."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("0::/ci/job\n")
    mount = f"36 25 0:30 / {tmp_path}/cgroup rw - cgroup2 cgroup2 rw\n"
    (tmp_path / "self" / "mountinfo").write_text(mount)
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable:   4000000 kB\n")
    (tmp_path / "cgroup" / "ci" / "job").mkdir(parents=True)
    return tmp_path


def test_without_a_limit(proc: Path) -> None:
    (proc / "cgroup" / "ci" / "cpu.max").write_text("max 100000\n")
    (proc / "cgroup" / "ci" / "memory.max").write_text("max\n")
    assert available_cpus(str(proc)) == len(os.sched_getaffinity(0))
    assert available_memory_bytes(str(proc)) == 4_000_000 * 1024


def test_a_limit_of_a_cgroup_above_counts(proc: Path) -> None:
    (proc / "cgroup" / "ci" / "cpu.max").write_text("50000 100000\n")
    (proc / "cgroup" / "ci" / "memory.max").write_text("1048576\n")
    assert available_cpus(str(proc)) == 0.5
    assert available_memory_bytes(str(proc)) == MIB


def test_limits_of_v1(proc: Path) -> None:
    (proc / "self" / "cgroup").write_text("4:memory:/job\n3:cpu,cpuacct:/job\n")
    (proc / "self" / "mountinfo").write_text(
        f"36 25 0:30 / {proc}/m rw - cgroup cgroup rw,memory\n"
        f"37 25 0:31 / {proc}/c rw - cgroup cgroup rw,cpu,cpuacct\n"
    )
    (proc / "m" / "job").mkdir(parents=True)
    (proc / "c" / "job").mkdir(parents=True)
    (proc / "m" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (proc / "m" / "job" / "memory.limit_in_bytes").write_text("2097152\n")
    (proc / "c" / "job" / "cpu.cfs_quota_us").write_text("25000\n")
    (proc / "c" / "job" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cpus(str(proc)) == 0.25
    assert available_memory_bytes(str(proc)) == 2 * MIB


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    assert available_cpus(str(tmp_path)) == len(os.sched_getaffinity(0))
    assert available_memory_bytes(str(tmp_path)) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

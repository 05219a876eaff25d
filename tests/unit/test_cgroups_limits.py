"""What is written for a limit, and what is said when it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_isolate.errors import SetupError, UnsupportedError
from pytest_isolate.kernel.cgroups import v1, v2
from pytest_isolate.kernel.cgroups.base import Problem, check_limits, cpu_quota
from pytest_isolate.spec import Limits

MIB = 1 << 20


@pytest.mark.parametrize(
    ("cpus", "quota", "period"),
    [
        (0.5, 50_000, 100_000),
        (2.0, 200_000, 100_000),
        (0.01, 1_000, 100_000),
        (0.005, 1_000, 200_000),
        (0.0001, 1_000, 1_000_000),
    ],
)
def test_cpu_quota_stays_in_the_kernels_bounds(cpus: float, quota: int, period: int) -> None:
    assert cpu_quota(cpus) == (quota, period)


@pytest.mark.parametrize(
    ("limits", "on_v1", "on_v2"),
    [
        (Limits(), {}, {}),
        (Limits(timeout_s=1, files=9, cpu_time_s=2), {}, {}),
        (
            Limits(memory_bytes=64 * MIB),
            {"memory.limit_in_bytes": "67108864", "memory.memsw.limit_in_bytes": "67108864"},
            {"memory.max": "67108864", "memory.oom.group": "1", "memory.swap.max": "0"},
        ),
        (
            Limits(memory_bytes=64 * MIB, swap_bytes=MIB),
            {"memory.limit_in_bytes": "67108864", "memory.memsw.limit_in_bytes": "68157440"},
            {"memory.max": "67108864", "memory.oom.group": "1", "memory.swap.max": "1048576"},
        ),
        (
            Limits(cpus=0.5),
            {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"},
            {"cpu.max": "50000 100000"},
        ),
        (Limits(pids=32), {"pids.max": "32"}, {"pids.max": "32"}),
    ],
)
def test_limit_files(limits: Limits, on_v1: dict[str, str], on_v2: dict[str, str]) -> None:
    assert list(v1.limit_files(limits).items()) == list(on_v1.items())  # the order counts
    assert list(v2.limit_files(limits).items()) == list(on_v2.items())


@pytest.mark.parametrize(
    ("limits", "feature"),
    [
        (Limits(memory_bytes=1), "cgroup memory limit"),
        (Limits(swap_bytes=1), "cgroup memory limit"),
        (Limits(cpus=1), "cgroup cpu limit"),
        (Limits(pids=1), "cgroup pids limit"),
    ],
)
def test_missing_controller(limits: Limits, feature: str) -> None:
    name = feature.split()[1]
    with pytest.raises(UnsupportedError) as caught:
        check_limits(limits, {"memory", "cpu", "pids"} - {name}, {name: Problem("a reason", "a cure")})
    assert (caught.value.feature, caught.value.reason, caught.value.cure) == (feature, "a reason", "a cure")
    check_limits(Limits(), (), {})


def test_swap_that_the_kernel_does_not_count() -> None:
    with pytest.raises(UnsupportedError, match="cgroup swap limit"):
        check_limits(Limits(memory_bytes=1), {"memory"}, {"swap": Problem("not counted")})


def test_v1_cannot_limit_swap_alone(tmp_path: Path) -> None:
    cgroups = v1.V1Cgroups("v1", {"memory": str(tmp_path)}, (), {})
    with pytest.raises(UnsupportedError, match="memory and swap together"):
        cgroups.create("t", Limits(swap_bytes=1))


def test_limits_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "pids.max").write_text("max\n")
    cgroup = v2.V2Cgroup(str(tmp_path))
    cgroup.limit({"memory.max": "67108864"})
    assert dict(cgroup.read_limits()) == {"memory.max": "67108864"}


def test_refused_limit_names_file_and_value(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"memory\.max: No such file") as caught:
        v2.V2Cgroup(str(tmp_path)).limit({"memory.max": "1"})
    assert caught.value.step == "cgroup memory.max=1"


def test_failed_create_leaves_no_directory(tmp_path: Path) -> None:
    for create in (
        v1.V1Cgroups("v1", {"memory": str(tmp_path)}, (), {}).create,
        v2.V2Cgroups(str(tmp_path), -1, None, {}).create,
    ):
        with pytest.raises(SetupError):
            create("t", Limits(memory_bytes=1))
        assert not list(tmp_path.iterdir())


def test_v1_lists_each_shared_directory_once() -> None:
    cgroup = v1.V1Cgroup("t", {"memory": "/m/t", "cpu": "/c/t", "cpuacct": "/c/t"})
    assert cgroup.paths == ("/m/t", "/c/t")
    assert cgroup.entry.tasks == ("/m/t/tasks", "/c/t/tasks")
    assert cgroup.entry.directory is None

"""Usage from files as real kernels wrote them: 20 MiB and 1 s of CPU at half a core, then 80 MiB in 64."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_isolate.kernel.cgroups.v1 import V1Cgroup
from pytest_isolate.kernel.cgroups.v2 import V2Cgroup
from pytest_isolate.usage import CgroupUsage

V1_FILES = {  # Linux 6.18
    "memory.max_usage_in_bytes": "67108864\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    "cpu.stat": "nr_periods 21\nnr_throttled 21\nthrottled_time 1013093703\nnr_bursts 0\nburst_time 0\n",
    "cpuacct.stat": "user 28\nsystem 79\n",
    "cpuacct.usage": "1073314072\n",
    "cpuacct.usage_sys": "759992712\n",
    "cpuacct.usage_user": "271521878\n",
    "pids.events": "max 0\n",
    "pids.peak": "1\n",
}
V2_FILES = {  # Linux 6.12, Debian
    "cpu.stat": (
        "usage_usec 1827980\nuser_usec 793274\nsystem_usec 1034706\nnice_usec 0\n"
        "nr_periods 37\nnr_throttled 36\nthrottled_usec 1769209\nnr_bursts 0\nburst_usec 0\n"
    ),
    "io.stat": (
        "254:0 rbytes=4096 wbytes=102400 rios=1 wios=1 dbytes=0 dios=0\n"
        "8:0\n"
        "8:16 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=0 dios=0\n"
    ),
    "memory.events": "low 0\nhigh 0\nmax 35\noom 1\noom_kill 2\noom_group_kill 1\n",
    "memory.peak": "67108864\n",
    "memory.current": "4096\n",
    "pids.events": "max 3\n",
    "pids.peak": "1\n",
}


def v1_cgroup(directory: Path, files: dict[str, str]) -> V1Cgroup:
    for name, text in files.items():
        (directory / name).write_text(text)
    return V1Cgroup("t", dict.fromkeys(("memory", "cpu", "cpuacct", "pids"), str(directory)))


def v2_cgroup(directory: Path, files: dict[str, str]) -> V2Cgroup:
    for name, text in files.items():
        (directory / name).write_text(text)
    return V2Cgroup(str(directory))


def test_v1(tmp_path: Path) -> None:
    usage = v1_cgroup(tmp_path, V1_FILES).read_usage()
    assert usage.cpu_user_s is not None
    assert usage.cpu_system_s is not None
    assert usage.cpu_user_s + usage.cpu_system_s == pytest.approx(1.073314072)  # the exact file's sum
    assert usage.cpu_system_s / usage.cpu_user_s == pytest.approx(759992712 / 271521878)
    assert usage.throttled_s == pytest.approx(1.013093703)
    assert usage.memory_peak_bytes == 67108864
    assert (usage.oom_kills, usage.pids_peak, usage.pids_refused) == (1, 1, 0)
    assert usage.io_read_bytes is None


def test_v1_before_linux_4_7_splits_by_ticks(tmp_path: Path) -> None:
    files = {"cpuacct.usage": "2000000000\n", "cpuacct.stat": "user 30\nsystem 10\n"}
    usage = v1_cgroup(tmp_path, files).read_usage()
    assert (usage.cpu_user_s, usage.cpu_system_s) == pytest.approx((1.5, 0.5))


def test_v1_less_than_a_tick_is_user_time(tmp_path: Path) -> None:
    files = {"cpuacct.usage": "1000000\n", "cpuacct.usage_user": "0\n", "cpuacct.usage_sys": "0\n"}
    usage = v1_cgroup(tmp_path, files).read_usage()
    assert (usage.cpu_user_s, usage.cpu_system_s) == (0.001, 0.0)


def test_v2(tmp_path: Path) -> None:
    assert v2_cgroup(tmp_path, V2_FILES).read_usage() == CgroupUsage(
        cpu_user_s=0.793274,
        cpu_system_s=1.034706,
        throttled_s=1.769209,
        memory_peak_bytes=67108864,
        oom_kills=2,
        pids_peak=1,
        pids_refused=3,
        io_read_bytes=4097,
        io_write_bytes=102402,
    )


def test_v2_without_controllers_still_counts_cpu_time(tmp_path: Path) -> None:
    files = {"cpu.stat": "usage_usec 3\nuser_usec 1\nsystem_usec 2\n"}
    assert v2_cgroup(tmp_path, files).read_usage() == CgroupUsage(cpu_user_s=1e-6, cpu_system_s=2e-6)


def test_v2_before_linux_5_19_the_highest_sample_is_the_peak(tmp_path: Path) -> None:
    cgroup = v2_cgroup(tmp_path, {"memory.current": "4096\n"})
    assert cgroup.read_usage().memory_peak_bytes is None
    for current in (4096, 65536, 8192):
        (tmp_path / "memory.current").write_text(f"{current}\n")
        assert cgroup.sample()
    assert cgroup.read_usage().memory_peak_bytes == 65536
    (tmp_path / "memory.peak").write_text("70000\n")
    assert not cgroup.sample()
    assert cgroup.read_usage().memory_peak_bytes == 70000


def test_what_is_not_there_was_not_measured(tmp_path: Path) -> None:
    assert v1_cgroup(tmp_path, {}).read_usage() == CgroupUsage()
    assert V1Cgroup("t", {}).read_usage() == CgroupUsage()
    assert v2_cgroup(tmp_path, {}).read_usage() == CgroupUsage()
    assert v2_cgroup(tmp_path, {}).oom_event_fd() is None
    assert v1_cgroup(tmp_path, {}).oom_event_fd() is None

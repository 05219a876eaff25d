"""Real cgroups of whichever version this machine has.  Children only of our own; nothing is left."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from pytest_isolate.errors import UnsupportedError
from pytest_isolate.kernel.cgroups import Cgroup, Cgroups, open_cgroups, prepare_leaf, remove_sessions
from pytest_isolate.kernel.cgroups.detect import find_place
from pytest_isolate.kernel.cgroups.files import processes
from pytest_isolate.spec import Limits

pytestmark = pytest.mark.vm

MIB = 1 << 20

#: Says its session directories, then sleeps; a child of it that sleeps in a test's cgroup.
SESSION = """
import os, sys, time
from pytest_isolate.kernel.cgroups import open_cgroups
from pytest_isolate.spec import Limits
cgroups = open_cgroups(run_id=sys.argv[1])
cgroup = cgroups.create("test", Limits())
if os.fork() == 0:
    for fd in cgroups.lock_fds:
        os.close(fd)
    for path in cgroup.entry.tasks or [f"{cgroup.entry.directory}/cgroup.procs"]:
        with open(path, "w") as file:
            file.write("0")
    print(os.getpid(), *cgroups.session_paths, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _back_home() -> Iterator[None]:
    """This process is back where it was (that nothing of ours is left is checked after every kernel test)."""
    before = open_text("/proc/self/cgroup")
    yield
    assert open_text("/proc/self/cgroup") == before


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    try:
        session = open_cgroups(run_id=secrets.token_hex(4))
    except UnsupportedError as error:
        pytest.skip(str(error))
    yield session
    session.close()


@pytest.fixture
def limited(cgroups: Cgroups) -> Cgroups:
    """With all controllers that limits need."""
    for controller in ("memory", "cpu", "pids"):
        if controller not in cgroups.controllers:
            pytest.skip(str(cgroups.missing(controller)))
    return cgroups


def open_text(path: str) -> str:
    with open(path) as file:
        return file.read()


def start(cgroup: Cgroup, body: Callable[[], object]) -> int:
    """A child that runs ``body`` inside, and exits with 0 if that returns."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for path in cgroup.entry.tasks or (f"{cgroup.entry.directory}/cgroup.procs",):
                with open(path, "w") as file:
                    file.write("0")
            os.write(write_end, b"x")
            body()
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    assert os.read(read_end, 1) == b"x"
    os.close(read_end)
    return pid


def run(cgroup: Cgroup, body: Callable[[], object]) -> int:
    """Its wait status."""
    return os.waitpid(start(cgroup, body), 0)[1]


def touch_memory(size: int) -> None:
    """Use memory in a way that the kernel cannot merge or put off."""
    block = mmap.mmap(-1, size)
    for offset in range(0, size, mmap.PAGESIZE):
        block[offset] = 1


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_limits_are_enforced_as_read_back(limited: Cgroups) -> None:
    cgroup = limited.create("t", Limits(memory_bytes=64 * MIB, cpus=0.5, pids=32))
    limits = cgroup.read_limits()
    if limited.version == "v2":
        assert limits["memory.max"] == str(64 * MIB)
        assert limits["cpu.max"] == "50000 100000"
    else:
        assert limits["memory.limit_in_bytes"] == str(64 * MIB)
        assert limits["cpu.cfs_quota_us"] == "50000"
    assert limits["pids.max"] == "32"
    cgroup.remove()


def test_no_limits_no_files(cgroups: Cgroups) -> None:
    cgroup = cgroups.create("t", Limits())
    assert not cgroup.read_limits()
    assert all(os.path.isdir(path) for path in cgroup.paths)
    cgroup.remove()
    cgroup.remove()
    assert not any(os.path.exists(path) for path in cgroup.paths)


def test_memory_limit_kills_and_is_counted(limited: Cgroups) -> None:
    cgroup = limited.create("t", Limits(memory_bytes=32 * MIB))
    event = cgroup.oom_event_fd()
    status = run(cgroup, lambda: touch_memory(64 * MIB))
    assert os.WTERMSIG(status) == signal.SIGKILL
    usage = cgroup.read_usage()
    assert usage.oom_kills
    assert usage.memory_peak_bytes is None or usage.memory_peak_bytes == pytest.approx(32 * MIB, rel=0.03)
    if event is not None:
        assert select.select([event], [], [], 0)[0]
    assert (event is None) == (limited.version == "v2")
    cgroup.remove()


def test_memory_peak_of_a_known_allocation(limited: Cgroups) -> None:
    cgroup = limited.create("t", Limits(memory_bytes=128 * MIB))
    assert run(cgroup, lambda: touch_memory(48 * MIB)) == 0
    usage = cgroup.read_usage()
    assert usage.oom_kills == 0
    assert usage.memory_peak_bytes is None or usage.memory_peak_bytes == pytest.approx(48 * MIB, rel=0.06)
    cgroup.remove()


def test_memory_limit_on_v2_kills_all_of_the_cgroup(limited: Cgroups) -> None:
    if limited.version != "v2":
        pytest.skip("cgroup v1 has no memory.oom.group")
    cgroup = limited.create("t", Limits(memory_bytes=32 * MIB))
    bystander = start(cgroup, lambda: time.sleep(600))
    assert os.WTERMSIG(run(cgroup, lambda: touch_memory(64 * MIB))) == signal.SIGKILL
    assert os.WTERMSIG(os.waitpid(bystander, 0)[1]) == signal.SIGKILL
    cgroup.remove()


def test_pids_limit_refuses_forks_and_is_counted(limited: Cgroups) -> None:
    def fork_twice() -> None:
        if os.fork() == 0:
            time.sleep(600)
        with pytest.raises(BlockingIOError):
            os.fork()

    cgroup = limited.create("t", Limits(pids=2))
    assert run(cgroup, fork_twice) == 0
    usage = cgroup.read_usage()
    assert usage.pids_refused == 1
    assert usage.pids_peak in (None, 2)
    assert len(cgroup.processes()) == 1  # the one that sleeps outlived its parent
    cgroup.kill()
    cgroup.remove()


def test_cpu_time_of_a_known_burn(cgroups: Cgroups) -> None:
    cgroup = cgroups.create("t", Limits())
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run(cgroup, lambda: burn(0.5)) == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    usage = cgroup.read_usage()
    assert usage.cpu_user_s is not None
    assert usage.cpu_system_s is not None
    # rusage counts the way from the fork into the cgroup too.
    upper = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert 0.5 * 0.97 < usage.cpu_user_s + usage.cpu_system_s < upper * 1.03
    cgroup.remove()


def test_cpu_limit_throttles(limited: Cgroups) -> None:
    cgroup = limited.create("t", Limits(cpus=0.05))
    assert run(cgroup, lambda: burn(0.05)) == 0
    throttled = cgroup.read_usage().throttled_s
    assert throttled is not None
    assert throttled > 0
    cgroup.remove()


def test_kill_takes_the_whole_tree(cgroups: Cgroups) -> None:
    def tree() -> None:
        os.setsid()
        os.fork()
        os.fork()
        time.sleep(600)

    cgroup = cgroups.create("t", Limits())
    pid = start(cgroup, tree)
    while len(cgroup.processes()) < 4:
        time.sleep(0.01)
    cgroup.kill()
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    cgroup.remove()  # waits for the three that init reaps
    assert cgroup.processes() == []


def test_remove_of_a_cgroup_in_use_fails(cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_isolate.kernel.cgroups.files.REMOVE_TIMEOUT_S", 0.05)
    cgroup = cgroups.create("t", Limits())
    pid = start(cgroup, lambda: time.sleep(600))
    with pytest.raises(OSError, match="busy"):
        cgroup.remove()
    cgroup.kill()
    os.waitpid(pid, 0)
    cgroup.remove()


def test_close_removes_cgroups_and_kills_what_is_inside(cgroups: Cgroups) -> None:
    cgroup = cgroups.create("t", Limits())
    os.mkdir(f"{cgroup.paths[0]}/nested")
    pid = start(cgroup, lambda: time.sleep(600))
    cgroups.close()
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert not any(os.path.exists(path) for path in cgroups.session_paths)


def test_usage_after_removal_is_not_measured(cgroups: Cgroups) -> None:
    cgroup = cgroups.create("t", Limits())
    cgroup.remove()
    assert cgroup.read_usage().cpu_user_s is None
    assert cgroup.processes() == []


@contextlib.contextmanager
def another_session() -> Iterator[tuple[int, int, list[str]]]:
    """Of a process of its own: its pid, that of its test, and its directories."""
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION, secrets.token_hex(4)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    test, *paths = process.stdout.readline().split()
    try:
        yield process.pid, int(test), paths
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        remove_sessions(paths)


def test_what_a_killed_session_left_is_swept_by_the_next(cgroups: Cgroups) -> None:
    with another_session() as (pid, test, paths):
        assert test in processes(f"{paths[0]}/test")
        open_cgroups(run_id=secrets.token_hex(4)).close()
        assert all(os.path.exists(path) for path in paths), "it is alive"
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        open_cgroups(run_id=secrets.token_hex(4)).close()
        assert not any(os.path.exists(path) for path in paths)
    assert all(os.path.exists(path) for path in cgroups.session_paths), "we are alive"


def test_leaf_is_prepared_once_and_left_again() -> None:
    leave = prepare_leaf()
    try:
        prepare_leaf()()
        try:
            open_cgroups(run_id=secrets.token_hex(4)).close()
        except UnsupportedError as error:
            pytest.skip(str(error))
    finally:
        leave()


def test_company_in_the_own_cgroup_is_named_and_stays() -> None:
    place = find_place()
    if place.v1 or place.v2 is None or not os.path.exists(f"{place.v2}/cgroup.type"):
        pytest.skip("only cgroup2, below the root, minds")
    company = subprocess.Popen(["sleep", "600"])
    try:
        before = open_text(f"/proc/{company.pid}/cgroup")
        session = open_cgroups(run_id=secrets.token_hex(4))
        with pytest.raises(UnsupportedError, match=rf"{company.pid} \(") as caught:
            session.create("t", Limits(memory_bytes=MIB))
        assert caught.value.cure
        cgroup = session.create("t", Limits())
        assert run(cgroup, lambda: burn(0.05)) == 0
        assert cgroup.read_usage().cpu_user_s is not None
        session.close()
        assert open_text(f"/proc/{company.pid}/cgroup") == before
    finally:
        company.kill()
        company.wait()

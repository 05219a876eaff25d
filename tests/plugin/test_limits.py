"""Caps, and what is said when they are hit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import TIME_SCALE, Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]
OOM = "memory limit 64.0 MiB exceeded: killed by the kernel (peak *raise it with @pytest.mark.isolated(memory=…)"


@pytest.mark.needs("cgroup memory limit")
@pytest.mark.parametrize(
    "body",
    [
        "bytearray(200 * 2**20)",
        """
        children = []
        for _ in range(4):
            if (pid := os.fork()) == 0:
                block = bytearray(30 * 2**20)
                time.sleep(3)
                os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        """,
        """
        with open("/tmp/fill", "wb") as file:
            for _ in range(200):
                file.write(bytes(2**20))
        """,
    ],
    ids=["itself", "four-children", "tmpfs"],
)
@pytest.mark.vm
def test_memory(run: Runner, body: str) -> None:
    import textwrap

    body = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    inner = run(
        "import os, pytest, time\n\n@pytest.mark.isolated(memory='64M')\n"
        f"def test_it():\n{body}\n\ndef test_next(): pass\n",
        all_tests=False,
    )
    assert inner.outcomes == {"failed": 1, "passed": 1}, inner.out
    inner.result.stdout.fnmatch_lines([OOM])
    record = inner.record("test_it")
    assert record["reason"] == "oom"
    assert record["oom_kills"] >= 1
    assert record["memory_limit_bytes"] == 64 * 2**20
    assert record["memory_peak_bytes"] > 50 * 2**20
    assert "memory" in str(record["enforced"]["limits"])


@pytest.mark.needs("cgroup memory limit")
@pytest.mark.vm
def test_peak_of_a_known_allocation(run: Runner) -> None:
    inner = run(
        """
        def test_warm(): pass

        def test_small(): pass

        def test_large():
            block = bytearray(100 * 2**20)
        """
    )
    grown = inner.record("test_large")["memory_peak_bytes"] - inner.record("test_small")["memory_peak_bytes"]
    assert grown == pytest.approx(100 * 2**20, rel=0.03)


@pytest.mark.needs("cgroup cpu limit")
@pytest.mark.vm
def test_cpus(run: Runner) -> None:
    """A share that it reaches also where others keep the machine busy."""
    inner = run(
        """
        import pytest, time

        @pytest.mark.isolated(cpus=0.05)
        def test_it():
            started = time.process_time()
            while time.process_time() - started < 0.1:
                pass
        """
    )
    assert inner.outcomes == {"passed": 1}
    record = inner.record("test_it")
    assert record["wall_s"] > 1.6  # not 0.1 s: a share of 0.05; the last period may go unused
    assert record["throttled_s"] > 0
    assert record["cpu_user_s"] + record["cpu_system_s"] >= 0.099


@pytest.mark.needs("cgroup cpu limit")
def test_cpu_accounting_includes_children(run: Runner) -> None:
    inner = run(
        """
        import os, time

        def test_it():
            if os.fork() == 0:
                started = time.process_time()
                while time.process_time() - started < 1:
                    pass
                os._exit(0)
            os.wait()
        """
    )
    record = inner.record("test_it")
    assert record["cpu_user_s"] + record["cpu_system_s"] == pytest.approx(
        1.0, rel=0.05 * max(1, TIME_SCALE / 5)
    )


@pytest.mark.needs("cgroup pids limit")
@pytest.mark.vm
def test_fork_bomb(run: Runner) -> None:
    inner = run(
        """
        import os, pytest, time

        @pytest.mark.isolated(pids=32)
        def test_bomb():
            while True:
                if os.fork() == 0:
                    time.sleep(60)
                    os._exit(0)

        @pytest.mark.isolated(pids=32)
        def test_caught():
            with pytest.raises(BlockingIOError):
                while True:
                    if os.fork() == 0:
                        time.sleep(60)
                        os._exit(0)
        """
    )
    assert inner.outcomes == {"failed": 1, "passed": 1}
    assert "pids limit 32 reached: 1 fork or thread was refused" in inner.out
    assert inner.record("test_bomb")["pids_refused"] >= 1
    assert inner.record("test_bomb")["leaked_processes"] >= 30
    assert inner.record("test_caught")["enforced"]["limits"]["pids.max"] == "32"


def test_files(run: Runner) -> None:
    inner = run(
        """
        import os, pytest

        @pytest.mark.isolated(files=64)
        def test_it():
            with pytest.raises(OSError, match="Too many open files"):
                for _ in range(100):
                    os.open("/", os.O_RDONLY)
        """
    )
    assert inner.outcomes == {"passed": 1}
    assert inner.record("test_it")["enforced"]["limits"]["RLIMIT_NOFILE"] == "64"


@pytest.mark.vm
def test_tmp_size(run: Runner) -> None:
    inner = run(
        """
        import pathlib, pytest

        @pytest.mark.isolated(tmp_size="8M")
        @pytest.mark.parametrize("place", ["/tmp/x", "/dev/shm/x", "here"])
        def test_it(place):
            with pytest.raises(OSError, match="No space left"):
                pathlib.Path(place).write_bytes(bytes(9 * 2**20))
        """
    )
    assert inner.outcomes == {"passed": 3}


def test_a_test_that_fails_for_tmp_size_says_so(run: Runner) -> None:
    inner = run(
        """
        import os, pathlib, pytest

        pytestmark = pytest.mark.isolated(tmp_size="8M")

        def fill(): pathlib.Path("/tmp/x").write_bytes(bytes(9 * 2**20))

        def test_full(): fill()

        def test_deleted():
            try: fill()
            finally: os.unlink("/tmp/x")

        def test_other(): assert 0

        def test_in_the_project(tmp_path): assert (tmp_path / "x").write_bytes(bytes(9 * 2**20)) == 0
        """
    )
    assert inner.outcomes == {"failed": 4}
    cure = "raise it with @pytest.mark.isolated(tmp_size=…)"
    assert inner.out.count(f"tmp_size 8.0 MiB reached; {cure}") == 1
    maybe = f"no space left: perhaps of tmp_size 8.0 MiB, which was not full at the end; {cure}"
    assert inner.out.count(maybe) == 1
    assert "1 test hit a limit: tmp_size" in inner.out
    assert inner.record("test_full")["tmp_free_bytes"] == 0
    assert 0 < inner.record("test_other")["tmp_free_bytes"] <= 8 * 2**20


@pytest.mark.vm
def test_a_written_file_is_counted_in_place_of_a_removed_directory(run: Runner) -> None:
    """As many names and blocks as before, and yet something new."""
    inner = run(
        """
        import os
        def test_it():
            os.rmdir("/run/lock")
            open("/run/made", "w").close()
        """
    )
    assert inner.record("test_it")["written_files"] == 1


def test_written_files_are_counted(run: Runner) -> None:
    inner = run(
        """
        import pathlib

        def test_none(): pass

        def test_some(tmp_path):
            pathlib.Path("/tmp/a").write_bytes(bytes(1000))
            pathlib.Path("b").write_bytes(bytes(500))
            (tmp_path / "not counted").write_bytes(bytes(5000))
        """,
        "-p",
        "no:cacheprovider",
    )
    assert (inner.record("test_none")["written_files"], inner.record("test_none")["written_bytes"]) == (0, 0)
    assert (inner.record("test_some")["written_files"], inner.record("test_some")["written_bytes"]) == (
        2,
        1500,
    )


@pytest.mark.vm
def test_usage_is_live(run: Runner) -> None:
    inner = run(
        """
        import os

        def test_it(isolation):
            assert isolation and isolation.spec.limits.memory_bytes is None
            before = isolation.usage()
            sum(range(3_000_000))
            after = isolation.usage()
            if isolation.cgroup_version:
                assert after.cpu_user_s > before.cpu_user_s
                assert isolation.cgroup_paths
            if os.fork() == 0:
                os._exit(0 if isolation.usage().cpu_user_s is None else 1)
            assert os.wait()[1] == 0
        """
    )
    assert inner.outcomes == {"passed": 1}


def test_fixture_is_harmless_without_isolation(run: Runner) -> None:
    inner = run(
        """
        def test_it(isolation):
            assert not isolation
            assert isolation.usage().cpu_user_s is None
            assert isolation.limits.memory_bytes is None
        """,
        all_tests=False,
    )
    assert inner.outcomes == {"passed": 1}
    assert inner.records == []

"""The lock and the sweep, on plain directories: flock(2) is the same there."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path

import pytest

from pytest_isolate.kernel.cgroups import files, sweep
from pytest_isolate.kernel.cgroups.base import LEAF, PREFIX


def test_sweep_removes_only_dead_sessions(tmp_path: Path) -> None:
    base = str(tmp_path)
    (tmp_path / f"{PREFIX}dead").mkdir()
    (tmp_path / LEAF).mkdir()
    (tmp_path / "someone-elses").mkdir()
    alive, fd = sweep.make_session(base, "alive")
    try:
        assert sorted(sweep.sweep([base, base])) == [f"{base}/{PREFIX}dead", f"{base}/{LEAF}"]
        assert sorted(os.listdir(base)) == [f"{PREFIX}alive", "someone-elses"]
    finally:
        os.close(fd)
    assert sweep.sweep([base]) == [alive]
    assert os.listdir(base) == ["someone-elses"]


def test_sweep_of_what_cannot_be_removed_goes_on(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}full").mkdir()
    (tmp_path / f"{PREFIX}full/file").touch()  # ENOTEMPTY, which a cgroup never says
    (tmp_path / f"{PREFIX}zero").mkdir()
    assert sweep.sweep([str(tmp_path)]) == [f"{tmp_path}/{PREFIX}zero"]
    assert sweep.sweep(["/nonexistent"]) == []


def test_make_session_survives_a_sweep_between_mkdir_and_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    swept: list[str] = []

    def flock(fd: int, operation: int) -> None:
        if not swept:
            swept.append(f"{tmp_path}/{PREFIX}x")
            os.rmdir(swept[0])
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    path, fd = sweep.make_session(str(tmp_path), "x")
    assert os.path.samestat(os.stat(path), os.fstat(fd))
    os.close(fd)


def test_run_id_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    _, fd = sweep.make_session(str(tmp_path), "x")
    with pytest.raises(FileExistsError, match="another session uses this run id"):
        sweep.make_session(str(tmp_path), "x")
    os.close(fd)


def test_kill_never_signals_pid_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cgroup.procs lists a process outside our pid namespace as 0, which kill(2) takes for our own group."""
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    (tmp_path / "below").mkdir()
    (tmp_path / "cgroup.procs").write_text("0\n4000001\n")
    (tmp_path / "below/cgroup.procs").write_text("0\n4000002\n")
    files.kill_tree(str(tmp_path))
    assert sorted(killed) == [(4000001, signal.SIGKILL), (4000002, signal.SIGKILL)]


def test_remove_waits_while_busy_and_then_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def rmdir(path: str) -> None:
        tries.append(path)
        if len(tries) < 3:
            raise OSError(errno.EBUSY, "Device or resource busy", path)

    monkeypatch.setattr(os, "rmdir", rmdir)
    files.remove_tree(str(tmp_path))
    assert tries == [str(tmp_path)] * 3
    tries.clear()
    monkeypatch.setattr(files, "REMOVE_TIMEOUT_S", -1.0)
    with pytest.raises(OSError, match="busy"):
        files.remove_tree(str(tmp_path))


def test_remove_takes_cgroups_below_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.rmdir

    def rmdir(path: str) -> None:  # as cgroupfs: EBUSY in place of ENOTEMPTY
        try:
            real(path)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                raise OSError(errno.EBUSY, "Device or resource busy", path) from None
            raise

    monkeypatch.setattr(os, "rmdir", rmdir)
    (tmp_path / "a/b/c").mkdir(parents=True)
    files.remove_tree(str(tmp_path / "a"))
    assert not list(tmp_path.iterdir())


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("max\n")
    assert files.read_int(str(path)) is None
    path.write_text("12\n")
    assert files.read_int(str(path)) == 12
    path.write_text("a 1\nb max\nc\n8:0 rbytes=1 x\n")
    assert files.read_fields(str(path)) == {"a": 1}
    assert files.read(str(tmp_path)) is None
    with pytest.raises(FileNotFoundError, match="nonexistent"):
        files.write("/nonexistent", "1")

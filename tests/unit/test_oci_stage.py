"""Where bundles are, and which runtime is meant."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pytest_isolate.errors import UnsupportedError
from pytest_isolate.sandbox.oci import containers
from pytest_isolate.sandbox.oci.containers import find_runtime
from pytest_isolate.sandbox.oci.hull import PREFIX, make_stage
from pytest_isolate.sandbox.oci.stage import Directory, Link, make


def test_stages_of_killed_runs_are_removed() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{gone.pid}-", dir="/tmp"))
    live = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/tmp"))
    stage = Path(make_stage())
    try:
        assert not dead.exists()
        assert live.exists()
        assert stage.name.startswith(f"{PREFIX}{os.getpid()}-")
        assert os.listdir(stage) == []
    finally:
        live.rmdir()
        stage.rmdir()


def test_a_bundle_made_by_hand(tmp_path: Path) -> None:
    entries: list[Directory | Link] = [
        Directory("rootfs"),
        Directory("scratch"),
        Directory("scratch/tmp", 0o1777),
        Link("rootfs/bin", "usr/bin"),
    ]
    make(str(tmp_path), entries)
    assert os.stat(tmp_path / "scratch/tmp").st_mode & 0o7777 == 0o1777
    assert os.readlink(tmp_path / "rootfs/bin") == "usr/bin"


def test_runtimes_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "myrunc"
    command.write_text("#!/bin/sh\n")
    refused = find_runtime(str(command))
    assert isinstance(refused, UnsupportedError)
    assert (
        str(refused)
        == f"runtime {command} is not available: it is no executable file; name another, or a command on PATH"
    )
    command.chmod(0o755)
    assert find_runtime(str(command)) == str(command)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_runtime("myrunc") == str(command)
    monkeypatch.setattr(containers, "MORE_PATH", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    others = "runc and crun are known; name any other by its path"
    cures = {"runc": "run: apt-get install runc", "runx": f"did you mean runc? {others}", "podman": others}
    for name, cure in cures.items():
        absent = find_runtime(name)
        assert isinstance(absent, UnsupportedError)
        assert absent.cure == cure

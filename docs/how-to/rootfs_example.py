import subprocess
from pathlib import Path

import pytest


@pytest.mark.isolated
def test_writes_are_thrown_away():
    # rootfs="host" is the default: the host's files, with a layer on top for this test.
    Path(__file__).write_text("raise SystemExit('never seen again')")


@pytest.mark.isolated(readonly=True)
def test_writes_are_refused(tmp_path):
    with pytest.raises(OSError, match="Read-only file system"):
        Path(__file__).write_text("no")
    # Still writable: /tmp, /run and /dev/shm, which are the test's own, and tmp_path, which is real.
    Path("/tmp/cache").touch()
    (tmp_path / "result").touch()


# A directory as the root. A relative path starts at pytest's rootdir.
@pytest.mark.isolated(rootfs="docs/how-to/tiny-root")
def test_another_root():
    assert Path("/etc/os-release").read_text() == 'NAME="a root of one file"\n'
    assert not Path("/etc/passwd").exists()
    Path("/etc/os-release").unlink()  # from the layer on top


# Host directories at places of the test's choice; the source may be a file too.
@pytest.mark.isolated(binds={"docs/how-to": "/data:ro"})
def test_with_data():
    assert Path("/data/tiny-root/etc/os-release").exists()
    with pytest.raises(OSError, match="Read-only file system"):
        Path("/data/new").touch()


@pytest.mark.isolated
def test_mounts_are_the_tests_own():
    mounts = subprocess.run(["cat", "/proc/mounts"], capture_output=True, text=True, check=True).stdout
    assert "tmpfs /tmp " in mounts

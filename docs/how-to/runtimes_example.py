import os
from pathlib import Path

import pytest


@pytest.mark.isolated(runtime="runc", memory="128M", pids=20)
def test_contained():
    # The container's init is process 1; the test has the limits and the seccomp filter of the bundle.
    assert os.getpid() != 1
    assert "Seccomp:\t2\n" in Path("/proc/self/status").read_text()


@pytest.mark.isolated(runtime="runc")
def test_writes_are_thrown_away():
    Path("/etc/motd").unlink(missing_ok=True)
    Path("/tmp/scratch").write_text("seen by this test alone")

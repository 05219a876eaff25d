"""Limits that need no cgroup, and so no privileges."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest


@pytest.mark.isolated(tmp_size="8M")
def test_disk_full():
    """All that a test writes outside tmp_path counts, wherever it is written."""
    with pytest.raises(OSError, match="No space left on device"):
        Path("/tmp/large").write_bytes(bytes(9 * 2**20))


@pytest.mark.isolated(files=64)
def test_descriptors():
    """The test's process starts with some of the 64 open."""
    with pytest.raises(OSError, match="Too many open files"):
        [os.dup(0) for _ in range(64)]


@pytest.mark.isolated(timeout="500ms")
@pytest.mark.xfail(strict=True, reason="sleeps for a minute and may run for half a second")
def test_hang():
    time.sleep(60)

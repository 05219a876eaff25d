import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.isolated(memory="128M", pids=50, timeout="30s")
def test_what_a_build_may_cost(isolation):
    # The limits hold for all processes of the test together.
    subprocess.run([sys.executable, "-c", "b'x' * 40_000_000"], check=True)
    assert isolation.limits.memory_bytes == 128 * 2**20
    assert isolation.usage().memory_peak_bytes > 40_000_000


@pytest.mark.isolated(tmp_size="1M")
def test_full_disk():
    with pytest.raises(OSError, match="No space left on device"):
        Path("/tmp/log").write_bytes(bytes(2**21))


# For a whole class; a closer mark changes only what it names.
@pytest.mark.isolated(files=128, timeout="10s")
class TestServer:
    def test_default(self, isolation):
        assert isolation.limits.files == 128

    @pytest.mark.isolated(timeout="1m")
    def test_slow_start(self, isolation):
        assert isolation.limits.files == 128
        assert isolation.limits.timeout_s == 60

    @pytest.mark.isolated(timeout=None)
    def test_no_timeout(self, isolation):
        assert isolation.limits.timeout_s is None
        assert isolation.limits.files == 128


# A limit for one case of a parametrised test.
@pytest.mark.isolated(tmp_size="1M")
@pytest.mark.parametrize(
    "megabytes",
    [0.5, pytest.param(3, marks=pytest.mark.isolated(tmp_size="4M"))],
)
def test_cases(megabytes):
    Path("/tmp/data").write_bytes(bytes(int(megabytes * 2**20)))

"""The suites that are measured: many equal tests in a pytest of a chosen size in memory."""

from __future__ import annotations

from pathlib import Path

__all__ = ["BODIES", "write_suite"]

#: What each test does. A processor's time is spent in a loop, as sleeping would not.
BODIES = {
    "trivial": "pass",
    "25 ms of cpu": "end = time.process_time() + 0.025\n    while time.process_time() < end: pass",
    "25 ms of sleep": "time.sleep(0.025)",
}


def write_suite(directory: Path, body: str, tests: int, ballast_mb: int) -> None:
    """``ballast_mb``: memory that pytest holds, and every fork of it shares; in objects of all ages."""
    directory.mkdir(parents=True, exist_ok=True)
    pages = ballast_mb * 256
    (directory / "conftest.py").write_text(f"BALLAST = [bytearray(b'x' * 4096) for _ in range({pages})]\n")
    (directory / "test_suite.py").write_text(
        "import os, time, pytest\n"
        f"@pytest.mark.parametrize('number', range(int(os.environ.get('TESTS', {tests}))))\n"
        f"def test_it(number):\n    {BODIES[body]}\n"
    )
    (directory / "pytest.ini").write_text("[pytest]\n")

"""Plugin of the session that ``flatness.py`` measures: when each test ended, and pytest's size then."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path

VARIABLE = "SAMPLES"
samples: list[tuple[float, int]] = []


def pytest_runtest_logfinish() -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        resident_bytes = int(file.read().split()[1]) * resource.getpagesize()
    samples.append((time.monotonic(), resident_bytes))


def pytest_sessionfinish() -> None:
    Path(os.environ[VARIABLE]).write_text(json.dumps(samples))

"""What a person without a writable cgroup gets who asks for a limit: an error, a skip, or less than asked."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .. import on_demand
from .conftest import TIME_SCALE

pytestmark = pytest.mark.needs("user namespace")

NOBODY = 65534
SUITE = """
import pytest

@pytest.mark.isolated(memory="64M")
def test_limited(isolation):
    assert isolation and isolation.spec.limits.memory_bytes is None

@pytest.mark.isolated
def test_unlimited(isolation):
    assert isolation
"""
#: Feature, reason and cure, in one line.
LACK = r"the memory limit is not available: .+ is not writable for uid 65534.*; (run|start|have) .+"
SWITCHES = ("-p", "no:cacheprovider", "--basetemp=base", "-rA", "--isolate-json=records.jsonl")
AsNobody = Callable[..., tuple[str, dict[str, dict[str, Any]]]]


@pytest.fixture
def as_nobody() -> Iterator[AsNobody]:
    """Run the suite as a user without rights: what is printed, and the records by the name of the test."""
    if os.geteuid() not in (0, NOBODY):
        pytest.skip("takes root to become nobody")
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    command = [*(become if os.geteuid() == 0 else []), sys.executable]
    with tempfile.TemporaryDirectory() as name:  # not tmp_path: nobody else gets in there
        home = pathlib.Path(name)
        os.chown(home, NOBODY, NOBODY)
        can = "import os, sys, pytest_isolate.syscalls._native; sys.exit(not os.access('.', os.W_OK))"
        tried = subprocess.run([*command, "-c", can], cwd=home, capture_output=True, check=False)
        if tried.returncode:
            pytest.skip(f"nobody may not run {sys.executable}, or not in {home}: {tried.stderr.decode()}")
        (home / "test_it.py").write_text(SUITE)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}

        def run(*args: str) -> tuple[str, dict[str, dict[str, Any]]]:
            ran = subprocess.run(
                [*command, "-m", "pytest", *SWITCHES, *args],
                cwd=home,
                env={**inherited, **on_demand.ENVIRONMENT, "HOME": name, "COLUMNS": "10000"},
                capture_output=True,
                text=True,
                timeout=60 * TIME_SCALE,
                check=False,
            )
            assert ran.stderr == ""
            lines = (home / "records.jsonl").read_text().splitlines()
            records = {record["nodeid"].split("::")[1]: record for record in map(json.loads, lines)}
            assert records["test_unlimited"]["outcome"] == "passed"
            assert records["test_unlimited"]["enforced"]["cgroup"] is None
            return ran.stdout, records

        yield run


@pytest.mark.vm
def test_fails_closed(as_nobody: AsNobody) -> None:
    out, records = as_nobody()
    assert "1 passed, 1 error in" in out
    assert re.search(rf"^{LACK}$", out, re.MULTILINE)
    record = records["test_limited"]
    assert (record["outcome"], record["reason"]) == ("error", "setup")


def test_skips_with_the_reason(as_nobody: AsNobody) -> None:
    out, records = as_nobody("--isolate-missing=skip")
    assert "1 passed, 1 skipped in" in out
    assert re.search(rf"^SKIPPED \[1\] test_it\.py:\d+: {LACK}$", out, re.MULTILINE)
    assert records["test_limited"]["outcome"] == "skipped"


@pytest.mark.vm
def test_degrades_and_says_so(as_nobody: AsNobody) -> None:
    out, records = as_nobody("--isolate-missing=degrade")
    assert "2 passed in" in out
    assert re.search(rf"^degraded: 1 test .*\n +1  {LACK}$", out, re.MULTILINE)
    record = records["test_limited"]
    assert record["outcome"] == "passed"
    assert record["memory_limit_bytes"] is None
    assert "memory" not in str(record["enforced"]["limits"])
    (missing,) = record["enforced"]["missing"]
    assert re.fullmatch(LACK, missing)
    assert records["test_unlimited"]["enforced"]["missing"] == []

"""In GitHub Actions: annotations at the lines at fault, and a summary of the step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("user namespace", "overlay")

SUITE = """
    import contextlib, threading, time
    def test_writes():
        with contextlib.suppress(OSError):
            open("a%b,c.txt", "w")
    def test_left():
        threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
    def test_kept(): pass
"""
WORKERS = pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])


@pytest.fixture
def job(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """As in a step of a workflow."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path.parent))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    pytester.makepyfile(test_it=SUITE)
    return pytester


@pytest.fixture
def step(job: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    def step(*arguments: str) -> pytest.RunResult:
        monkeypatch.delenv("PYTEST_CURRENT_TEST")  # which pytest sets for each phase
        return job.runpytest_subprocess(*arguments)

    return step


Step = Callable[..., pytest.RunResult]


def commands(result: pytest.RunResult) -> list[str]:
    return sorted(line for line in result.outlines if line.startswith("::"))


@WORKERS
def test_annotations(workers: list[str], job: pytest.Pytester, step: Step) -> None:
    result = step("--isolate-strict", *workers)
    result.assert_outcomes(passed=1, failed=2)
    writes, left = commands(result)  # by line
    where = f"::error file={job.path.name}/test_it.py,line="
    assert left.startswith(f"{where}")
    assert ",title=not hermetic%3A test_it.py%3A%3Atest_left::threads: left a thread" in left
    assert writes.startswith(f"{where}4,title=not hermetic%3A test_it.py%3A%3Atest_writes::files: tried")
    assert ": a%25b,c.txt, test_it.py:4 (test_writes)" in writes


def test_a_test_that_passes_is_warned_of(step: Step) -> None:
    result = step("--isolate-all", "-k", "left")
    result.assert_outcomes(passed=1, deselected=2)
    (line,) = commands(result)
    assert line.startswith("::warning file=")


def test_a_test_that_dies_has_failed(job: pytest.Pytester, step: Step) -> None:
    job.makepyfile(
        test_it="import os, socket\n"
        "def test_it():\n"
        "    socket.socket().connect_ex(('192.0.2.1', 1))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    (line,) = commands(step("--isolate-all"))
    assert line.startswith("::error file=")


def test_the_summary_of_the_step(job: pytest.Pytester, step: Step) -> None:
    summary = job.path / "summary.md"
    summary.write_text("# Of an earlier command\n")
    step("--isolate-strict")
    text = summary.read_text()
    assert text.startswith("# Of an earlier command\n### pytest-isolate: 3 isolated tests\n")
    for part in ("| violations | 2 new, 0 known |", "| escapes | 0 |", "#### By memory", "#### By cpu"):
        assert part in text
    assert (
        "| test\\_it.py::test\\_writes | files | tried to write to the read-only project: a%b,c.txt |" in text
    )


def test_a_summary_that_cannot_be_written_is_no_error(
    job: pytest.Pytester, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(job.path))
    result = step("--isolate-strict", "-k", "kept")
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"isolate: cannot write the step's summary to {job.path}: Is a directory"])


def test_elsewhere_nothing(job: pytest.Pytester, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert commands(step("--isolate-strict")) == []
    assert not (job.path / "summary.md").exists()


def test_a_pytest_in_a_test_says_nothing(job: pytest.Pytester, step: Step) -> None:
    """What a test runs is its own business, though it inherits the variables."""
    job.makepyfile(
        test_it="import subprocess, sys\n"
        "def test():\n"
        "    command = [sys.executable, '-m', 'pytest', '--isolate-all', 'inner.py', '-p', 'no:cacheprovider']\n"
        "    print(subprocess.run(command, capture_output=True, text=True).stdout)\n"
        "    assert 0\n"
    )
    job.makepyfile(
        inner="import threading, time\n"
        "def test_left(): threading.Thread(target=time.sleep, args=(5,), daemon=True).start()"
    )
    result = step()
    result.stdout.fnmatch_lines(["*1 test not hermetic, 1 violation:*"])
    assert commands(result) == []
    assert not Path(job.path, "summary.md").exists()

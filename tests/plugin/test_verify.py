"""pytest-isolate verify: what a run has written down stands, and what has been made of it does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("user namespace", "overlay")

SUITE = """
    import pytest
    def test_a(): pass
    @pytest.mark.isolated(env={"CI": "1"})
    def test_b(): pass
    @pytest.mark.skip
    def test_skipped(): pass
    @pytest.mark.not_isolated(reason="drives docker")
    def test_out(): pass
"""


def records(pytester: pytest.Pytester, *arguments: str, suite: str = SUITE) -> Path:
    pytester.makepyfile(test_it=suite)
    pytester.runpytest_subprocess("--isolate-json=out.jsonl", *arguments)
    return pytester.path / "out.jsonl"


def verify(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.run(sys.executable, "-m", "pytest_isolate.cli", "verify", "out.jsonl", *arguments)


@pytest.mark.parametrize("workers", [[], ["-n2"], ["--isolate-jobs=2"]], ids=" ".join)
def test_a_strict_run_stands(workers: list[str], pytester: pytest.Pytester) -> None:
    records(pytester, "--isolate-strict", *workers)
    result = verify(pytester)
    assert result.ret == 0, result.outlines
    result.stdout.fnmatch_lines(
        [
            "tests *4",
            "isolated *3",
            "escapes *2",
            "degraded *0",
            "violations *0 new, 0 known",
            "exit status *0",
        ]
    )
    result.stdout.fnmatch_lines(["enforced on *3: user pid mnt net ipc uts cgroup, root *", "verified"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-escapes=1"], "2 escapes are more than 1"),
        (["--min-tests=5"], "4 tests are fewer than 5"),
        (["--fixed-hash-seed"], "the hash seed was random: *"),
    ],
)
def test_more_may_be_asked(
    arguments: list[str], said: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    records(pytester, "--isolate-strict")
    result = verify(pytester, *arguments)
    assert result.ret == 1
    result.stdout.fnmatch_lines([said, "not verified"])


def test_a_run_that_was_not_green(pytester: pytest.Pytester) -> None:
    records(pytester, "--isolate-strict", suite="def test(): assert 0")
    result = verify(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["the session ended with exit status 1", "not verified"])
    assert verify(pytester, "--allow-failed").ret == 0


def test_a_violation(pytester: pytest.Pytester) -> None:
    suite = (
        "import threading, time\n"
        "def test(): threading.Thread(target=time.sleep, args=(5,), daemon=True).start()"
    )
    records(pytester, "--isolate-strict", suite=suite)
    verify(pytester).stdout.fnmatch_lines(["test_it.py::test: violation: threads: *", "not verified"])


def test_a_degraded_test(pytester: pytest.Pytester) -> None:
    records(pytester, "--isolate-strict", "--isolate-missing=degrade", "--isolate-runtime=/nowhere/runc")
    result = verify(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["test_it.py::test_a: degraded: *"])
    assert verify(pytester, "--allow-degraded").ret == 0


def test_a_skip_for_want_of_a_sandbox_is_no_proof(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=SUITE)
    arguments = ("--isolate-strict", "--isolate-missing=skip", "--isolate-runtime=/nowhere/runc")
    result = pytester.runpytest_subprocess("--isolate-json=out.jsonl", *arguments)
    result.stdout.fnmatch_lines(
        ["4 tests: 0 isolated, 4 not", "strict: not signed off: no sandbox for 3 tests"]
    )
    assert "enforced on" not in result.stdout.str()
    result = verify(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["test_it.py::test_a: it was not run in a sandbox (skipped)"])


FIVE = """
    import pytest
    def test_1(): pass
    def test_2(): pass
    @pytest.mark.not_isolated(reason="stops")
    def test_3(): pytest.exit("stop", returncode=0)
    def test_4(): pass
    def test_5(): pass
"""


@pytest.mark.parametrize(
    ("arguments", "suite", "said"),
    [
        (["--setup-only"], SUITE, "3 of 4 tests did not run to their end"),
        (["--setup-plan"], SUITE, "3 of 4 tests did not run to their end"),
        (["-p", "no:randomly"], FIVE, "3 of 5 tests did not run to their end"),
    ],
)
def test_a_run_that_did_not_come_to_its_tests(
    arguments: list[str], suite: str, said: str, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(test_it=suite)
    result = pytester.runpytest_subprocess("--isolate-json=out.jsonl", "--isolate-strict", *arguments)
    result.stdout.fnmatch_lines([f"strict: not signed off: *{said}*"])
    result = verify(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines([said, "not verified"])


@pytest.mark.parametrize(
    "arguments",
    [["-n2", "--dist=each"], ["-n2", "--dist=loadgroup"], ["--keep-duplicates", "test_it.py", "test_it.py"]],
    ids=" ".join,
)
def test_tests_that_run_twice_are_counted_once(arguments: list[str], pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=SUITE)
    result = pytester.runpytest_subprocess("--isolate-json=out.jsonl", "--isolate-strict", *arguments)
    result.stdout.fnmatch_lines(["4 tests: 3 isolated, 1 not", "strict: signed off"])
    result = verify(pytester, "--max-escapes=2")
    assert result.ret == 0, result.outlines


@pytest.mark.parametrize(
    "wrong",
    [["--isolate-baseline=nope"], ["--isolate-off"], ["--isolate-escapes-max=x"], ["-n2", "--isolate-off"]],
)
def test_a_session_that_does_not_begin_leaves_no_earlier_records(
    wrong: list[str], pytester: pytest.Pytester
) -> None:
    path = records(pytester, "--isolate-strict")
    assert verify(pytester).ret == 0
    records(pytester, "--isolate-strict", *wrong)
    assert path.read_bytes() == b""
    result = verify(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["out.jsonl is empty: *", "not verified"])


def test_another_run(pytester: pytest.Pytester) -> None:
    records(pytester, "--isolate-all")
    result = verify(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["out.jsonl has no summary in its last line: *", "not verified"])


def test_a_run_without_tests(pytester: pytest.Pytester) -> None:
    records(pytester, "--isolate-strict", "-k", "none")
    result = verify(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["the session ended with exit status 5", "0 tests are fewer than 1"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"outcome":"passed"', b'"outcome":"failed"', "its checksum differs"),
        (b'"exitstatus":0', b'"exitstatus":1', "its checksum differs"),
        (b'"tests":4', b'"tests":3', "its checksum differs"),
        (b'"schema":1,"nodeid"', b'"schema":1, "nodeid"', "its checksum differs"),
        (b'"}\n', b'"}', "is cut off in its last line"),
        (b'{"schema":1,"summary"', b'{"schema":1,"total"', "has no summary in its last line"),
        (b'{"schema":1,"nodeid"', b'{"schema"1,"nodeid"', "is not JSON Lines"),
    ],
)
def test_an_edited_file(old: bytes, new: bytes, said: str, pytester: pytest.Pytester) -> None:
    path = records(pytester, "--isolate-strict")
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1) if old != b'"}\n' else data[:-1])
    result = verify(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"out.jsonl*{said}*", "not verified"])


@pytest.mark.parametrize("line", [0, 1, -1])
def test_a_line_that_is_gone(line: int, pytester: pytest.Pytester) -> None:
    path = records(pytester, "--isolate-strict")
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[line]
    path.write_bytes(b"".join(lines))
    assert verify(pytester).ret == 1


def test_two_files_are_none(pytester: pytest.Pytester) -> None:
    path = records(pytester, "--isolate-strict")
    path.write_bytes(path.read_bytes() * 2)
    result = verify(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*more than one summary*"])


def test_no_file(pytester: pytest.Pytester) -> None:
    result = verify(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["cannot read out.jsonl: No such file or directory"])


def test_a_run_that_was_killed(pytester: pytest.Pytester) -> None:
    """What it wrote until then is there, and proves nothing."""
    path = records(
        pytester,
        "--isolate-strict",
        suite="import os, pytest\ndef test_a(): pass\n"
        "@pytest.mark.not_isolated(reason='kills')\ndef test_kill(): os.kill(os.getpid(), 9)",
    )
    assert len(path.read_bytes().splitlines()) == 1
    result = verify(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*has no summary in its last line: the run was killed*"])

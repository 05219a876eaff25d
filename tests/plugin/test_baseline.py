"""An old suite starts with its known violations, and gets no new ones."""

from __future__ import annotations

import json
import sys

import pytest

pytestmark = pytest.mark.needs("user namespace", "overlay")

OLD = """
    import contextlib
    def test_writes():
        with contextlib.suppress(OSError):
            open("a.txt", "w")
    def test_kept(): pass
"""
NEW = """
    import contextlib
    # a line more: where it stands is no news

    def test_writes():
        with contextlib.suppress(OSError):
            open("a.txt", "w")
        with contextlib.suppress(OSError):
            open("b.txt", "w")
    def test_kept(): pass
"""
STRICT = ("--isolate-strict", "--isolate-json=isolate.jsonl", "-p", "no:cacheprovider")
WORKERS = pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])


def write_baseline(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.run(sys.executable, "-m", "pytest_isolate.cli", "baseline", *arguments)


@pytest.fixture
def known(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with a baseline for its one violation."""
    pytester.makepyfile(test_it=OLD)
    pytester.runpytest_subprocess(*STRICT).assert_outcomes(passed=1, failed=1)
    result = write_baseline(pytester)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["isolate-baseline.json: 1 known violations of 1 tests; 1 added, 0 taken away"]
    )
    pytester.makeini("[pytest]\nisolate_baseline = isolate-baseline.json\n")
    return pytester


def test_the_file_is_for_people_and_for_diff(known: pytest.Pytester) -> None:
    text = (known.path / "isolate-baseline.json").read_text()
    assert text.splitlines() == [
        "{",
        ' "schema": 1,',
        ' "tests": {',
        '  "test_it.py::test_writes": {',
        '   "files": [',
        '    "tried to write to the read-only project: a.txt"',
        "   ]",
        "  }",
        " }",
        "}",
    ]


@WORKERS
def test_what_is_known_fails_no_test(workers: list[str], known: pytest.Pytester) -> None:
    result = known.runpytest_subprocess(*STRICT, *workers)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["*files (known): tried to write*", "violations: 0 new, 1 known", "strict: signed off"]
    )
    assert known.run(sys.executable, "-m", "pytest_isolate.cli", "verify", "isolate.jsonl").ret == 0


@WORKERS
def test_what_is_new_does(workers: list[str], known: pytest.Pytester) -> None:
    known.makepyfile(test_it=NEW)
    result = known.runpytest_subprocess(*STRICT, *workers)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["not hermetic: a violation", "files: tried to write*: b.txt*"])
    result.stdout.fnmatch_lines(["violations: 1 new, 1 known", "strict: not signed off: 1 new violation"])


def test_what_no_longer_occurs_is_stale(known: pytest.Pytester) -> None:
    known.makepyfile(test_it="def test_writes(): pass\ndef test_kept(): pass")
    result = known.runpytest_subprocess(*STRICT)
    result.assert_outcomes(passed=2)
    cure = "pytest-isolate baseline --shrink --json isolate.jsonl -o isolate-baseline.json"
    result.stdout.fnmatch_lines([f"1 stale in the baseline; run: {cure}", "*test_writes*a.txt"])
    assert known.run(sys.executable, "-m", "pytest_isolate.cli", *cure.split()[1:]).ret == 0
    assert json.loads((known.path / "isolate-baseline.json").read_text())["tests"] == {}


def test_a_test_that_did_not_run_is_not_stale(known: pytest.Pytester) -> None:
    result = known.runpytest_subprocess(*STRICT, "-k", "kept")
    result.stdout.no_fnmatch_line("*stale in the baseline*")
    assert write_baseline(known).ret == 0
    assert "test_writes" in (known.path / "isolate-baseline.json").read_text()


def test_a_test_that_failed_before_it_came_to_it_keeps_it(known: pytest.Pytester) -> None:
    before = (known.path / "isolate-baseline.json").read_text()
    known.makepyfile(test_it="def test_writes(): assert 0\ndef test_kept(): pass")
    result = known.runpytest_subprocess(*STRICT)
    result.stdout.no_fnmatch_line("*stale in the baseline*")
    for arguments in ((), ("--shrink",)):
        assert write_baseline(known, *arguments).ret == 0
        assert (known.path / "isolate-baseline.json").read_text() == before


def test_shrinking_adds_nothing(known: pytest.Pytester) -> None:
    known.makepyfile(test_it=NEW)
    known.runpytest_subprocess(*STRICT)
    before = (known.path / "isolate-baseline.json").read_text()
    assert write_baseline(known, "--shrink").ret == 0
    assert (known.path / "isolate-baseline.json").read_text() == before
    write_baseline(known).stdout.fnmatch_lines(["*; 1 added, 0 taken away"])


def test_a_baseline_counts_without_strict(known: pytest.Pytester) -> None:
    known.makepyfile(
        test_it="import threading, time\n"
        "def test(): threading.Thread(target=time.sleep, args=(5,), daemon=True).start()"
    )
    known.runpytest_subprocess("--isolate-all", "--isolate-watch=fail").assert_outcomes(failed=1)
    known.runpytest_subprocess(*STRICT).assert_outcomes(failed=1)
    assert write_baseline(known).ret == 0
    known.runpytest_subprocess("--isolate-all", "--isolate-watch=fail").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "it is no baseline: "),
        ('{"schema": 2, "tests": {}}', "its schema is not 1"),
        ("[]", "its schema is not 1"),
        ('{"schema": 1, "tests": {"a": {"magic": ["x"]}}}', "'magic' is not a valid Kind"),
        ('{"schema": 1, "tests": {"a": {"files": "x"}}}', "files of a is no list of texts"),
        ('{"schema": 1, "tests": []}', "it is no baseline: "),
    ],
)
def test_a_broken_baseline_ends_the_session(text: str, why: str, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test(): pass")
    (pytester.path / "known.json").write_text(text)
    result = pytester.runpytest_subprocess("--isolate-strict", "--isolate-baseline=known.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    cure = f"write it anew: pytest-isolate baseline --json RECORDS -o {pytester.path}/known.json"
    (line,) = [line for line in result.errlines if "known.json" in line]
    assert why in line
    assert line.endswith(cure)


def test_records_of_another_run_are_none(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test(): pass")
    pytester.runpytest_subprocess("--isolate-all", "--isolate-json=isolate.jsonl")
    result = write_baseline(pytester)
    assert result.ret == 1
    result.stderr.fnmatch_lines(["isolate.jsonl has no summary in its last line: *"])
    assert not (pytester.path / "isolate-baseline.json").exists()

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


CHANGING = """
    import contextlib, os, random, socket, subprocess, sys, tempfile, time
    from pathlib import Path
    here = Path(__file__).parent
    kept = []
    def start(*command):
        kept.append(subprocess.Popen(command))
    def test_size():
        Path("/var/tmp/app.log").write_text("x" * random.randrange(10**6))
    def test_directory():
        made = tempfile.mkdtemp(prefix="myapp-", dir="/var/tmp")
        (Path(made) / "x").write_text("x" * random.randrange(100))
    def test_suffix():
        tempfile.mkstemp(prefix="q_", suffix=".log", dir="/var/tmp")
    def test_project():
        with contextlib.suppress(OSError):
            tempfile.TemporaryFile("w", dir=here)
        with contextlib.suppress(OSError):
            tempfile.mkdtemp(dir=here)
    def test_command(tmp_path):
        (tmp_path / "s.sh").write_text(f"sleep 60 & echo > {tmp_path}/begun; wait")
        start("sh", tmp_path / "s.sh")
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
    def test_port():
        start(sys.executable, "-c", "import time; time.sleep(60)", str(random.randrange(10**5)))
    def test_made_up_command():
        made = tempfile.mkdtemp(prefix="srv-", dir="/var/tmp")
        start(sys.executable, "-c", "import time; time.sleep(60)", made)
        os.rmdir(made)
    def test_fork():
        if not os.fork():
            time.sleep(60)
            os._exit(0)
    def test_long():
        path = "/var/tmp/" + "/".join(["long" * 40] * 4)
        os.makedirs(path)
        Path(path, "two  spaces\\nlines").write_text("x" * random.randrange(10**6))
"""


def test_what_is_known_is_so_in_each_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=CHANGING)
    pytester.runpytest_subprocess(*STRICT).assert_outcomes(failed=9)
    assert write_baseline(pytester).ret == 0
    known = (pytester.path / "isolate-baseline.json").read_text()
    arguments = [*STRICT, "--isolate-baseline=isolate-baseline.json", "-n2"]
    result = pytester.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=9)
    result.stdout.no_fnmatch_line("*stale in the baseline*")
    assert write_baseline(pytester).ret == 0
    assert (pytester.path / "isolate-baseline.json").read_text() == known
    assert str(pytester.path) not in known
    assert sys.executable not in known


CURED = """
    import contextlib, json, os, pytest, tempfile
    from pathlib import Path
    here = Path(__file__).parent
    CURES = json.loads(Path(__file__).with_name("cures.json").read_text())
    def cured(function):
        mark = eval(f"pytest.mark.isolated({CURES.get(function.__name__, '')})")
        return mark(function)
    @cured
    def test_brackets(): Path("/var/tmp/test_w[1].log").touch()
    @cured
    def test_quote(): Path("/var/tmp/a\\"b").touch()
    @cured
    def test_newline(): Path("/var/tmp/a\\nb  c").touch()
    @cured
    def test_made_up(): os.close(tempfile.mkstemp(prefix="q_", suffix=".log", dir="/var/tmp")[0])
    @cured
    def test_made_up_tree(): (Path(tempfile.mkdtemp("x", dir="/var/tmp")) / "y").touch()
    @cured
    def test_secret():
        with contextlib.suppress(OSError): open(os.path.expanduser("~/.netrc"))
    @cured
    def test_deep():
        with contextlib.nullcontext() if "test_deep" in CURES else contextlib.suppress(OSError):
            (here / "out" / "b").mkdir()
            (here / "out" / "b" / "c").touch()
    @cured
    def test_file():
        with contextlib.suppress(OSError): (here / "out" / "x[1].png").touch()
    @cured
    def test_temporary():
        with contextlib.suppress(OSError): os.close(tempfile.mkstemp(dir=here / "out")[0])
"""


def test_what_is_cured_as_it_is_told_is_cured(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=CURED)
    pytester.mkdir("out")
    cures = pytester.path / "cures.json"
    cures.write_text("{}")
    pytester.runpytest_subprocess(*STRICT).assert_outcomes(failed=9)
    lines = map(json.loads, (pytester.path / "isolate.jsonl").read_text().splitlines())
    found = {
        record["nodeid"].partition("::")[2]: record["violations"] for record in lines if "nodeid" in record
    }
    told = {name: violation["cure"].removeprefix("tmp_path, or ") for name, (violation,) in found.items()}
    cures.write_text(json.dumps(told))
    pytester.runpytest_subprocess(*STRICT).assert_outcomes(passed=9)


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


def test_a_degraded_test_keeps_it(known: pytest.Pytester) -> None:
    """What is not enforced may not be seen."""
    before = (known.path / "isolate-baseline.json").read_text()
    known.makepyfile(test_it="def test_writes(): pass\ndef test_kept(): pass")
    result = known.runpytest_subprocess(
        *STRICT, "--isolate-missing=degrade", "--isolate-runtime=/nowhere/runc"
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["2 degraded: *"])
    result.stdout.no_fnmatch_line("*stale in the baseline*")
    for arguments in (("--shrink",), ()):
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


def test_a_broken_baseline_ends_the_session(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test(): pass")
    pytester.runpytest_subprocess(*STRICT).assert_outcomes(passed=1)
    path = pytester.path / "known.json"
    path.write_text("<<<<<<< HEAD\n{}\n")
    assert write_baseline(pytester, "-o", "known.json").ret == 1  # it may hold what others know
    result = pytester.runpytest_subprocess("--isolate-strict", "--isolate-baseline=known.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if "known.json" in line]
    assert (
        "restore it from version control, or delete it, take isolate_baseline away and write it anew" in line
    )
    _, _, command = line.partition("anew: pytest-isolate baseline ")
    path.unlink()
    assert write_baseline(pytester, *command.replace("RECORDS", "isolate.jsonl").split()).ret == 0
    result = pytester.runpytest_subprocess("--isolate-strict", "--isolate-baseline=known.json")
    result.assert_outcomes(passed=1)


def test_records_of_another_run_are_none(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test(): pass")
    pytester.runpytest_subprocess("--isolate-all", "--isolate-json=isolate.jsonl")
    result = write_baseline(pytester)
    assert result.ret == 1
    result.stderr.fnmatch_lines(["isolate.jsonl has no summary in its last line: *"])
    assert not (pytester.path / "isolate-baseline.json").exists()

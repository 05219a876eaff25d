"""Thirty unhermetic tests: plain pytest passes them all, --isolate-strict names them all; and once they are
mended as the messages propose, it passes them all. One more needs the file of another."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import demonstration

pytestmark = pytest.mark.needs("user namespace")
SUITES = Path(demonstration.__file__).parent
TEST = re.compile(r"def (test_\w+)\(")
MARK = re.compile(r"# -> (\w+)( by pid)?$")


PYTEST = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider"]
#: Plain pytest in a sandbox, for the sake of the machine: it would leave files in /tmp and /var/tmp, ask its name
#: servers, and send packets.
PLAIN = f"""
import subprocess

def test_plain():
    for _ in range(2):
        subprocess.run([*{PYTEST!r}, "-p", "no:isolate", "plain.py"], check=True)
"""


class Mark(NamedTuple):
    """What a comment of the suite says of a test."""

    kind: str
    lines: tuple[int, ...]
    by_pid: bool


class Run(NamedTuple):
    status: int
    records: dict[str, dict[str, Any]]  #: by the test's name
    stdout: str


def marks() -> Iterator[tuple[str, Mark]]:
    name, start = "", 0
    for number, line in enumerate((SUITES / "unhermetic.py").read_text().splitlines(), 1):
        if found := TEST.match(line):
            name, start = found[1], number
        if found := MARK.search(line):
            # Before Python 3.12 nobody tells where a thread is started.
            lines = (number, start) if found[1] == "threads" else (number,)
            yield name, Mark(found[1], lines, bool(found[2]))


BROKEN = "broken"
MARKS: dict[str, Mark] = {}
for test, mark in marks():  # one place says more than another in some versions of Python
    before = MARKS.get(test, mark)
    MARKS[test] = mark._replace(lines=(*before.lines, *mark.lines))
NEEDY = {test: MARKS.pop(test) for test in [*MARKS] if MARKS[test].kind == BROKEN}


def run(base: Path, suite: str, home: Path) -> Run:
    project = base / "project"
    project.mkdir()
    (project / "pytest.ini").touch()
    shutil.copy(SUITES / suite, project / "test_it.py")
    # As pytester has it: what this run was told is not for that one.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ended = subprocess.run(
        [*PYTEST, "--isolate-strict", "--isolate-json=out.json"],
        cwd=project,
        env=environ | {"HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in (project / "out.json").read_text().splitlines()]
    records = {line["nodeid"].partition("::")[2]: line for line in lines if "nodeid" in line}
    return Run(ended.returncode, records, ended.stdout)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Not in the directory of temporary directories, which tests may write to."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Run:
    return run(tmp_path_factory.mktemp("unhermetic"), "unhermetic.py", home)


def test_there_are_thirty() -> None:
    assert len(MARKS) == 30


@pytest.mark.parametrize("name", MARKS)
def test_each_is_named(strict: Run, name: str) -> None:
    record, mark = strict.records[name], MARKS[name]
    assert record["outcome"] == "failed", strict.stdout
    kinds = {violation["kind"] for violation in record["violations"]}
    assert kinds == {mark.kind}, record["violations"]  # and nothing falsely
    places = [violation["where"] for violation in record["violations"]]
    wanted = r"\bpid \d+" if mark.by_pid else rf"test_it\.py:({'|'.join(map(str, mark.lines))}) "
    assert any(re.search(wanted, place) for place in places), places
    assert all(violation["cure"] for violation in record["violations"])


@pytest.mark.parametrize("name", NEEDY)
def test_what_an_earlier_test_left_is_not_there(strict: Run, name: str) -> None:
    """It does nothing wrong itself: the other one is named."""
    record, (line, *_) = strict.records[name], NEEDY[name].lines
    assert (record["outcome"], record["violations"]) == ("failed", [])
    assert re.search(rf"test_it\.py:{line}: \n", strict.stdout)
    assert "FileNotFoundError" in strict.stdout
    left = strict.records["test_uses_a_fixed_name_in_tmp"]["violations"]
    assert any("/tmp/unhermetic-fixed" in violation["what"] for violation in left)


def test_plain_pytest_passes_them(pytester: pytest.Pytester) -> None:
    """Also once more, with what the first run has left."""
    shutil.copy(SUITES / "unhermetic.py", pytester.path / "plain.py")
    pytester.makepyfile(test_it=PLAIN)
    result = pytester.runpytest_subprocess("--isolate-all", "-s")
    result.assert_outcomes(passed=1)
    summary = re.findall(r"=+ (\d+) passed in .* =+", result.stdout.str())
    assert summary[:2] == [str(len(MARKS) + len(NEEDY))] * 2


def test_mended_they_pass(tmp_path: Path, home: Path) -> None:
    mended = run(tmp_path, "hermetic.py", home)
    assert len(mended.records) == 31
    assert mended.status == 0, mended.stdout
    assert not any(record["violations"] for record in mended.records.values())

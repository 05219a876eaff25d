"""What of a violation is the same in each run, by which a baseline knows it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from pytest_isolate.account import AccountError, read
from pytest_isolate.baseline import Baseline, BaselineError, key, known_as
from pytest_isolate.kernel.leftover import own_command
from pytest_isolate.runner import deeds
from pytest_isolate.runner.observe import audit, paths
from pytest_isolate.sandbox.changes import Change, Deed
from pytest_isolate.violation import LONGEST_TEXT, Kind, Violation

ROOT = "/srv/shop"


@pytest.mark.parametrize(
    ("what", "known"),
    [
        ("created /var/tmp/app.log (912 bytes)", "created /var/tmp/app.log"),
        ("created ~/.cache/x/ (1 file, 1 byte)", "created ~/.cache/x/"),
        ("deleted a (1)", "deleted a (1)"),
        ("left a process: python -m http.server 32887", "left a process: python -m http.server #"),
        (
            "left a process: python -c spawn_main(tracker_fd=15, pipe_handle=18)",
            "left a process: python -c spawn_main(tracker_fd=#, pipe_handle=#)",
        ),
        ("connected to 192.0.2.1:443 (tcp)", "connected to 192.0.2.1:443 (tcp)"),
    ],
)
def test_sizes_and_numbers_of_commands_are_left_out(what: str, known: str) -> None:
    assert key(what) == key(known) == known


def test_a_file_of_before_still_holds(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    path.write_text('{"schema": 1, "tests": {"t": {"files": ["created /x (3 bytes)"]}}}')
    (violation,) = Baseline.read(path).sort_out(
        "t", [Violation(kind=Kind.FILES, what="created /x (4 bytes)")]
    )
    assert violation.known
    assert violation.what == "created /x (4 bytes)"


@pytest.mark.parametrize("name", ["two  spaces", "a\nb", " x", "x" * 600, "x " * 300, "b\udcff"])
def test_a_text_is_the_same_in_report_record_and_baseline(name: str, tmp_path: Path) -> None:
    violation = Violation(kind=Kind.FILES, what=f"created {name}", where=f"{name}.py:1")
    assert Violation.from_told(violation.to_dict()) == violation
    assert len(violation.what) <= LONGEST_TEXT
    path = tmp_path / "known.json"
    path.write_text(Baseline({"t": frozenset({known_as("files", violation.what)})}).to_json(), "utf-8")
    assert [v.known for v in Baseline.read(path).sort_out("t", [violation])] == [True]


def test_a_long_name_does_not_cut_its_size() -> None:
    for size in (9, 10, 100):
        change = Change(Deed.CREATED, f"/x/{'long' * 200}", size_bytes=size)
        (violation,) = deeds._files([change], {}, ROOT, ())
        assert key(violation.what).endswith("…")


DAMAGED = "it is no baseline: "


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", DAMAGED),
        ("[" * 200_000, DAMAGED),
        ("\udcff", DAMAGED),
        ('{"schema": 2, "tests": {}}', DAMAGED + "its schema is not 1"),
        ("[]", DAMAGED + "its schema is not 1"),
        ('{"schema": 1}', DAMAGED + "its tests are no objects by node id"),
        ('{"schema": 1, "tests": []}', DAMAGED + "its tests are no objects by node id"),
        ('{"schema": 1, "tests": {"a": []}}', DAMAGED + "its tests are no objects by node id"),
        ('{"schema": 1, "tests": {"a": {"magic": ["x"]}}}', DAMAGED + "'magic' is not a valid Kind"),
        ('{"schema": 1, "tests": {"a": {"files": "x"}}}', DAMAGED + "files of a is no list of texts"),
        ('{"schema": 1, "tests": {"a": {"files": [1]}}}', DAMAGED + "files of a is no list of texts"),
    ],
)
def test_a_damaged_file_says_how_to_go_on(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(BaselineError) as caught:
        Baseline.read(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"cannot read the baseline {path}: {why}")
    assert "; restore it from version control, or delete it, " in line


def test_no_file_is_no_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(
        BaselineError, match="No such file or directory; take isolate_baseline away and write it"
    ):
        Baseline.read(tmp_path / "known.json")


def test_records_too_deep_are_none(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("[" * 200_000 + "\n")
    with pytest.raises(AccountError, match="is not JSON Lines: "):
        read(path)


# -- paths and commands ---------------------------------------------------------------------------------

PYTHON = sys.executable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"{ROOT}/out/x", "out/x"),
        (f"{ROOT}more/x", f"{ROOT}more/x"),
        (f"/x{ROOT}/y", f"/x{ROOT}/y"),
        ("/tmp/pytest-of-root/pytest-1028/test_tmp0/s.sh", "tmp_path/test_tmp0/s.sh"),
        ("/scratch/pytest-of-ann/pytest-7/popen-gw1/test_tmp0", "tmp_path/test_tmp0"),
        (f"{ROOT}/build/tmp/test_tmp0", "tmp_path/test_tmp0"),
        ("/tmp/tmpab12cd34/x", "/tmp/tmp*/x"),
        ("/tmp/tmpab12cd34-journal", "/tmp/tmp*-journal"),
        ("/tmp/myapp-q3m80fda/x", "/tmp/myapp-*/x"),
        ("/tmp/q_q3m80fda.log", "/tmp/q_*.log"),
        ("/dev/shm/psm_0a1b2c3d", "/dev/shm/psm_*"),
        ("/home/ann/.cache", "~/.cache"),
        (f"sh -I{ROOT}/include --out={ROOT} {ROOT}/run.sh", "sh -Iinclude --out=. run.sh"),
        ("sh /tmp/pytest-of-root/pytest-1028/test_tmp0/s.sh", "sh tmp_path/test_tmp0/s.sh"),
        ("cat /home/ann/x /home/ann", "cat ~/x ~"),
        ("sh -c cd /tmp/tmpab12cd34 && ls", "sh -c cd /tmp/tmp* && ls"),
    ],
)
def test_shown(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setattr(paths, "_basetemp", f"{ROOT}/build/tmp")
    assert paths.shown_command(text, ROOT, ["q3m80fda"]) == shown


def test_the_interpreter_is_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/venv/bin/python3")
    monkeypatch.setattr(sys, "prefix", "/opt/venv")
    shown = paths.shown_command("/opt/venv/bin/python3.11 /opt/venv/bin/serve -p 1", ROOT)
    assert shown == "python serve -p 1"
    assert paths.shown_command("/opt/venv/bin/python-config", ROOT) == "python-config"
    assert paths.shown_command(own_command(), ROOT) == "a fork of the test"


@pytest.mark.parametrize(
    ("path", "glob"),
    [
        ("/tmp/myapp-q3m80fda/x[1]", "/tmp/myapp-*/x[[]1]"),
        (f"{ROOT}/tmpab12cd34", "tmpab12cd34"),
        ("/tmp/tmpab12cd34", "/tmp/tmp*"),
        (
            "/scratch/pytest-of-ann/pytest-7/popen-gw1/x",
            "/scratch/pytest-of-*/pytest-*/popen-gw*/x",
        ),
        ("/x/b\udcff", "/x/b?"),
    ],
)
def test_a_glob_of_what_has_another_name_in_the_next_run(path: str, glob: str) -> None:
    assert paths.as_glob(path, ROOT, ["q3m80fda"]) == glob


def test_names_that_tempfile_makes_up_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_made_up", [])
    monkeypatch.setattr(audit, "_handlers", {})
    events: list[tuple[str, tuple[object, ...]]] = []

    def hear(event: str, args: tuple[object, ...]) -> None:
        if event in ("tempfile.mkstemp", "tempfile.mkdtemp"):
            events.append((event, args))
            paths.note_made_up(args)

    monkeypatch.setattr(
        "tempfile._sys", type("", (), {"audit": staticmethod(hear), "version_info": sys.version_info})
    )
    directory = tempfile.mkdtemp(prefix="app-", dir=tmp_path)
    with tempfile.NamedTemporaryFile(suffix=".log", dir=directory) as file:
        name = file.name
    tempfile.mkdtemp(dir=str(tmp_path).encode())
    assert [event for event, _ in events] == ["tempfile.mkdtemp", "tempfile.mkstemp", "tempfile.mkdtemp"]
    shown = paths.shown(name, str(tmp_path), paths.made_up())
    assert shown == "app-*/tmp*.log"


@pytest.mark.parametrize("told", [None, "abcdefgh", ["/", "short", "a" * 9, 3, "ABCDEFGH", ["abcdefgh"]]])
def test_a_test_cannot_make_up_other_names(told: object) -> None:
    assert [*deeds._made_up(told)] == []

"""Workflow commands and Markdown, whatever a test has put into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_isolate.reporters import github
from pytest_isolate.reporters.collect import Collected, Row
from pytest_isolate.reporters.signoff import Escape
from pytest_isolate.violation import Kind, Violation


def violation(what: str = "did it", where: str = "", **rest: Any) -> Violation:
    return Violation(kind=Kind.FILES, what=what, where=where, **rest)


def row(name: str, *deeds: Violation, outcome: str = "failed", **rest: Any) -> Row:
    return Row(nodeid=name, deeds=deeds, outcome=outcome, location=("test_it.py", 7), **rest)


def collected(*rows: Row) -> Collected:
    return Collected(rows={("main", row.nodeid): row for row in rows})


def test_the_place_is_the_test_if_nobody_knows_better(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").touch()
    wheres = ["lib/a.py:3 (f)", "lib/a.py:4", "lib/b.py:3 (f)", "pid 7: curl http://x:80", ""]
    wheres += ["lib/a.py:5 (start), pid 3", "lib/a.py:6 (<lambda>), thread Thread-1 (run)"]
    rows = [row("a", *(violation(where=where) for where in wheres))]
    places = [line.split(",title")[0] for line in github.annotate(rows, tmp_path, None)]
    test = f"::error file={tmp_path}/test_it.py,line=7"
    assert places == [
        f"::error file={tmp_path}/lib/a.py,line=3",
        f"::error file={tmp_path}/lib/a.py,line=4",
        test,
        test,
        test,
        f"::error file={tmp_path}/lib/a.py,line=5",
        f"::error file={tmp_path}/lib/a.py,line=6",
    ]


@pytest.mark.parametrize(
    ("outcome", "reason", "level"),
    [
        ("failed", "failed", "error"),
        ("failed", "oom", "error"),
        ("failed", "timeout", "error"),
        ("failed", "signal", "error"),
        ("failed", "exited", "error"),
        ("error", "failed", "error"),
        ("xfailed", "oom", "warning"),
        ("passed", "passed", "warning"),
    ],
)
def test_the_level_is_that_of_the_outcome(outcome: str, reason: str, level: str, tmp_path: Path) -> None:
    (line,) = github.annotate([row("a", violation(), outcome=outcome, reason=reason)], tmp_path, None)
    assert line.startswith(f"::{level} ")


def test_escaping(tmp_path: Path) -> None:
    (line,) = github.annotate(
        [row("t[a:b,c%\r\n]", violation("100 %", cure="\r\n::warning::x"))], tmp_path, str(tmp_path)
    )
    assert line == (
        "::error file=test_it.py,line=7,title=not hermetic%3A t[a%3Ab%2Cc%25%0D%0A]::"
        "files: 100 %25; allow it with %0D%0A::warning::x"
    )


def test_ten_of_a_level(tmp_path: Path) -> None:
    many = [violation(str(number)) for number in range(13)]
    lines = [*github.annotate([row("a", *many), row("b", *many[:4], outcome="passed")], tmp_path, None)]
    assert [sum(line.startswith(f"::{level} ") for line in lines) for level in ("error", "warning")] == [
        10,
        4,
    ]
    assert lines[-1] == (
        "isolate: 3 more violations without an annotation: GitHub shows 10 of a level in each step"
    )


def test_what_is_alike_at_one_line_is_one_annotation(tmp_path: Path) -> None:
    wheres = ["a.py:3 (f), pid 4", "a.py:3 (f), pid 5", "a.py:9 (g), pid 6"]
    rows = [row("t", *(violation(where=where) for where in wheres))]
    assert [line.partition("::files: ")[2] for line in github.annotate(rows, tmp_path, None)] == [
        "did it (2 times), a.py:3 (f), pid 4",
        "did it, a.py:9 (g), pid 6",
    ]
    assert "| t | files | did it (2 times) | a.py:3 (f), pid 4 |" in github.markdown(collected(*rows), 0)


def test_what_is_known_is_no_news(tmp_path: Path) -> None:
    rows = [row("a", violation(known=True))]
    assert [*github.annotate(rows, tmp_path, None)] == []
    assert "#### Violations" not in github.markdown(collected(*rows), 5)


def test_cells_cannot_leave_their_table() -> None:
    text = github.markdown(collected(row("t[|`<b>*_]", violation("a|b\n\n# title\\"))), 0)
    assert "| t\\[\\|\\`&lt;b&gt;\\*\\_\\] | files | a\\|b \\# title\\\\ |  |  |\n" in text


def test_long_tables_are_cut() -> None:
    text = github.markdown(collected(row("a", *(violation(str(number)) for number in range(150)))), 0)
    assert text.count("| a | files |") == 100
    assert "\nand 50 more\n" in text


def test_escapes() -> None:
    account = {"escapes_max": 3, "hash_seed": "0"}
    text = github.markdown(collected(row("a")), 0, [Escape("a", 'network="host"')], account)
    assert "| escapes | 1 of 3 allowed |" in text
    assert '#### Escapes\n\n| test | escape |\n| --- | --- |\n| a | network="host" |\n' in text


def test_github_takes_a_mebibyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(github, "MOST_SUMMARY_BYTES", 1000)
    path = tmp_path / "summary"
    path.write_bytes(b"x" * 400)
    github._append(str(path), "line ä\n" * 200)
    data = path.read_bytes()
    assert len(data) <= 1000
    assert data.endswith(github._CUT.encode())
    assert "line ä\n\n\nThis summary" in data.decode()
    github._append(str(path), "more" * 1000)
    assert len(path.read_bytes()) <= 1000


@pytest.mark.parametrize(
    ("environ", "is_here"),
    [
        ({}, False),
        ({"GITHUB_ACTIONS": "true"}, True),
        ({"GITHUB_ACTIONS": "false"}, False),
        ({"GITHUB_ACTIONS": "true", "PYTEST_CURRENT_TEST": "a"}, False),
    ],
)
def test_where_it_is_on(environ: dict[str, str], is_here: bool) -> None:
    assert github.is_here(environ) is is_here

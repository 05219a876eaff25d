"""The differential test itself: it finds what differs, and nothing that only looks so."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.differential import corpus_suites
from tests.differential.compare import compare, differences
from tests.differential.explained import Explanation, explanations, load_toml
from tests.differential.normalise import normalise
from tests.differential.recording import SESSION, Recording, load
from tests.differential.suite import Suite, run

HERE = Path(corpus_suites.__file__).parent
REPORT = {
    "kind": "report", "nodeid": "t.py::t", "type": "TestReport", "subtest": None, "when": "call",
    "outcome": "passed", "wasxfail": None, "longrepr": None, "sections": [], "properties": [], "keywords": [],
    "location": ["t.py", 1, "t"],
}  # fmt: skip


def recording(tmp_path: Path, *changes: dict[str, object]) -> Recording:
    path = tmp_path / "record.jsonl"
    path.write_text("".join(json.dumps(REPORT | change) + "\n" for change in changes))
    return load(path, 0, 1.0, {}, tree=tmp_path, ordered=True)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"outcome": "failed"}, "outcome"),
        ({"wasxfail": ""}, "outcome"),
        ({"when": "setup"}, "outcome"),
        ({"type": "SubtestReport", "subtest": "(i=1)"}, "outcome"),
        ({"longrepr": "assert 0"}, "call longrepr"),
        ({"sections": [["Captured stdout call", "x"]]}, "call sections"),
        ({"properties": [["a", "1"]]}, "call properties"),
        ({"keywords": ["slow"]}, "keywords"),
        ({"location": ["t.py", 2, "t"]}, "call location"),
    ],
)
def test_a_difference_is_found(tmp_path: Path, change: dict[str, object], what: str) -> None:
    found = differences(recording(tmp_path, {}), recording(tmp_path, change))
    assert what in {difference.what for difference in found}
    assert {difference.nodeid for difference in found} == {"t.py::t"}


def test_what_isolation_adds_is_none(tmp_path: Path) -> None:
    isolated = recording(tmp_path, {"properties": [["isolate.wall_s", "1"]]})
    assert differences(recording(tmp_path, {}), isolated) == []


@pytest.mark.parametrize("changes", [[], [{}, {}], [{"nodeid": "t.py::other"}]])
def test_missing_and_additional_reports_are_found(tmp_path: Path, changes: list[dict[str, object]]) -> None:
    assert differences(recording(tmp_path, {}), recording(tmp_path, *changes))


def test_exit_codes_are_compared(tmp_path: Path) -> None:
    plain, isolated = recording(tmp_path, {}), recording(tmp_path, {})
    isolated.facts[SESSION]["exit code"] = ["1"]
    (found,) = differences(plain, isolated)
    assert (found.nodeid, found.what) == (SESSION, "exit code")
    assert "    -0" in found.lines()
    assert "    +1" in found.lines()


def test_explained_and_unsteady_ones_are_told_apart(tmp_path: Path) -> None:
    plain = recording(tmp_path, {}, {"nodeid": "t.py::u[a]"}, {"nodeid": "t.py::v"})
    again = recording(tmp_path, {}, {"nodeid": "t.py::u[a]", "outcome": "failed"}, {"nodeid": "t.py::v"})
    changed: list[dict[str, object]] = [
        {"nodeid": f"t.py::{name}", "outcome": "failed"} for name in ("t", "u[a]", "v")
    ]
    isolated = recording(tmp_path, *changed)
    known = [Explanation(tests="t.py::v", what=("out*",), reason="because")]
    found = compare(plain, isolated, again, known, "isolated")
    assert [(d.nodeid, d.what) for d in found.unexplained] == [("t.py::t", "outcome")]
    assert [(d.nodeid, e.reason) for d, e in found.explained] == [("t.py::v", "because")]
    assert found.unsteady == ["t.py::u[a]: outcome"]


def test_a_run_that_does_not_end_is_killed_and_tells_what_it_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "test_it.py").write_text(
        "import time\ndef test_ends(): pass\ndef test_sleeps(): time.sleep(300)\n"
    )
    suite = Suite(name="hangs", source=source, runs=(("-p", "no:randomly"),), timeout_s=8.0)
    found = run(suite, (), tmp_path / "work", "plain", ordered=True)
    assert found.exit_code == -signal.SIGABRT
    assert "TestReport call: passed" in found.facts["test_it.py::test_ends"]["outcome"]
    assert found.facts["test_it.py::test_sleeps"]["outcome"] == ["TestReport setup: passed"]
    said = capfd.readouterr().out
    assert "did not end in 8 s" in said
    assert "in test_sleeps" in said


def test_an_explanation_is_of_its_mode_and_tests_only() -> None:
    explanation = Explanation(tests="t.py::t[*]", modes=("xdist",), reason="because")
    assert explanation.covers("t.py::t[a]", "outcome", "xdist")
    assert not explanation.covers("t.py::t[a]", "outcome", "isolated")
    assert not explanation.covers("t.py::ta", "outcome", "xdist")


@pytest.mark.parametrize("row", [{"tests": "*"}, {"tests": "*", "reason": "x", "waht": []}])
def test_an_explanation_needs_a_reason_and_right_keys(row: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        explanations([row])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<object at 0x7f10e05136c0>", "<object at 0x7f20e0513600>"),
        ("/tmp/pytest-of-root/pytest-3/test_a0", "/tmp/pytest-of-root/pytest-12/test_a0"),
        ("1 passed in 0.12s", "1 passed in 1.05s"),
        ("http://127.0.0.1:45678/", "http://127.0.0.1:34567/"),
        ("('127.0.0.1', 45678)", "('127.0.0.1', 34567)"),
        ("pid=123", "pid=77"),
        ("2026-01-02 03:04:05,678 x", "2026-02-02 13:04:05,999 x"),
    ],
)
def test_what_no_two_runs_share_is_no_difference(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"), [("assert 1 == 2", "assert 1 == 3"), ("test_a0", "test_a1"), ("0.5", "0.6")]
)
def test_what_counts_stays(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_every_directory_of_the_corpus_is_a_suite() -> None:
    directories = {path.name for path in (HERE / "corpus").iterdir()}
    assert {suite.source.name for suite in corpus_suites.suites()} == directories


@pytest.mark.parametrize("name", ["corpus.toml", "suites.toml", "pytest.toml"])
def test_every_explanation_has_a_reason(name: str) -> None:
    data = load_toml(HERE / name)
    suites = data["suite"] if isinstance(data["suite"], list) else [data["suite"]]
    rows = [row for table in (data, *suites) for row in table.get("explained", ())]
    assert all(explanation.reason.strip() for explanation in explanations(rows))

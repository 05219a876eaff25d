from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from pytest_isolate.runner import record

pytestmark = pytest.mark.needs("user namespace")

TESTS = """
    import pytest

    @pytest.mark.isolated
    def test_passes():
        pass

    @pytest.mark.isolated(timeout="2s")
    def test_hangs():
        import time
        time.sleep(60)

    @pytest.mark.isolated
    def test_leaves_a_process():
        import subprocess
        subprocess.Popen(["sleep", "60"])

    @pytest.mark.not_isolated(reason="needs the host")
    def test_opted_out():
        pass

    def test_plain():
        pass
"""


def run(pytester: pytest.Pytester, *arguments: str, **outcomes: int) -> list[str]:
    result = pytester.runpytest_subprocess("--tb=no", "-rN", *arguments)
    if outcomes:
        result.assert_outcomes(**outcomes)
    return result.outlines


def section_of(lines: list[str]) -> list[str]:
    starts = [n for n, line in enumerate(lines) if line.startswith("===") and " isolate ===" in line]
    if not starts:
        return []
    end = next(n for n, line in enumerate(lines) if n > starts[0] and line.startswith("==="))
    return lines[starts[0] + 1 : end]


def records(path: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = {line["nodeid"].partition("::")[2]: line for line in lines}
    assert len(found) == len(lines)
    return found


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makepyfile(test_a=TESTS)
    return pytester


WORKERS = pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])


@WORKERS
@pytest.mark.needs("cgroup")
def test_terminal_section(project: pytest.Pytester, workers: list[str]) -> None:
    if workers:
        pytest.importorskip("xdist")
    lines = section_of(run(project, "--isolate-all", *workers, passed=4, failed=1))
    assert lines[0].startswith("4 isolated tests: ")
    assert lines[1].startswith("enforced: user pid mnt net ipc uts cgroup namespaces, overlay root")
    assert "1 test hit a limit: timeout" in lines
    assert "1 test left processes behind: test_a.py::test_leaves_a_process (1)" in lines
    assert "1 test opted out (not_isolated): needs the host" in lines
    assert any(line.startswith("by cpu") for line in lines)
    assert sum("test_a.py::test_plain" in line for line in lines) in (1, 2)


def test_wrong_options_are_no_sandbox_that_could_not_be_built(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_b="""
        import pytest

        @pytest.mark.isolated(memry="64M")
        def test_misspelt(): pass

        @pytest.mark.isolated(memory="lots")
        def test_wrong(): pass

        @pytest.mark.isolated
        def test_right(): pass
        """
    )
    lines = section_of(run(project, "--isolate-json=out.json", "test_b.py", passed=1, errors=2))
    assert "2 tests did not run: wrong options" in lines
    assert not any("no sandbox" in line for line in lines)
    reasons = {name: found["reason"] for name, found in records(project.path / "out.json").items()}
    assert reasons == {"test_misspelt": "options", "test_wrong": "options", "test_right": "passed"}


def test_no_section_without_isolation(project: pytest.Pytester) -> None:
    assert section_of(run(project, "-k", "plain or opted", passed=2, deselected=3)) == []


def test_marked_tests_alone_make_a_section(project: pytest.Pytester) -> None:
    lines = section_of(run(project, "-k", "passes or plain", passed=2, deselected=3))
    assert lines[0].startswith("1 isolated test: ")
    assert not any("opted out" in line for line in lines)


def test_top(project: pytest.Pytester) -> None:
    lines = section_of(run(project, "--isolate-all", "--isolate-top=0"))
    assert not any(line.startswith(("by ", "top ")) for line in lines)
    lines = section_of(run(project, "--isolate-all", "--isolate-top=2"))
    assert any(line.startswith("top 2 by cpu") for line in lines)


def test_quiet(project: pytest.Pytester) -> None:
    lines = run(project, "-q", "--isolate-all")
    mine = [line for line in lines if line.startswith("isolate: ")]
    assert len(mine) == 1
    assert mine[0].startswith("isolate: 4 tests, ")
    assert mine[0].endswith("overhead, 1 hit a limit, 1 not hermetic, 1 opted out")
    assert not any("isolate" in line for line in run(project, "-qq", "--isolate-all"))


@WORKERS
def test_isolate_off_is_told(project: pytest.Pytester, workers: list[str]) -> None:
    if workers:
        pytest.importorskip("xdist")
    lines = section_of(run(project, "--isolate-off", "-k", "passes or plain", *workers, passed=2))
    assert lines == ["isolation is off (--isolate-off): 1 test ran unprotected"]


@WORKERS
@pytest.mark.needs("cgroup")
def test_json_lines(project: pytest.Pytester, workers: list[str]) -> None:
    if workers:
        pytest.importorskip("xdist")
    lines = section_of(run(project, "--isolate-all", "--isolate-json=out/new/isolate.json", *workers))
    assert "one JSON line per isolated test: out/new/isolate.json" in lines
    found = records(project.path / "out/new/isolate.json")
    assert set(found) == {"test_passes", "test_hangs", "test_leaves_a_process", "test_plain"}
    assert all(list(line) == ["schema", "nodeid", *record.FIELDS] for line in found.values())
    assert found["test_hangs"]["outcome"] == "failed"
    assert found["test_hangs"]["reason"] == "timeout"
    assert found["test_passes"]["reason"] == "passed"
    assert found["test_passes"]["signal"] is None
    assert found["test_leaves_a_process"]["leaked_processes"] == 1
    assert set(found["test_plain"]["enforced"]["namespaces"]) >= {"pid", "mnt", "net"}
    assert {line["worker"] for line in found.values()} <= ({"gw0", "gw1"} if workers else {"main"})


def test_json_lines_are_written_as_each_test_ends(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_b="""
        import json, os, pytest

        @pytest.mark.isolated
        def test_first():
            pass

        def test_second():
            with open("isolate.json") as lines:
                assert [json.loads(line)["nodeid"] for line in lines] == ["test_b.py::test_first"]

        @pytest.mark.isolated
        def test_third():
            assert not any("isolate.json" in os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 50)
                           if os.path.lexists(f"/proc/self/fd/{fd}"))
        """
    )
    run(project, "--isolate-json=isolate.json", "test_b.py", passed=3)


def test_json_of_an_earlier_run(project: pytest.Pytester) -> None:
    path = project.path / "isolate.json"
    path.write_text("earlier\n")
    run(project, "--isolate-json=isolate.json", "--collect-only")
    assert path.read_text() == "earlier\n"
    run(project, "--isolate-json=isolate.json", "-k", "plain")
    assert path.read_text() == ""


@WORKERS
def test_json_that_cannot_be_written(project: pytest.Pytester, workers: list[str]) -> None:
    if workers:
        pytest.importorskip("xdist")
    (project.path / "file").touch()
    result = project.runpytest_subprocess("--isolate-json=file/x", *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in result.outlines + result.errlines if "cannot write" in line]
    assert errors == [f"ERROR: --isolate-json: cannot write {project.path / 'file' / 'x'}: File exists"]


def test_json_that_breaks_off_loses_no_test(project: pytest.Pytester) -> None:
    project.makeconftest(
        """
        import os

        def pytest_runtest_logfinish(nodeid):
            if nodeid.endswith("test_plain") and os.path.isfile("isolate.json"):
                os.remove("isolate.json")
                os.mkdir("isolate.json")
        """
    )
    project.makepyfile(
        test_b="""
        import pytest

        def test_plain():
            pass

        @pytest.mark.isolated
        def test_x():
            pass
        """
    )
    lines = section_of(run(project, "--isolate-json=isolate.json", "test_b.py", passed=2))
    path = project.path / "isolate.json"
    assert f"--isolate-json: {path} is incomplete: Is a directory" in lines


def test_junit_properties(project: pytest.Pytester) -> None:
    run(project, "--isolate-all", "--junitxml=junit.xml")
    cases = {case.get("name"): case for case in ET.parse(project.path / "junit.xml").iter("testcase")}
    properties = {
        name: {p.get("name"): p.get("value") for p in case.iter("property")} for name, case in cases.items()
    }
    assert properties["test_hangs"]["isolate.reason"] == "timeout"
    assert properties["test_passes"]["isolate.outcome"] == "passed"
    assert float(properties["test_passes"]["isolate.wall_s"] or "") > 0
    assert properties["test_opted_out"] == {"isolate.opted_out": "needs the host"}


def test_a_test_cannot_pass_itself_off(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_b="""
        import pytest

        @pytest.mark.isolated
        def test_isolated(record_property):
            record_property("isolate.signal", "SIGKILL")
            record_property("isolate.wall_s", "long")

        def test_plain(record_property):
            record_property("isolate.schema", 1)
            record_property("isolate.enforced", "{")
            record_property("isolate.violations", object())
        """
    )
    run(project, "--isolate-json=isolate.json", "test_b.py", passed=2)
    found = records(project.path / "isolate.json")
    assert set(found) == {"test_isolated"}
    assert found["test_isolated"]["signal"] is None
    assert isinstance(found["test_isolated"]["wall_s"], float)


@WORKERS
def test_plain_sessions_import_no_reporter(project: pytest.Pytester, workers: list[str]) -> None:
    if workers:
        pytest.importorskip("xdist")
    project.makeconftest(
        """
        import sys

        def pytest_unconfigure(config):
            if not hasattr(config, "workerinput"):
                print("loaded:", [name for name in sys.modules if "pytest_isolate.reporters." in name])
        """
    )
    assert "loaded: []" in run(project, "-k", "plain", *workers, passed=1)


def test_records_are_the_same_without_a_terminal(project: pytest.Pytester) -> None:
    project.runpytest_subprocess("-p", "no:terminal", "--isolate-json=isolate.json", "-k", "passes")
    assert list(records(project.path / "isolate.json")) == ["test_passes"]

"""The command line, as a person meets it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

TIME_SCALE = float(os.environ.get("TEST_TIME_SCALE", "1"))
SUITE = """
import pytest

@pytest.mark.isolated(memory="64M", timeout="10s", files=100, env={"A": "1", "B": None})
def test_marked():
    raise AssertionError("explain runs nothing")

@pytest.mark.isolated(memry="64M")
def test_wrong(): pass

def test_plain(): pass

@pytest.mark.not_isolated(reason="talks to the host")
def test_out(): pass

@pytest.mark.parametrize("x", [1, 2])
def test_many(x): pass

print("noise at import")
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("NO_COLOR", "FORCE_COLOR", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "pytest.ini").write_text("[pytest]\nisolate_cpus = 0.5\nfilterwarnings = error\n")
    (tmp_path / "test_it.py").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cli(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest_isolate.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60 * TIME_SCALE, check=False)


def explain(nodeid: str, *args: str) -> str:
    ran = cli("explain", nodeid, *args)
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    return ran.stdout


def test_version() -> None:
    ran = cli("--version")
    assert (ran.returncode, ran.stdout) == (0, f"pytest-isolate {version('pytest-isolate-ns')}\n")


# -- doctor ---------------------------------------------------------------------------------------------


@pytest.mark.vm
def test_doctor_prints_a_table_and_a_verdict() -> None:
    ran = cli("doctor")
    first, *table, verdict = ran.stdout.splitlines()
    assert re.fullmatch(r"pytest-isolate \S+ as uid \d+, with(out)? privileges", first)
    assert table[0] == ""
    assert table[1] == "Needed by every sandbox"
    rows = [line for line in table if re.match(r"  (yes|no )  \w", line)]
    assert len(rows) > 20
    assert len({re.match(r"  (yes|no )  ", row) is None for row in rows}) == 1
    assert "\033" not in ran.stdout
    if ran.returncode == 0:
        assert verdict == "the default sandbox runs here"
    else:
        assert verdict.startswith("the default sandbox cannot run here: ")


def test_doctor_as_json() -> None:
    ran = cli("doctor", "--json")
    report = json.loads(ran.stdout)
    assert report["schema"] == 1
    assert report["ok"] == (ran.returncode == 0)
    assert set(report) == {"schema", "version", "ok", "kernel", "uid", "privileged", "features", "level"}
    for feature in report["features"]:
        assert set(feature) == {"name", "available", "needed", "reason", "cure", "detail"}
    assert report["ok"] == all(f["available"] for f in report["features"] if f["needed"])


@pytest.mark.parametrize(("no_color", "colours"), [("", True), ("1", False)])
def test_doctor_is_coloured_on_a_terminal_only(
    no_color: str, colours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = os.openpty()
    with open(ours, "rb", buffering=0) as terminal:
        child = subprocess.Popen([sys.executable, "-m", "pytest_isolate.cli", "doctor"], stdout=theirs)
        os.close(theirs)
        text = b""
        try:
            while chunk := terminal.read(4096):
                text += chunk
        except OSError:  # EIO: the last other end is closed
            pass
    assert child.wait() in (0, 1)
    assert (b"\033[32m" in text) == colours


# -- explain --------------------------------------------------------------------------------------------


@pytest.mark.needs("user namespace")
def test_explain_prints_options_steps_and_what_is_missing(directory: Path) -> None:
    text = explain("test_it.py::test_marked", "--isolate-hostname", "box")
    lines = text.splitlines()
    assert lines[0] == "test_it.py::test_marked runs in a sandbox of its own"
    assert re.search(r"^  memory +64\.0 MiB +@pytest\.mark\.isolated\(memory=…\)$", text, re.M)
    assert re.search(r"^  swap +0 B +because memory is capped$", text, re.M)
    assert re.search(r"^  cpus +0\.5 +ini isolate_cpus$", text, re.M)
    assert re.search(r"^  hostname +box +--isolate-hostname$", text, re.M)
    assert re.search(r"^  env +inherit A=1 -B +@pytest", text, re.M)
    assert re.search(r"^  network +none +default$", text, re.M)
    numbers = [int(found[1]) for line in lines if (found := re.match(r" +(\d+)\. ", line))]
    assert numbers == [*range(1, len(numbers) + 1)]
    assert re.search(r"^ +\d+\. set the hostname to box$", text, re.M)
    assert re.search(r"^ +\d+\. bring lo up$", text, re.M)
    assert re.search(r"of its own: memory 64\.0 MiB, swap 0 B, processors 0\.5$", text, re.M)
    assert re.search(r"^ +\d+\. limit each process to 100 open files$", text, re.M)
    assert re.search(rf"^ +\d+\. change to the directory {directory}$", text, re.M)
    assert re.search(r"^ +\d+\. remove the environment variable B$", text, re.M)
    assert re.search(r"^ +\d+\. run setup, call and teardown of the test, for 10\.0 s at most$", text, re.M)
    assert re.search(
        r"^(nothing that it needs is missing here|Missing here, with --isolate-missing=fail:)", text, re.M
    )
    assert "noise" not in text


@pytest.mark.needs("cgroup memory limit", "cgroup cpu limit", "user namespace")
def test_explain_says_whose_fixtures_are_whose(directory: Path) -> None:
    (directory / "test_fix.py").write_text(
        "import pytest\n"
        "@pytest.fixture(scope='session')\ndef s(): yield\n"
        "@pytest.fixture(scope='session')\nasync def loop_made(): yield\n"
        "@pytest.fixture(scope='module')\ndef m(s): yield\n"
        "@pytest.fixture\ndef f(m): yield\n"
        "def test_it(f, loop_made): pass\n"
    )
    text = explain("test_fix.py::test_it", "--isolate-all")
    assert re.search(r"set up by pytest, once +s m\n", text)
    assert re.search(r"set up in the sandbox +loop_made f\n", text)
    text = explain("test_fix.py::test_it", "--isolate-all", "--isolate-scope=module")
    assert re.search(r"^  scope +module +--isolate-scope", text, re.MULTILINE)
    assert re.search(r"set up by pytest, once +s\n", text)
    text = explain("test_fix.py::test_it", "--isolate-all", "--isolate-fixtures=fresh")
    assert re.search(r"set up by pytest, once +none\n", text)


@pytest.mark.needs("cgroup memory limit", "cgroup cpu limit", "user namespace")
def test_explain_with_all_there(directory: Path) -> None:
    assert explain("test_it.py::test_marked").endswith("nothing that it needs is missing here\n")


def test_explain_a_test_that_is_not_isolated(directory: Path) -> None:
    text = explain("test_it.py::test_plain")
    assert text.startswith("test_it.py::test_plain is not isolated: ")
    assert "@pytest.mark.isolated" in text
    assert "--isolate-all" in text


def test_explain_a_test_that_is_kept_out(directory: Path) -> None:
    text = explain("test_it.py::test_out", "--isolate-all")
    assert "not_isolated says 'talks to the host'" in text


def test_explain_with_isolation_off(directory: Path) -> None:
    assert "--isolate-off" in explain("test_it.py::test_marked", "--isolate-off")


def test_explain_a_wrong_option(directory: Path) -> None:
    text = explain("test_it.py::test_wrong")
    assert text.startswith(
        "test_it.py::test_wrong fails without being run: @pytest.mark.isolated: unknown option"
    )


@pytest.mark.needs("user namespace")
def test_explain_the_first_of_several(directory: Path) -> None:
    text = explain("test_it.py::test_many", "--isolate-all")
    assert text.startswith("test_it.py::test_many[1] runs in a sandbox")
    assert text.endswith("1 more match; name one to see it, as in test_it.py::test_many[2]\n")


@pytest.mark.needs("user namespace")
def test_explain_names_the_hook_that_changed_an_option(directory: Path) -> None:
    (directory / "conftest.py").write_text(
        "import dataclasses\n"
        "def pytest_isolate_modify_spec(item, spec):\n"
        "    return dataclasses.replace(spec, hostname='changed')\n"
    )
    text = explain("test_it.py::test_marked")
    assert re.search(r"^  hostname +changed +hook pytest_isolate_modify_spec$", text, re.M)
    assert "set the hostname to changed" in text


def test_explain_an_unknown_test(directory: Path) -> None:
    ran = cli("explain", "test_it.py::test_none")
    assert ran.returncode == 4
    assert "ERROR: not found: " in ran.stderr
    assert "test_it.py::test_none" in ran.stderr


def test_explain_a_module_that_cannot_be_imported(directory: Path) -> None:
    (directory / "test_bad.py").write_text("import nothing_of_this_name")
    ran = cli("explain", "test_bad.py")
    assert ran.returncode == 2
    assert "nothing_of_this_name" in ran.stdout


def test_a_subcommand_is_needed() -> None:
    ran = cli()
    assert ran.returncode == 2
    assert "COMMAND" in ran.stderr

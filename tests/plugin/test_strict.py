"""--isolate-strict: what a test has, what it is refused, and what of that is loosened and counted."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace", "overlay")

WAYS = [[], ["--isolate-jobs=2"], ["--isolate-start=spawn"], ["--isolate-runtime=crun"]]

ENVIRONMENT = """
    import os, pwd, subprocess, sys, time
    def test_variables():
        assert "AWS_SECRET" not in os.environ and "SSH_AUTH_SOCK" not in os.environ
        assert "DOCKER_HOST" not in os.environ and "XDG_CONFIG_HOME" not in os.environ
        assert os.environ["TZ"] == "UTC" and os.environ["LANG"] == "C.UTF-8"
        assert time.localtime(0).tm_hour == 0 and time.tzname == ("UTC", "UTC")
        code = "import os; print(hash('a'), os.environ['PYTHONHASHSEED'])"
        twice = {subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(2)}
        assert len(twice) == 1 and "0" in twice.pop().split()
    def test_what_the_kernel_shows():
        with open("/proc/self/environ") as file:
            shown = file.read().split("\\0")
        assert not [entry for entry in shown if "somewhere" in entry or "Tokyo" in entry]
        assert f"PATH={os.environ['PATH']}" in shown
    def test_umask():
        assert os.umask(0o22) == 0o22
    def test_home():
        assert os.listdir(os.path.expanduser("~")) == []
        needed = [sys.prefix, sys.base_prefix, *sys.path, os.getcwd(), *os.environ["PATH"].split(":")]
        needed += [os.path.realpath(path) for path in needed]
        home = pwd.getpwuid(os.getuid()).pw_dir
        for name in os.listdir(home) if os.path.isdir(home) and home != "/" else ():
            assert any((path + "/").startswith(f"{home}/{name}/") for path in needed), name
"""


def need(way: list[str]) -> None:
    if "--isolate-runtime=crun" in way and shutil.which("crun") is None:
        pytest.skip("crun is not installed")


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_everyone_gets_the_same(
    way: list[str], run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    need(way)
    for name in ("AWS_SECRET", "SSH_AUTH_SOCK", "DOCKER_HOST", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, "/somewhere")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    result = run(ENVIRONMENT, "--isolate-strict", *way)
    assert result.outcomes == {"passed": 4}, result.out
    escapes = ['runtime="crun"'] if "--isolate-runtime=crun" in way else []  # there only Python watches
    assert [record["escapes"] for record in result.records] == [escapes] * 4


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_a_project_in_the_home(
    way: list[str], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home is empty but for the project, which is found by a link as well."""
    need(way)
    shop = pytester.mkdir("shop")
    secrets = pytester.mkdir(".ssh")
    (secrets / "id_rsa").write_text("secret")
    (pytester.path / ".netrc").write_text("secret")
    (shop / "pytest.ini").write_text("[pytest]\n")
    (shop / "helper.py").write_text("value = 1\n")
    (shop / "test_it.py").write_text(
        "import os\n"
        "def test_it(tmp_path):\n"
        "    home = os.path.expanduser('~')\n"
        f"    assert home == {str(pytester.path)!r}\n"
        "    assert 'shop' in os.listdir(home)\n"
        "    assert not {'.ssh', '.netrc'} & {*os.listdir(home)}\n"
        "    import helper\n"
        "    (tmp_path / 'x').write_text('x')\n"
        "    open(home + '/.cache-of-mine', 'w').close()\n"
    )
    monkeypatch.chdir(shop)
    more = ["-p", "no:cacheprovider", "-o", "pythonpath=.", "--isolate-watch=report"]
    result = pytester.runpytest_subprocess("--isolate-strict", *more, *way)
    assert "tried to" not in result.stdout.str()
    assert result.parseoutcomes().get("errors") is None
    # What it left in its home may be a violation; that it could is what counts here.
    assert "AssertionError" not in result.stdout.str()
    assert "Error: [Errno" not in result.stdout.str()
    assert not (pytester.path / ".cache-of-mine").exists()


PROJECT = """
    import contextlib, os, pathlib, shutil
    here = pathlib.Path(__file__).parent
    def test_swallowed():
        with contextlib.suppress(OSError):
            (here / "data" / "out.txt").write_text("x")
    def test_renamed():
        with contextlib.suppress(OSError):
            os.rename(here / "data", here / "other")
    def test_removed_in_a_tree():
        shutil.rmtree(here / "data", ignore_errors=True)
    def test_made():
        with contextlib.suppress(OSError):
            os.mkdir("made")
    def test_removed_empty():
        with contextlib.suppress(OSError):
            os.rmdir(here / "empty")
    def test_nothing(tmp_path):
        for made in ("data", "data/in.txt"):
            with contextlib.suppress(OSError):
                os.mkdir(here / made)
        with contextlib.suppress(OSError):
            os.rmdir(here / "data")
        os.makedirs(here / "data", exist_ok=True)
    def test_read(tmp_path):
        import late
        (tmp_path / "x").write_text((here / "data" / "in.txt").read_text())
        shutil.rmtree(tmp_path)
"""


@pytest.mark.parametrize("way", [[], ["--isolate-start=spawn"]], ids=" ".join)
def test_who_writes_to_the_project_is_named(
    way: list[str], run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    data = pytester.mkdir("data")
    (data / "in.txt").write_text("in")
    pytester.mkdir("empty")
    pytester.makepyfile(late="value = 1")
    result = run(PROJECT, "--isolate-strict", *way)
    assert result.outcomes == {"passed": 2, "failed": 5}, result.out
    said = {
        name: [
            (v["kind"], v["what"].rpartition(": ")[2], v["where"]) for v in result.record(name)["violations"]
        ]
        for name in (record["nodeid"].rpartition(":")[2] for record in result.records)
    }
    assert said["test_swallowed"] == [("files", "data/out.txt", "test_it.py:5 (test_swallowed)")]
    assert {path for _, path, _ in said["test_renamed"]} == {"data", "other"}
    assert ("files", "data/in.txt", "test_it.py:10 (test_removed_in_a_tree)") in said[
        "test_removed_in_a_tree"
    ]
    assert said["test_made"] == [("files", "made", "test_it.py:13 (test_made)")]
    assert said["test_removed_empty"] == [("files", "empty", "test_it.py:16 (test_removed_empty)")]
    assert said["test_nothing"] == said["test_read"] == []
    assert (data / "in.txt").exists()


@pytest.mark.parametrize("is_there", [True, False], ids=["there", "missing"])
@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_artifacts_are_declared_places(
    way: list[str], is_there: bool, run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    need(way)
    if is_there:
        pytester.mkdir("out")
    result = run(
        """
        import pytest
        @pytest.mark.isolated(artifacts=["out/**/*.txt"])
        def test_it():
            import os
            os.makedirs("out/sub", exist_ok=True)
            with open("out/sub/x.txt", "w") as file:
                file.write("made")
            with pytest.raises(OSError):
                open("other.txt", "w")
        """,
        "--isolate-strict",
        *way,
    )
    assert (pytester.path / "out" / "sub" / "x.txt").read_text() == "made"
    kinds = [violation["what"] for violation in result.record("test_it")["violations"]]
    assert "tried to write to the read-only project: other.txt" in kinds
    assert not any("out/sub" in what for what in kinds if "tried" in what)
    assert not (pytester.path / "other.txt").exists()


def test_an_artifact_cannot_open_the_whole_project(run: Callable[..., Run]) -> None:
    result = run("def test(): pass", "--isolate-strict", "--isolate-artifacts=*.png")
    assert result.outcomes == {"errors": 1}
    assert "would make the whole project writable; name a directory, as in out/*.png" in result.out


def test_pytest_itself_still_writes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_a(): assert 0\ndef test_b(): pass")
    pytester.runpytest_subprocess("--isolate-strict").assert_outcomes(failed=1, passed=1)
    result = pytester.runpytest_subprocess("--isolate-strict", "--lf", "--junitxml=out.xml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["run-last-failure: rerun previous 1 failure"])
    assert (pytester.path / "out.xml").exists()


def test_a_marker_does_not_stop_the_watch(run: Callable[..., Run]) -> None:
    result = run(
        """
        import pytest, threading, time
        @pytest.mark.isolated(watch="off")
        def test_left():
            threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
        """,
        "--isolate-strict",
        "--isolate-watch=report",
    )
    assert result.outcomes == {"failed": 1}
    assert "strict: not signed off: 1 new violation" in result.out


# -- escapes --------------------------------------------------------------------------------------------

LOOSE = """
    import pytest
    @pytest.mark.isolated(network="host", binds={"data": "/data"}, env={"CI": "1", "SHELL": None}, allow=["threads"])
    def test_loose(): pass
    @pytest.mark.isolated(binds={"data": "/data:ro"}, fixtures="shared")
    def test_shared(): pass
    @pytest.mark.not_isolated(reason="drives docker")
    def test_out(): pass
    def test_tight(): pass
"""
FOUND = [
    "test_it.py::test_loose  allow=\"threads\"",
    "test_it.py::test_loose  binds=\"*/data:/data:rw\"",
    "test_it.py::test_loose  env=\"CI\"",
    "test_it.py::test_loose  network=\"host\"",
    "test_it.py::test_out  not_isolated: drives docker",
    "test_it.py::test_shared  fixtures=\"shared\"",
]  # fmt: skip


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_escapes_are_counted_and_bounded(
    workers: list[str], run: Callable[..., Run], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    pytester.mkdir("data")
    result = run(LOOSE, "--isolate-strict", "--isolate-escapes-max=6", *workers)
    assert result.outcomes == {"passed": 4}, result.out
    assert result.result.ret == 0
    result.result.stdout.fnmatch_lines(
        [
            "4 tests: 3 isolated, 1 not",
            "6 escapes, 6 allowed (isolate_escapes_max):",
            *(f"  {line}" for line in FOUND),
            "strict: signed off",
        ]
    )
    summary = result.summary
    assert [escape["nodeid"] for escape in summary["escapes"]] == [line.split()[0] for line in FOUND]
    assert (summary["strict"], summary["exitstatus"], summary["escapes_max"]) == (True, 0, 6)


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_one_escape_too_many_fails_the_session(
    workers: list[str], run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    pytester.mkdir("data")
    result = run(LOOSE, "--isolate-strict", "-o", "isolate_escapes_max=5", *workers)
    assert result.outcomes == {"passed": 4}
    assert result.result.ret == 1
    assert "strict: not signed off: 6 escapes are more than isolate_escapes_max = 5" in result.out
    assert result.summary["exitstatus"] == 1
    quiet = pytester.runpytest_subprocess("--isolate-strict", "-o", "isolate_escapes_max=5", "-q")
    quiet.stdout.fnmatch_lines(["strict: not signed off: 6 escapes are more than*"])


def test_fewer_escapes_can_be_the_new_number(run: Callable[..., Run]) -> None:
    result = run("def test(): pass", "--isolate-strict", "--isolate-escapes-max=2")
    assert result.result.ret == 0
    assert "isolate_escapes_max can be lowered to 0" in result.out


def test_an_escape_of_a_hook_counts(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import dataclasses
        def pytest_isolate_modify_spec(item, spec):
            return dataclasses.replace(spec, strict=False)
        """
    )
    result = run("def test(): pass", "--isolate-strict")
    assert [escape["what"] for escape in result.summary["escapes"]] == ["strict=False of a hook"]


def test_a_degraded_test_is_an_escape(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    result = run(
        "def test(): pass", "--isolate-strict", "--isolate-missing=degrade", "--isolate-runtime=/nowhere/runc"
    )
    assert result.outcomes == {"passed": 1}, result.out
    assert "1 degraded" in result.out
    (escape,) = result.summary["escapes"]
    assert escape["what"].startswith("degraded: ")


# -- the session ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--isolate-strict", "--isolate-off"], "contradict each other; leave one away"),
        (["-o", "isolate_strict=maybe"], "ini isolate_strict: "),
        (["--isolate-strict", "--isolate-escapes-max=few"], "--isolate-escapes-max: count 'few'"),
        (["--isolate-escapes-max=3"], "say --isolate-strict too"),
        (["--isolate-strict", "--isolate-baseline=none.json"], "pytest-isolate baseline --json"),
    ],
)
def test_what_cannot_be_had_ends_the_session(
    arguments: list[str], said: str, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile("def test(): pass")
    result = pytester.runpytest_subprocess(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{said}*"])


def test_what_may_vary_is_told(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    loose = run("def test(): pass", "--isolate-strict")
    assert (
        "hash seed: random in tests that are forked from pytest; start pytest with PYTHONHASHSEED=0"
        in loose.out
    )
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    fixed = run("import time\ndef test(): assert time.time()\ndef test_not(): pass", "--isolate-strict")
    assert "hash seed: 0" in fixed.out
    assert "clock: 1 test asked for the time of day (clock_reads)" in fixed.out
    assert "clock:" not in loose.out
    assert [r.summary["hash_seed"] for r in (loose, fixed)] == ["random", "0"]


def test_explain_says_what_is_done(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test(): pass")
    result = pytester.run(
        sys.executable, "-m", "pytest_isolate.cli", "explain", "test_it.py::test", "--isolate-strict"
    )
    result.stdout.fnmatch_lines(
        [
            "*watch *fail *because of --isolate-strict",
            f"*bind {Path(pytester.path)} to * read-only*",
            "*set the umask to 022",
        ]
    )


def test_the_example_of_the_documentation(pytester: pytest.Pytester) -> None:
    example = Path(__file__).parents[2] / "docs" / "how-to" / "strict_example.py"
    pytester.makepyfile(test_it=example.read_text())
    result = pytester.runpytest_subprocess("--isolate-strict", "--isolate-escapes-max=0")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["strict: signed off"])


@pytest.mark.knows("pytest_cov")
@pytest.mark.parametrize("way", [[], ["--isolate-start=spawn"], ["-n2"]], ids=" ".join)
def test_coverage_is_measured(way: list[str], run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    """It would open a file in the project for each process that it finds itself in."""
    pytest.importorskip("pytest_cov")
    pytester.makepyfile(lib="def f(x):\n    if x:\n        return 1\n    return 2\n")
    result = run(
        "import lib\ndef test_a(): assert lib.f(1) == 1\ndef test_b(): assert lib.f(0) == 2",
        "--isolate-strict",
        "--cov=lib",
        "--cov-report=term-missing",
        *way,
    )
    assert result.outcomes == {"passed": 2}, result.out
    result.result.stdout.fnmatch_lines(["lib.py * 4 * 0 *100%*", "strict: signed off"])


@pytest.mark.knows("hypothesispytest")
@pytest.mark.parametrize("way", [[], ["--isolate-start=spawn"]], ids=" ".join)
@pytest.mark.parametrize("profile", ["default", "ci"])
def test_hypothesis_remembers(
    profile: str,
    way: list[str],
    run: Callable[..., Run],
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("hypothesis")
    monkeypatch.setenv("CI", "true")
    result = run(
        """
        from hypothesis import given, settings, strategies
        @settings(deadline=None)
        @given(strategies.integers())
        def test_fails(n): assert n < 100
        @settings(deadline=None)
        @given(strategies.integers())
        def test_passes(n): pass
        """,
        "--isolate-strict",
        "-Werror",
        f"--hypothesis-profile={profile}",
        *way,
    )
    assert result.outcomes == {"passed": 1, "failed": 1}, result.out
    assert [record["violations"] for record in result.records] == [[], []]
    examples = pytester.path / ".hypothesis" / "examples"
    assert examples.exists() == (profile == "default")

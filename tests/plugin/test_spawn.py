"""``start="spawn"``: a test in a fresh interpreter is reported as any other, and inherits nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest

from .conftest import Run
from .test_reports import REPORTING, comparable

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

SPAWN = "--isolate-start=spawn"
NEXT = "\n\ndef test_next(): pass\n"


def both(pytester: pytest.Pytester, *args: str) -> tuple[pytest.RunResult, pytest.RunResult]:
    """A plain run, and one with a fresh interpreter for each test."""
    args = ("-p", "no:cacheprovider", *args)
    plain = pytester.runpytest_subprocess(*args, "--isolate-off")
    return plain, pytester.runpytest_subprocess(*args, "--isolate-all", SPAWN)


# ---- the same as without --------------------------------------------------------------------------


@pytest.mark.parametrize("args", [[], ["-rA"], ["-v"], ["--tb=short", "-s"], ["--capture=sys"]], ids=str)
def test_output_is_the_same(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    source = REPORTING
    if pytest.version_tuple < (9, 0):
        source = source.replace("def test_subtests(subtests):", "def no_test_subtests(subtests):")
    pytester.makepyfile(test_it=source)
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")  # or what goes to fd 1 comes before what was printed
    args = [*args, "-p", "no:cacheprovider"]
    plain = pytester.runpytest_subprocess(*args)
    spawned = pytester.runpytest_subprocess(
        *args, "--isolate-all", SPAWN, "--isolate-top=0", "-o", "console_output_style=progress"
    )
    expected, found = comparable(plain.stdout.str()), comparable(spawned.stdout.str())
    found = re.sub(r"\n=+ isolate =+\n(?:(?!=).*\n)*(?==)", "\n", found)
    if "-s" in args:  # in another order, which that of the lines of progress makes
        assert "to fd 1" in found.splitlines()
        found, expected = (re.sub(r"\n(?:to fd 1|to stdout)(?=\n)", "", text) for text in (found, expected))
    assert found == expected
    assert spawned.ret == plain.ret


def test_colours_are_the_same(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): assert {'a': [1, 2]} == {'a': [1, 3]}")
    plain, spawned = both(pytester, "--color=yes", "-vv")

    def explained(result: pytest.RunResult) -> list[str]:
        return [line for line in result.outlines if "\x1b[1m\x1b[31mE " in line]

    assert explained(spawned) == explained(plain) != []


def test_setup_show_is_the_same(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def f(): yield

        def test_a(f): pass
        """
    )
    plain, spawned = both(pytester, "--setup-show", "-q")

    def lines(result: pytest.RunResult) -> list[str]:
        return [line.strip(" .") for line in result.outlines if re.search(r"SETUP|TEARDOWN|test_", line)]

    assert lines(spawned) == lines(plain)


def test_junit_json_and_log_file(run: Runner, pytester: pytest.Pytester) -> None:
    inner = run(
        """
        import logging, os, pytest, warnings

        def test_it(record_property):
            record_property("mine", [1])
            logging.getLogger().error("to the log file")
            warnings.warn("careful")

        def test_current():
            assert os.environ["PYTEST_CURRENT_TEST"] == "test_it.py::test_current (call)"
        """,
        SPAWN,
        "-ojunit_family=xunit1",
        "--junitxml=out.xml",
        "--log-file=out.log",
    )
    assert inner.outcomes == {"passed": 2, "warnings": 1}
    assert inner.out.count("careful") == 2  # the warning, and its line
    cases = {c.get("name"): c for c in ET.parse(pytester.path / "out.xml").iter("testcase")}
    assert {p.get("name") for p in cases["test_it"].iter("property")} >= {"mine", "isolate.wall_s"}
    assert (pytester.path / "out.log").read_text().count("to the log file") == 1
    assert [r["outcome"] for r in inner.records] == ["passed", "passed"]
    assert inner.record("test_it")["written_files"] == 0
    assert inner.record("test_it")["memory_peak_bytes"] > 8 * 2**20  # the interpreter's own


def test_fixtures_are_all_its_own(run: Runner) -> None:
    inner = run(
        """
        import os, pytest

        @pytest.fixture(scope="session")
        def session():
            yield os.getpid()
            raise RuntimeError("session is down")

        @pytest.fixture(scope="module")
        def module(): raise RuntimeError("module is broken")

        def test_own(session): assert session == os.getpid() == 2
        def test_broken(module): pass
        """,
        SPAWN,
    )
    assert inner.outcomes == {"passed": 1, "errors": 2}
    assert inner.out.count("RuntimeError: session is down") == 2  # the error, and the summary
    assert inner.out.count("RuntimeError: module is broken") == 2


def test_between_tests_that_are_forked_and_plain(run: Runner) -> None:
    inner = run(
        """
        import os, pytest

        made = []

        @pytest.fixture(scope="module")
        def shared():
            made.append(os.getpid())
            yield made
            assert len(made) == 1, "torn down where it was not set up"

        def test_plain(shared): pass

        @pytest.mark.isolated(start="spawn")
        def test_spawned(shared): assert shared == [2]

        @pytest.mark.isolated
        def test_forked(shared): assert len(shared) == 1 and shared != [2]

        def test_plain_again(shared): assert shared == [os.getpid()]
        """,
        all_tests=False,
    )
    assert inner.outcomes == {"passed": 4}


@pytest.mark.parametrize("args", [[], ["-n2", "--dist=loadfile"]], ids=str)
def test_scope(run: Runner, args: list[str]) -> None:
    if args:
        pytest.importorskip("xdist")
    inner = run(
        """
        import os, pytest
        seen = []

        @pytest.fixture(scope="module")
        def of_module():
            yield seen
            assert seen == ["one", "two", "three"]

        @pytest.mark.isolated(scope="module")
        class TestModule:
            def test_one(self, of_module): seen.append("one")

            @pytest.mark.parametrize("i", [1, 1], ids=str)
            def test_two(self, of_module, i): seen.append("two") if i and "two" not in seen else None

            def test_crash(self, of_module): os.abort()

            def test_three(self, of_module):
                assert seen == []  # in a new one
                seen.extend(["one", "two", "three"])

        @pytest.mark.isolated(scope="class")
        class TestClass:
            def test_one(self): assert seen == []; seen.append("class")
            def test_two(self): assert seen == ["class"]

        def test_alone(): assert seen == []
        """,
        SPAWN,
        *args,
    )
    assert inner.outcomes == {"passed": 7, "failed": 1}
    sandboxes = {r["nodeid"].partition("::")[2]: r["sandbox"] for r in inner.records}
    assert len({*sandboxes.values()}) == 4
    assert sandboxes["TestClass::test_one"] == sandboxes["TestClass::test_two"]


def test_maxfail_counts_all(run: Runner) -> None:
    source = "".join(f"def test_{i}(): assert {i % 2}\n\n" for i in range(6))
    assert run(source, SPAWN, "--maxfail=2").outcomes == {"failed": 2, "passed": 1}


# ---- nothing is inherited -------------------------------------------------------------------------


@pytest.mark.vm
def test_inherits_nothing(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "state = []\ndef pytest_collection_finish(session): state.append(session.config.args)"
    )
    inner = run(
        """
        import os, subprocess, sys, threading, conftest
        seen = []

        def test_one(): seen.append(1)

        def test_two():
            assert seen == [] and len(conftest.state) == 1
            assert os.environ["PYTHONHASHSEED"] == "0" and sys.flags.hash_randomization == 0
            assert threading.main_thread().native_id == os.getpid() == 2

        def test_no_trace():
            ours = [name for name in os.environ if "ISOLATE" in name]
            assert ours == []
            code = "import os; print(*os.listdir('/proc/self/fd'), 'ISOLATE' in str(os.environ))"
            said = subprocess.run([sys.executable, "-c", code], close_fds=False, capture_output=True, text=True)
            assert said.stdout.split() == ["0", "1", "2", "3", "False"]

        def test_records_are_its_own(isolation):
            assert isolation and isolation.spec.start.value == "spawn"
            assert isolation.limits.files == 100
            if isolation.cgroup_version:
                assert isolation.cgroup_paths and isolation.usage().memory_peak_bytes
        """,
        SPAWN,
        "--isolate-files=100",
    )
    assert inner.outcomes == {"passed": 4}


def test_works_without_autoload(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile(
        "import os\n\ndef test_it(): assert os.getpid() == 2 and 'PYTEST_DISABLE_PLUGIN_AUTOLOAD' not in os.environ"
    )
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS")
    args = [
        "-p",
        "pytest_isolate.plugin",
        "--isolate-all",
        SPAWN,
        "--isolate-env=-PYTEST_DISABLE_PLUGIN_AUTOLOAD",
    ]
    assert pytester.runpytest_subprocess(*args).parseoutcomes() == {"passed": 1}


@pytest.mark.parametrize(("env", "seed"), [("PYTHONHASHSEED=7", "7"), ("-PYTHONHASHSEED", None)])
def test_hash_seed_can_be_named(run: Runner, env: str, seed: str | None) -> None:
    inner = run(
        f"import os\n\ndef test_it(): assert os.environ.get('PYTHONHASHSEED') == {seed!r}",
        SPAWN,
        f"--isolate-env={env}",
    )
    assert inner.outcomes == {"passed": 1}


def test_flags_of_the_interpreter(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it():
            if sys.flags.optimize != 1 or sys._xoptions != {"mine": "x", "utf8": True} or not sys.flags.utf8_mode:
                raise RuntimeError(f"{sys.flags} {sys._xoptions}")
        """
    )
    flags = ["-O", "-X", "mine=x", "-X", "utf8", "-m"]
    command = [sys.executable, *flags, "pytest", "-W", "ignore", "--isolate-all", SPAWN]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=pytester.path, timeout=60)
    assert "1 passed" in done.stdout


@pytest.mark.parametrize("command", [["-m", "pytest"], ["pytest"]], ids=str)
def test_import_path_is_the_sessions(pytester: pytest.Pytester, command: list[str]) -> None:
    pytester.makepyfile(decoy_top="")
    tests = pytester.mkdir("tests")
    (tests / "test_it.py").write_text(
        "import pytest, sys, os\n\n"
        "@pytest.mark.parametrize('path', [sys.path])\n"
        "def test_it(path):\n"
        "    print('PATH', [os.path.realpath(p) for p in path])\n"
        "    assert 0\n"
    )
    if command == ["pytest"]:
        script = pytester.mkdir("bin") / "pytest"
        script.write_text("import pytest, sys\nsys.exit(pytest.console_main())\n")
        command = [str(script)]

    def path(*args: str) -> list[str]:
        arguments = [sys.executable, *command, "tests", *args]
        out = subprocess.run(
            arguments, capture_output=True, text=True, check=False, cwd=pytester.path, timeout=60
        ).stdout
        return [line for line in out.splitlines() if line.startswith("PATH")]

    assert path("--isolate-all", SPAWN) == path("--isolate-off") != []


# ---- finding the test -----------------------------------------------------------------------------


def test_kinds_of_tests(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import os, pytest

        class Item(pytest.Item):
            def runtest(self): assert os.getpid() == 2
            def reportinfo(self): return "elsewhere", 0, self.name

        class File(pytest.File):
            def collect(self):
                yield Item.from_parent(self, name="custom")
                yield Item.from_parent(self, name="odd [a/b::c] @x")
                yield Item.from_parent(self, name="twice")
                yield Item.from_parent(self, name="twice")

        def pytest_collect_file(parent, file_path):
            if file_path.suffix == ".item":
                return File.from_parent(parent, path=file_path)
        """
    )
    pytester.makefile(".item", x="")
    pytester.maketxtfile(test_doc=">>> import os\n>>> os.getpid()\n2\n")
    pytester.makepyfile(
        with_doc='''
        def function():
            """
            >>> import os
            >>> os.getpid()
            2
            """
        ''',
        test_all=r"""
        import os, pytest, unittest

        IDS = ["[a/b-\xe9::x]", "a b", "back\\slash", "a::b", "-x", "'quote\"", "\u2603", "a\nb", ""]

        @pytest.mark.parametrize("i", range(len(IDS)), ids=IDS)
        def test_odd(i): assert os.getpid() == 2

        @pytest.mark.parametrize("i", [1, 1])
        def test_same_id(i, request): assert os.getpid() == 2

        class TestClass:
            class TestInner:
                def test_it(self): assert os.getpid() == 2

        class TestUnit(unittest.TestCase):
            @classmethod
            def setUpClass(cls): cls.pid = os.getpid()
            def test_it(self): assert self.pid == 2
        """,
    )
    result = pytester.runpytest_subprocess("--isolate-all", SPAWN, "--doctest-modules")
    assert result.parseoutcomes() == {"passed": 4 + 1 + 1 + 9 + 2 + 1 + 1}


def test_equal_nodeids_are_told_apart(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest

        class Item(pytest.Item):
            def runtest(self): raise RuntimeError(f"number {self.number}")
            def repr_failure(self, excinfo): return str(excinfo.value)
            def reportinfo(self): return self.path, 0, self.name

        class File(pytest.File):
            def collect(self):
                for number in range(3):
                    item = Item.from_parent(self, name="same")
                    item.number = number
                    yield item

        def pytest_collect_file(parent, file_path):
            if file_path.suffix == ".item":
                return File.from_parent(parent, path=file_path)
        """
    )
    pytester.makefile(".item", x="")
    result = pytester.runpytest_subprocess("--isolate-all", SPAWN, "-rN")
    assert [line for line in result.outlines if line.startswith("number")] == [
        "number 0",
        "number 1",
        "number 2",
    ]


@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
def test_packages_with_conftests(pytester: pytest.Pytester, mode: str) -> None:
    for directory in ("pkg", "pkg/sub"):
        place = pytester.path / directory
        place.mkdir()
        (place / "__init__.py").touch()
        name = directory.rpartition("/")[2]
        (place / "conftest.py").write_text(
            f"import pytest\n\n@pytest.fixture(scope='package')\ndef of_{name}(): return {name!r}\n"
        )
    test = pytester.path / "pkg" / "sub" / "test_it.py"
    test.write_text("def test_it(of_pkg, of_sub): assert (of_pkg, of_sub) == ('pkg', 'sub')\n")
    (pytester.path / "pkg" / "test_it.py").write_text("def test_it(of_pkg): assert of_pkg == 'pkg'\n")
    pytester.makeini("[pytest]\naddopts = -v\n")
    args = ["--isolate-all", SPAWN, f"--import-mode={mode}"]
    assert pytester.runpytest_subprocess(*args).parseoutcomes() == {"passed": 2}
    pyargs = pytester.runpytest_subprocess(*args, "--pyargs", "pkg.sub")
    assert pyargs.parseoutcomes() == {"passed": 1}
    from_below = subprocess.run(
        [sys.executable, "-m", "pytest", *args, "-p", "no:cacheprovider"],
        cwd=pytester.path / "pkg" / "sub",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "1 passed" in from_below.stdout


def test_options_reach_plugins_and_conftests(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        my_plugin="import pytest\n\n@pytest.fixture\ndef from_plugin(): return 'plugged'\n",
        my_other="import pytest\n\n@pytest.fixture\ndef from_other(): return 'plugged'\n",
    )
    pytester.makeconftest(
        """
        def pytest_addoption(parser): parser.addoption("--mine")
        def pytest_configure(config): config.option.changed = "by conftest"
        """
    )
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.slow
        @pytest.mark.parametrize("which", ["one", "two"])
        def test_it(pytestconfig, from_plugin, from_other, which):
            assert pytestconfig.getoption("--mine") == "a value"
            assert pytestconfig.getini("markers")[0] == "slow"
            assert which == "two"
        """
    )
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p isolate -p my_other --mine='a value'")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    result = pytester.runpytest_subprocess(
        "-p", "my_plugin", "--isolate-all", SPAWN, "-k", "two", "-m", "slow", "-o", "markers=slow", "-x",
        "test_it.py", "--isolate-env=-PYTEST_ADDOPTS",
    )  # fmt: skip
    assert result.parseoutcomes() == {"passed": 1, "deselected": 1}


def test_plugins_that_choose_do_not_choose_again(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        def pytest_collection_modifyitems(config, items):
            half = len(items) // 2  # as plugins do that split a suite
            config.hook.pytest_deselected(items=items[:half])
            items[:] = items[half:]
        """
    )
    pytester.makepyfile(
        test_a="def test_1(): pass\ndef test_2(): pass", test_b="def test_1(): pass\ndef test_2(): pass"
    )
    result = pytester.runpytest_subprocess("--isolate-all", SPAWN)
    assert result.parseoutcomes() == {"passed": 2, "deselected": 2}


def test_last_failed_and_cache(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_a(): pass\ndef test_b(): assert 0\ndef test_c(): assert 0")
    first = pytester.runpytest_subprocess("--isolate-all", SPAWN, "--cache-clear")
    assert first.parseoutcomes() == {"passed": 1, "failed": 2}
    again = pytester.runpytest_subprocess("--isolate-all", SPAWN, "--lf", "-x")
    assert again.parseoutcomes() == {"failed": 1}
    assert "rerun previous 2 failures" in again.stdout.str()
    stepwise = pytester.runpytest_subprocess("--isolate-all", SPAWN, "--sw")
    assert stepwise.parseoutcomes() == {"passed": 1, "failed": 1}
    again = pytester.runpytest_subprocess("--isolate-all", SPAWN, "--sw")
    assert again.parseoutcomes() == {"failed": 1, "deselected": 1}


def test_tmp_path_and_basetemp(run: Runner, pytester: pytest.Pytester) -> None:
    source = "def test_it(tmp_path, tmp_path_factory): (tmp_path / 'kept').touch(); print(tmp_path)"
    base = pytester.path / "base"
    for _ in range(2):
        inner = run(
            source + "\ndef test_two(tmp_path): (tmp_path / 'kept').touch()", SPAWN, f"--basetemp={base}"
        )
        assert inner.outcomes == {"passed": 2}
        kept = sorted(path.relative_to(base).as_posix() for path in base.glob("*0/kept"))
        assert kept == ["test_it0/kept", "test_two0/kept"]


def test_explain_shows_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_it(): pass")
    command = [
        sys.executable,
        "-m",
        "pytest_isolate.cli",
        "explain",
        "test_it.py::test_it",
        "--isolate-all",
        SPAWN,
    ]
    lines = [line.strip() for line in pytester.run(*command).outlines]
    assert any(re.fullmatch(r"start +spawn +--isolate-start", line) for line in lines)
    assert any(line.endswith(f". become a fresh interpreter: {sys.executable} -m pytest …") for line in lines)


# ---- sandboxes of all kinds -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ["--isolate-env=clean"],
        ["--isolate-user=root"],
        ["--isolate-readonly"],
        ["--isolate-files=64"],
        ["--isolate-network=host"],
    ],
    ids=str,
)
def test_other_options_hold(run: Runner, args: list[str]) -> None:
    source = """
        def test_it(tmp_path):
            (tmp_path / "x").touch()
            status = dict(line.split(":", 1) for line in open("/proc/self/status"))
            print("EFFECTIVE", status["CapEff"].strip())
            assert 0
    """
    spawned, forked = run(source, SPAWN, *args), run(source, *args)
    assert spawned.outcomes == forked.outcomes == {"failed": 1}
    effective = [re.findall(r"^EFFECTIVE \w+", inner.out, re.MULTILINE) for inner in (spawned, forked)]
    assert effective[0] == effective[1] != []  # execve gives nothing back

    def enforced(inner: Run) -> dict[str, object]:
        found = dict(inner.record("test_it")["enforced"])
        return found | {"namespaces": sorted(found["namespaces"])}

    assert enforced(spawned) == enforced(forked)


def test_directory_as_root(run: Runner, pytester: pytest.Pytester) -> None:
    root = pytester.mkdir("root")
    (root / "only-here").write_text("x")
    inner = run(
        f"""
        import os, pathlib, pytest, sys

        @pytest.mark.isolated(rootfs={str(root)!r})
        def test_inside(tmp_path):
            assert pathlib.Path("/only-here").read_text() == "x"
            assert not os.path.exists("/etc/passwd") and not os.path.exists("/usr/bin/env")
            assert sys.version == {sys.version!r} and sys.executable == {sys.executable!r}
            import ctypes, sqlite3  # libraries that nobody has loaded yet
            assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
            (tmp_path / "kept").write_text("x")
        """,
        SPAWN,
    )
    assert inner.outcomes == {"passed": 1}, inner.out
    assert os.listdir(root) == ["only-here"]
    assert inner.record("test_inside")["written_files"] == 0


@pytest.mark.knows("pytest_cov")
def test_without_any_namespace(pytester: pytest.Pytester) -> None:
    """Degraded to a process of its own: then what a fresh interpreter does to files is real."""
    pytester.makepyfile(
        test_it="import os\n\ndef test_it(tmp_path): assert os.getpid() != 2\n\ndef test_two(): pass"
    )
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    pytest_command = [sys.executable, "-m", "pytest", "--isolate-all", SPAWN, "--isolate-missing=degrade"]
    result = pytester.run(
        *("unshare", "-Ur", "sh", "-c", forbid, "sh", *pytest_command),
        *("-p", "no:cacheprovider", "--cov=.", "--log-file=log", "--basetemp=base", "--junitxml=out.xml"),
    )
    assert result.parseoutcomes() == {"passed": 2}
    result.stdout.fnmatch_lines(["enforced: level *, no namespaces (confined: *", "test_it.py * 100%"])
    written = {path.name for path in pytester.path.iterdir()} - {"__pycache__", "stdout", "stderr"}
    assert written == {"test_it.py", "log", "base", "out.xml", ".coverage"}


@pytest.mark.needs("cgroup memory limit")
def test_memory_limit_covers_the_interpreter(run: Runner) -> None:
    inner = run("def test_it(): x = bytearray(200 * 2**20)" + NEXT, SPAWN, "--isolate-memory=100M")
    assert inner.outcomes == {"failed": 1, "passed": 1}
    assert "memory limit 100.0 MiB exceeded" in inner.out
    small = run("def test_it(): pass", SPAWN, "--isolate-memory=4M")
    assert small.outcomes == {"errors": 1}
    assert "memory limit 4.0 MiB exceeded" in small.out


# ---- how it ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason", "text"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal", "killed by SIGSEGV"),
        ("os.abort()", "signal", "killed by SIGABRT"),
        ("os._exit(0)", "exited", "exit status 0 before the test did"),
        ("os.execv('/bin/true', ['true'])", "exited", "exit status 0 before the test did"),
        ("os.execv('/bin/sleep', ['sleep', '1000'])", "channel", "closed its report channel and went on"),
        ("raise SystemExit(3)", "failed", "SystemExit: 3"),
    ],
    ids=["segv", "abort", "exit0", "exec", "exec-sleep", "sys-exit"],
)
def test_crash(run: Runner, body: str, reason: str, text: str) -> None:
    inner = run(
        f"import os, signal\n\ndef test_it():\n    print('so far', flush=True)\n    {body}\n{NEXT}", SPAWN
    )
    assert inner.outcomes == {"failed": 1, "passed": 1}
    assert text in inner.out
    assert re.search(r"^so far$", inner.out, re.MULTILINE)
    assert inner.record("test_it")["reason"] == reason
    assert "test session starts" not in inner.out.partition("collected")[2]
    if reason == "signal" and "abort" not in body:
        inner.result.stdout.fnmatch_lines(["*Captured faulthandler*", "*line 5 in test_it*"])
        assert "_pytest" not in inner.out


def test_timeout_shows_stacks(run: Runner) -> None:
    inner = run("import time\n\ndef test_it():\n    time.sleep(1000)\n" + NEXT, SPAWN, "--isolate-timeout=8s")
    assert inner.outcomes == {"failed": 1, "passed": 1}
    inner.result.stdout.fnmatch_lines(["timeout 8.0 s*", "*line 4 in test_it*"])


def test_timeout_before_the_test_shows_where(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import os, time\n\nif os.getpid() == 2:\n    time.sleep(1000)\n")
    inner = run("def test_it(): pass", SPAWN, "--isolate-timeout=8s")
    assert inner.outcomes == {"errors": 1}
    inner.result.stdout.fnmatch_lines(["timeout 8.0 s*", "*conftest.py*, line 4 in <module>*"])


def test_exit_and_interrupt_reach_the_session(run: Runner) -> None:
    exited = run("import pytest\n\ndef test_it(): pytest.exit('enough', 5)" + NEXT, SPAWN)
    assert exited.result.ret == 5
    assert "enough" in exited.out
    interrupted = run("def test_it(): raise KeyboardInterrupt" + NEXT, SPAWN)
    assert interrupted.result.ret == pytest.ExitCode.INTERRUPTED


NOT_FOUND = "the fresh interpreter did not find the test: "


@pytest.mark.parametrize(
    ("conftest", "test", "text"),
    [
        ("if os.getpid() == 2: raise RuntimeError('in conftest')", "def test_it(): pass", "RuntimeError: in conftest"),
        ("if os.getpid() == 2: import no_such_module", "def test_it(): pass", "no_such_module"),
        ("if os.getpid() == 2: sys.exit('left in conftest')", "def test_it(): pass", "left in conftest"),
        ("", "if os.getpid() == 2: raise RuntimeError('in module')\ndef test_it(): pass", "RuntimeError: in module"),
        ("", "if os.getpid() != 2:\n    def test_it(): pass", "not among the 0 collected from "),
        ("", "if os.getpid() == 2: pytest.exit('left in module')\ndef test_it(): pass", "left in module"),
        ("", "if os.getpid() == 2: pytest.skip('skipped here', allow_module_level=True)\ndef test_it(): pass", "not among the 0 collected"),
        ("def pytest_sessionstart():\n    if os.getpid() == 2: raise RuntimeError('in hook')", "def test_it(): pass", "RuntimeError: in hook"),
        ("def pytest_collection(session):\n    if os.getpid() == 2: raise pytest.UsageError('not today')", "def test_it(): pass", "not today"),
        ("def pytest_configure():\n    if os.getpid() == 2: raise pytest.UsageError('not like this')", "def test_it(): pass", "not like this"),
    ],
    ids=["conftest", "import", "sys-exit", "module", "absent", "exit", "skip", "hook", "usage", "configure"],
)  # fmt: skip
def test_not_found_is_one_clear_failure(
    run: Runner, pytester: pytest.Pytester, conftest: str, test: str, text: str
) -> None:
    pytester.makeconftest(f"import os, pytest, sys\n\n{conftest}\n")
    inner = run(f"import os, pytest, sys\n\n{test}\n", SPAWN)
    assert inner.outcomes == {"errors": 1}
    (line,) = re.findall(rf"^{NOT_FOUND}.*$", inner.out, re.MULTILINE)
    assert text in line
    assert inner.record("test_it")["reason"] == "setup"
    assert not re.search(r"^INTERNALERROR.*\n(?:.*\n)*=+ ERRORS", inner.out, re.MULTILINE)
    assert inner.result.ret == pytest.ExitCode.TESTS_FAILED


def test_crash_before_the_test(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import os\n\nif os.getpid() == 2:\n    os.abort()\n")
    inner = run("def test_it(): pass", SPAWN)
    assert inner.outcomes == {"errors": 1}
    inner.result.stdout.fnmatch_lines(["killed by SIGABRT", "*conftest.py*, line 4 in <module>*"])


def test_end_of_other_plugins_is_the_sessions(run: Runner, pytester: pytest.Pytester) -> None:
    log = pytester.path / "log"
    log.touch()
    pytester.makeconftest(
        f"""
        import os

        def log(text):
            with open({str(log)!r}, "a") as file:
                file.write(f"{{text}} {{os.getpid() == 2}}\\n")

        def pytest_sessionfinish(): log("sessionfinish")
        def pytest_terminal_summary(): log("summary")
        def pytest_unconfigure(): log("unconfigure")
        def pytest_runtest_logreport(report): log(f"report {{report.when}}")
        """
    )
    inner = run("def test_it(): pass", SPAWN, f"--isolate-binds={log}:{log}:rw")
    assert inner.outcomes == {"passed": 1}
    assert log.read_text().splitlines() == [
        f"{what} False"
        for what in (
            "report setup",
            "report call",
            "report teardown",
            "sessionfinish",
            "summary",
            "unconfigure",
        )
    ]


# ---- with other plugins ---------------------------------------------------------------------------


@pytest.mark.parametrize("dist", ["load", "loadgroup"])
def test_xdist(run: Runner, dist: str) -> None:
    pytest.importorskip("xdist")
    inner = run(
        """
        import os, pytest, warnings

        @pytest.mark.xdist_group("grp")
        @pytest.mark.parametrize("i", range(6))
        def test_it(i, tmp_path, worker_id):
            assert os.getpid() == 2 and worker_id in ("gw0", "gw1")
            if i == 3: os.abort()
            if i == 4: warnings.warn("careful")
            (tmp_path / "x").touch()
        """,
        "-n",
        "2",
        f"--dist={dist}",
        SPAWN,
        "-k",
        "test_it",
    )
    assert inner.outcomes == {"passed": 5, "failed": 1, "warnings": 1}
    assert len(inner.records) == 6


COVERED = """
    def branches(x):
        if x == 1:
            return "one"
        if x == 2:
            return "two"
        return "more"

    def test_one(): assert branches(1) == "one"
    def test_two(): assert branches(2) == "two"
"""


@pytest.mark.knows("pytest_cov")
@pytest.mark.parametrize("args", [[], ["--cov-branch"], ["--cov-context=test"], ["-n2"]], ids=str)
def test_pytest_cov(run: Runner, args: list[str]) -> None:
    pytest.importorskip("pytest_cov")
    args = ["--cov=.", *args]
    plain, spawned = run(COVERED, "--isolate-off", *args), run(COVERED, SPAWN, *args)
    assert spawned.outcomes == plain.outcomes == {"passed": 2}
    found, expected = (
        re.findall(r"^test_it\.py +\d.*", inner.out, re.MULTILINE) for inner in (spawned, plain)
    )
    assert found == expected != []
    assert "100%" not in found[0]


@pytest.mark.parametrize("branch", [[], ["--branch"]], ids=str)
def test_plain_coverage(pytester: pytest.Pytester, branch: list[str]) -> None:
    pytest.importorskip("coverage")
    pytester.makepyfile(test_it=COVERED)

    def report(*args: str) -> list[str]:
        command = [sys.executable, "-m", "coverage", "run", *branch, "--source=.", "-m", "pytest", *args]
        pytester.run(*command)
        return [
            line
            for line in pytester.run(sys.executable, "-m", "coverage", "report").outlines
            if "test_it" in line
        ]

    found, expected = report("--isolate-all", SPAWN), report("--isolate-off")
    assert found == expected != []
    assert "100%" not in found[0]


@pytest.mark.knows("timeout")
@pytest.mark.parametrize("method", ["signal", "thread"])
def test_pytest_timeout(run: Runner, method: str) -> None:
    pytest.importorskip("pytest_timeout")
    inner = run(
        f"""
        import pytest, time

        @pytest.mark.timeout(5, method={method!r})
        def test_slow(): time.sleep(30)

        def test_next(): pass
        """,
        SPAWN,
    )
    assert inner.outcomes == {"failed": 1, "passed": 1}
    assert "Timeout" in inner.out


@pytest.mark.knows("rerunfailures")
def test_crashes_are_rerun(run: Runner, pytester: pytest.Pytester) -> None:
    pytest.importorskip("pytest_rerunfailures")
    mark = pytester.path / "mark"
    mark.touch()
    inner = run(
        f"""
        import os, pathlib
        mark = pathlib.Path({str(mark)!r})

        def test_it():
            before = mark.read_text()
            mark.write_text(before + "x")
            if len(before) < 2: os.abort()
        """,
        SPAWN,
        "--reruns=2",
        f"--isolate-binds={mark}:{mark}:rw",
    )
    assert inner.outcomes == {"passed": 1, "rerun": 2}


@pytest.mark.knows("rerunfailures")
def test_rerunfailures(run: Runner) -> None:
    pytest.importorskip("pytest_rerunfailures")
    inner = run(
        """
        import pytest
        attempts = []

        @pytest.mark.flaky(reruns=2)
        def test_it():
            attempts.append(1)
            assert len(attempts) == 2
        """,
        SPAWN,
    )
    assert inner.outcomes == {"passed": 1, "rerun": 1}

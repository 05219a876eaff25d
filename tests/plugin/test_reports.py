"""What pytest reports of an isolated test is what it reports of a plain one."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

REPORTING = """
    import logging, os, pytest, sys, unittest, warnings

    def test_pass(): pass

    def test_fail():
        left = {"a": 1}
        assert left == {"a": 2}, "told why"

    def test_chain():
        try:
            1 / 0
        except ZeroDivisionError as error:
            raise ValueError("outer") from error

    def test_skip(): pytest.skip("not today")

    @pytest.mark.skip(reason="never")
    def test_marked_skip(): pass

    def test_importorskip(): pytest.importorskip("no_such_module")

    @pytest.mark.xfail(reason="known")
    def test_xfail(): assert 0

    @pytest.mark.xfail(strict=True)
    def test_xpass_strict(): pass

    @pytest.mark.xfail
    def test_xpass(): pass

    @pytest.mark.parametrize("value", ["a", "\\u00e9 \\n", 3.5])
    def test_param(value): assert value != 3.5

    def test_output():
        print("to stdout"); print("to stderr", file=sys.stderr)
        os.write(1, b"to fd 1\\n")
        logging.getLogger("decoy").warning("to the log")
        assert 0

    def test_capfd(capfd):
        os.system("echo sub")
        assert capfd.readouterr().out == "sub\\n"

    def test_caplog(caplog):
        logging.getLogger().error("x")
        assert caplog.messages == ["x"]

    def test_property(record_property):
        record_property("key", {"a": [1, 2]})

    def test_warns():
        warnings.warn("careful", DeprecationWarning)

    def test_subtests(subtests):
        for i in range(3):
            with subtests.test(msg="sub", i=i):
                assert i != 1

    class TestUnit(unittest.TestCase):
        def test_sub(self):
            for i in range(3):
                with self.subTest(i=i):
                    self.assertNotEqual(i, 1)

        @unittest.expectedFailure
        def test_expected(self): self.fail()

        @unittest.skip("unit skip")
        def test_skipped(self): pass

    @pytest.fixture
    def broken(): raise RuntimeError("in setup")

    def test_setup_error(broken): pass

    @pytest.fixture
    def broken_later():
        yield
        raise RuntimeError("in teardown")

    def test_teardown_error(broken_later): pass

    def test_thread_exception():
        import threading
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start(); thread.join()
"""


def comparable(out: str) -> str:
    """What an inner run prints, without what differs from run to run."""
    out = re.sub(r"\bin \d+\.\d+s\b.*", "in TIME", out)
    out = re.sub(r"\b0x[0-9a-f]+\b", "0xADDRESS", out)
    # Plain pytest loses the letter of a unittest subtest in its own capture: the lines of progress differ.
    dropped = ("isolate:", "cachedir", "plugins:", "test_it.py ", "test_it.py::")
    out = re.sub(r"_+ TestUnit.test_sub _+\n-+ Captured stdout call -+\nu\n", "", out)
    lines = [line for line in out.splitlines() if line and not line.startswith(dropped)]
    return "\n".join(lines)


@pytest.mark.parametrize("args", [[], ["-rA"], ["-v"], ["--tb=short", "-s"], ["--capture=sys"]], ids=str)
def test_output_is_the_same(pytester: pytest.Pytester, args: list[str]) -> None:
    if pytest.version_tuple < (9, 0):
        source = REPORTING.replace("def test_subtests(subtests):", "def no_test_subtests(subtests):")
    else:
        source = REPORTING
    pytester.makepyfile(test_it=source)
    plain = pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)
    isolated = pytester.runpytest_subprocess(
        "-p",
        "no:cacheprovider",
        "--isolate-all",
        "--isolate-top=0",
        "-o",
        "console_output_style=progress",
        *args,
    )
    expected, found = comparable(plain.stdout.str()), comparable(isolated.stdout.str())
    found = re.sub(r"\n=+ isolate =+\n(?:(?!=).*\n)*(?==)", "\n", found)
    found = re.sub(r"\n(?:to fd 1|to stdout)(?=\n)", "", found) if "-s" in args else found
    expected = re.sub(r"\n(?:to fd 1|to stdout)(?=\n)", "", expected) if "-s" in args else expected
    assert found == expected
    assert isolated.ret == plain.ret


def test_fixtures_are_shared_and_end_once(run: Runner, pytester: pytest.Pytester) -> None:
    log = pytester.path / "log"
    log.touch()
    inner = run(
        f"""
        import os, pytest

        def log(text):
            with open({str(log)!r}, "a") as file:
                file.write(f"{{text}} {{os.getpid() == 2}}\\n")

        @pytest.fixture(scope="session")
        def session():
            log("session up"); yield object(); log("session down")

        @pytest.fixture(scope="module", params=["a", "b"])
        def module(request, session):
            log(f"module {{request.param}} up"); yield request.param; log(f"module {{request.param}} down")

        @pytest.fixture
        def function(module):
            log("function up"); yield; log("function down")

        def setup_module(): log("setup_module")
        def teardown_module(): log("teardown_module")

        class TestIt:
            @classmethod
            def setup_class(cls): log("setup_class")
            @classmethod
            def teardown_class(cls): log("teardown_class")
            def test_one(self, function): pass
            def test_two(self, function): pass
        """,
        f"--isolate-binds={log}:{log}:rw",
    )
    assert inner.outcomes == {"passed": 4}
    in_parent = [
        line.removesuffix(" False") for line in log.read_text().splitlines() if line.endswith("False")
    ]
    in_child = [line.removesuffix(" True") for line in log.read_text().splitlines() if line.endswith("True")]
    assert in_child == ["function up", "function down"] * 4
    plain = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--isolate-off")
    assert plain.parseoutcomes() == {"passed": 4}
    everything = [line.rpartition(" ")[0] for line in log.read_text().splitlines()]
    mine, others = everything[: len(everything) // 2], everything[len(everything) // 2 :]
    assert mine == others
    assert in_parent == [line for line in others if not line.startswith("function")]


@pytest.mark.parametrize("when", ["up", "down"])
def test_failure_of_a_shared_fixture_is_reported_as_in_plain_pytest(run: Runner, when: str) -> None:
    source = f"""
        import pytest

        @pytest.fixture(scope="module")
        def shared():
            print("said in shared")
            if {when == "up"}: raise RuntimeError("shared is broken")
            yield
            print("said in teardown")
            raise RuntimeError("shared is broken")

        def test_one(shared): pass
        def test_two(shared): pass
        def test_three(): pass
    """
    isolated, plain = run(source), run(source, "--isolate-off")
    assert isolated.outcomes == plain.outcomes
    assert isolated.out.count("shared is broken") == plain.out.count("shared is broken")
    assert isolated.out.count("said in") == plain.out.count("said in")


def test_mixed_with_plain_tests(run: Runner) -> None:
    inner = run(
        """
        import os, pytest

        @pytest.fixture(scope="module")
        def shared(): return []

        def test_plain_first(shared): shared.append(1)

        @pytest.mark.isolated
        def test_isolated(shared):
            assert shared == [1]
            shared.append(2)

        def test_plain_last(shared): assert shared == [1] and os.getpid() != 2
        """,
        all_tests=False,
    )
    assert inner.outcomes == {"passed": 3}
    assert [r["nodeid"] for r in inner.records] == ["test_it.py::test_isolated"]


def test_warnings_come_once(run: Runner) -> None:
    inner = run(
        """
        import pytest, warnings

        class Mine(UserWarning):
            def __init__(self, a, b): super().__init__(f"{a}-{b}")

        @pytest.mark.parametrize("i", range(20))
        def test_it(i): warnings.warn(f"number {i}.")

        def test_odd_class(): warnings.warn(Mine("x", "y"))
        """
    )
    assert inner.outcomes == {"passed": 21, "warnings": 21}
    assert inner.out.count("number 7.") == 1
    assert "x-y" in inner.out


def test_error_filters_hold(run: Runner) -> None:
    inner = run("import warnings\n\ndef test_it(): warnings.warn('x')", "-W", "error")
    assert inner.outcomes == {"failed": 1}


@pytest.mark.parametrize(
    ("args", "outcomes"),
    [(["-x"], {"passed": 1, "failed": 1}), (["--maxfail=2"], {"passed": 1, "failed": 2})],
)
def test_stops_where_plain_pytest_stops(run: Runner, args: list[str], outcomes: dict[str, int]) -> None:
    inner = run(
        "def test_a(): pass\ndef test_b(): assert 0\ndef test_c(): assert 0\ndef test_d(): pass\n", *args
    )
    assert inner.outcomes == outcomes


def test_shouldstop_of_a_test_is_heard(run: Runner) -> None:
    inner = run("def test_a(request): request.session.shouldstop = 'enough said'\ndef test_b(): pass\n")
    assert inner.outcomes == {"passed": 1}
    assert "enough said" in inner.out


def test_last_failed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_a(): pass\ndef test_b(): assert 0\n")
    pytester.runpytest_subprocess("--isolate-all")
    again = pytester.runpytest_subprocess("--isolate-all", "--lf")
    assert again.parseoutcomes() == {"failed": 1}


def test_setup_show_is_the_same(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="session")
        def s(): yield
        @pytest.fixture(scope="module", params=[1, 2])
        def m(request, s): yield
        @pytest.fixture
        def f(m): yield

        def test_a(f): pass
        def test_b(f): pass
        """
    )
    plain = pytester.runpytest_subprocess("--setup-show", "-p", "no:cacheprovider", "-q")
    isolated = pytester.runpytest_subprocess("--setup-show", "-p", "no:cacheprovider", "-q", "--isolate-all")
    wanted = re.compile(r"SETUP|TEARDOWN|test_")

    def lines(result: pytest.RunResult) -> list[str]:
        # The letter of a result comes when the test is over, and so after its teardown.
        return [line.strip(" .") for line in result.outlines if wanted.search(line)]

    assert lines(isolated) == lines(plain)


def test_doctests_and_custom_items(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import os, pytest

        class Item(pytest.Item):
            def runtest(self): assert os.getpid() == 2
            def reportinfo(self): return self.path, 0, self.name

        class File(pytest.File):
            def collect(self): yield Item.from_parent(self, name="custom")

        def pytest_collect_file(parent, file_path):
            if file_path.suffix == ".item":
                return File.from_parent(parent, path=file_path)
        """
    )
    pytester.makefile(".item", x="")
    pytester.maketxtfile(test_doc=">>> import os\n>>> os.getpid()\n2\n")
    result = pytester.runpytest_subprocess("--isolate-all")
    assert result.parseoutcomes() == {"passed": 2}


def test_plugins_can_come_and_go_in_a_test(run: Runner) -> None:
    inner = run(
        """
        class Plugin:
            def pytest_runtest_logreport(self, report): raise AssertionError("it is gone")

        def test_it(pytestconfig):
            pytestconfig.pluginmanager.register(Plugin(), "mine")
            pytestconfig.pluginmanager.unregister(name="mine")
            pytestconfig.pluginmanager.check_pending()
        """
    )
    assert inner.outcomes == {"passed": 1}


@pytest.mark.vm
def test_xdist(run: Runner) -> None:
    pytest.importorskip("xdist")
    inner = run(
        """
        import os, pytest, warnings

        @pytest.mark.parametrize("i", range(8))
        def test_it(i, tmp_path):
            assert os.getpid() == 2
            if i == 3: os.abort()
            if i == 4: warnings.warn("careful")
            (tmp_path / "x").touch()
        """,
        "-n",
        "2",
        "--isolate-cpu-time=60s",
    )
    assert inner.outcomes == {"passed": 7, "failed": 1, "warnings": 1}
    assert len(inner.records) == 8
    assert {r["worker"] for r in inner.records} == {"gw0", "gw1"}
    inner.result.stdout.fnmatch_lines(["*8 isolated tests*"])

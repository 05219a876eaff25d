"""The hooks of a conftest are called as often as in plain pytest, in parent and child together.

All of a test's reports are logged when it is over: only then is known what it has used, which they carry.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

CONFTEST = """
    import os, pytest

    def log(*words):
        with open(os.environ["HOOKS_LOG"], "a") as file:
            print(*words, file=file)

    def pytest_runtest_logstart(nodeid): log(nodeid, "logstart")
    def pytest_runtest_setup(item): log(item.nodeid, "setup")
    def pytest_runtest_call(item): log(item.nodeid, "call")
    def pytest_pyfunc_call(pyfuncitem): log(pyfuncitem.nodeid, "pyfunc_call")
    def pytest_runtest_teardown(item): log(item.nodeid, "teardown")
    def pytest_runtest_makereport(item, call): log(item.nodeid, "makereport", call.when, call.excinfo is None)
    def pytest_runtest_logreport(report): log(report.nodeid, "logreport", report.when, report.outcome)
    def pytest_runtest_logfinish(nodeid): log(nodeid, "logfinish")
    def pytest_runtest_protocol(item): log(item.nodeid, "protocol")
    def pytest_exception_interact(node): log(node.nodeid, "exception_interact")
    def pytest_fixture_setup(fixturedef): log("fixture", fixturedef.argname, "setup")
    def pytest_warning_recorded(nodeid, when): log(nodeid, "warning", when)
    def pytest_assertion_pass(item, orig): log(item.nodeid, "assertion", orig)

    def pytest_assertrepr_compare(op, left, right):
        if isinstance(left, int):
            return [f"{left} is not {right}"]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(item):
        log(item.nodeid, "call begins")
        try:
            return (yield)
        finally:
            log(item.nodeid, "call ends")
"""

SUITE = """
    import pytest, warnings

    @pytest.fixture(scope="module")
    def shared(): yield 1

    @pytest.fixture
    def own(shared): yield 1

    def test_pass(own): assert own == 1
    def test_fail(own): assert own == 2
    def test_skip(): pytest.skip("not now")
    def test_warns(): warnings.warn("careful")

    @pytest.mark.skip(reason="never")
    def test_skipped(): pass

    @pytest.fixture
    def broken(): raise RuntimeError

    def test_error(broken): pass
"""


def calls(run: Runner, pytester: pytest.Pytester, mode: str, *args: str) -> list[str]:
    pytester.makeconftest(CONFTEST)
    log = pytester.path / "hooks.log"
    log.write_text("")
    pytester._monkeypatch.setenv("HOOKS_LOG", str(log))
    inner = run(SUITE, mode, f"--isolate-binds={log}:{log}", *args, all_tests=False)
    assert inner.outcomes["failed"] == 1
    assert "1 is not 2" in inner.out
    return log.read_text().splitlines()


def without_reports(lines: list[str]) -> list[str]:
    late = ("logreport", "logstart", "protocol")
    return [line for line in lines if not any(word in line.split() for word in late)]


def test_as_often_and_in_order(run: Runner, pytester: pytest.Pytester) -> None:
    options = ("-o", "enable_assertion_pass_hook=true")
    plain, isolated = (calls(run, pytester, mode, *options) for mode in ("--isolate-off", "--isolate-all"))
    assert sorted(isolated) == sorted(plain)
    # A shared fixture is set up before the child is there to call the setup hooks.
    plain_order, isolated_order = map(without_reports, (plain, isolated))
    plain_order.remove("fixture shared setup")
    isolated_order.remove("fixture shared setup")
    assert isolated_order == plain_order
    for lines in (plain, isolated):
        reports = [line for line in lines if "logreport" in line]
        assert reports[:3] == [
            f"test_it.py::test_pass logreport {w} passed" for w in ("setup", "call", "teardown")
        ]


def test_current_test_is_known_in_pytest_too(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import os, pathlib

        seen = []
        set_ = os._Environ.__setitem__

        def note(environ, name, value):
            set_(environ, name, value)
            if name == "PYTEST_CURRENT_TEST" and value.startswith("test_it") and seen[-1:] != [value]:
                seen.append(value)

        os._Environ.__setitem__ = note

        def pytest_unconfigure():
            assert "PYTEST_CURRENT_TEST" not in os.environ
            pathlib.Path("seen").write_text("\\n".join(seen))
        """
    )
    inner = run(
        """
        import os, pytest, time

        @pytest.fixture
        def slow():
            time.sleep(0.3)
            assert os.environ["PYTEST_CURRENT_TEST"].endswith("(setup)")
            yield
            time.sleep(0.3)

        def test_it(slow):
            time.sleep(0.3)
            assert os.environ["PYTEST_CURRENT_TEST"] == "test_it.py::test_it (call)"
        """
    )
    assert inner.outcomes == {"passed": 1}
    phases = [f"test_it.py::test_it ({phase})" for phase in ("setup", "call", "teardown")]
    assert (pytester.path / "seen").read_text().splitlines() == phases


def test_what_a_test_stores_on_config_stays_in_its_sandbox(run: Runner) -> None:
    inner = run(
        """
        import pytest
        key = pytest.StashKey()

        def test_sets(request):
            request.config.stash[key] = request.node.stash[key] = 1
            assert request.config.stash[key] == 1

        def test_other(request): assert key not in request.config.stash
        """
    )
    assert inner.outcomes == {"passed": 2}


def test_objects_are_seen_by_the_collector_when_the_tests_are_over(
    run: Runner, pytester: pytest.Pytester
) -> None:
    """Hypothesis asks for referrers when it is imported for its summary, and warns if there is none."""
    pytester.makeconftest(
        """
        import gc

        class Kept: pass
        kept = Kept()

        def pytest_terminal_summary(terminalreporter):
            terminalreporter.write_line(f"referrers: {bool(gc.get_referrers(kept))}")
        """
    )
    assert "referrers: True" in run("def test_it(): pass").out

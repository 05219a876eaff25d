"""What a test tells pytest beside its outcome arrives as it would without isolation."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plugin.conftest import Run


def _case(path: Path, name: str) -> ET.Element:
    (found,) = (case for case in ET.parse(path).iter("testcase") if case.get("name") == name)
    return found


def test_xml_attributes_and_suite_properties_reach_the_file(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    ran = run(
        """
        def test_it(record_xml_attribute, record_testsuite_property):
            record_xml_attribute("assertions", "<REQ> 1")
            record_testsuite_property("arch", "PPC")

        def test_other(record_testsuite_property):
            record_testsuite_property("storage", 3)
        """,
        "--junitxml=junit.xml", "-o", "junit_family=xunit1",
    )  # fmt: skip
    assert ran.outcomes["passed"] == 2
    path = pytester.path / "junit.xml"
    assert _case(path, "test_it").get("assertions") == "<REQ> 1"
    suite = ET.parse(path).getroot().find("testsuite/properties")
    assert suite is not None
    assert [(p.get("name"), p.get("value")) for p in suite] == [("arch", "PPC"), ("storage", "3")]


def test_properties_of_any_type_read_the_same(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    ran = run(
        """
        import datetime, enum, pathlib

        class Level(enum.IntEnum):
            LOW = 1

        class Mute:
            def __str__(self):
                raise RuntimeError

        def test_it(record_property):
            for value in ((1, "a"), {"k": (None, 2.5)}, pathlib.Path("/a"), datetime.date(2026, 1, 2), Level.LOW):
                record_property("p", value)
            record_property("mute", Mute())
        """,
        "--junitxml=junit.xml",
    )
    assert ran.outcomes["passed"] == 1
    properties = _case(pytester.path / "junit.xml", "test_it").find("properties")
    assert properties is not None
    values = [p.get("value") for p in properties if p.get("name") == "p"]
    level = "1" if sys.version_info >= (3, 11) else "Level.LOW"  # str of an IntEnum
    assert values == ["(1, 'a')", "{'k': (None, 2.5)}", "/a", "2026-01-02", level]
    (mute,) = (str(p.get("value")) for p in properties if p.get("name") == "mute")
    assert "Mute object at" in mute


needs_subtests = pytest.mark.skipif(
    pytest.version_tuple < (9,), reason="the fixture subtests came with pytest 9"
)


@needs_subtests
def test_failed_subtests_count_once_against_maxfail(run: Callable[..., Run]) -> None:
    """A test with failed subtests becomes a failed one when the terminal reports it, after the counting."""
    source = """
        def test_some_fail(subtests):
            for number in range(4):
                with subtests.test(number=number):
                    assert number % 2 == 0

        def test_next():
            pass
        """
    isolated = run(source, "--maxfail=3")
    plain = run(source, "--maxfail=3", all_tests=False)
    assert isolated.outcomes == plain.outcomes
    assert isolated.outcomes["passed"] == 1
    isolated.result.stdout.fnmatch_lines("*contains 2 failed subtests*")


def test_summary_does_not_quote_a_doctest(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    pytester.makefile(".txt", test_example=">>> 1\n2\n")
    source = "def test_lost(no_such_fixture): pass"
    isolated, plain = (
        run(source, "--doctest-glob=*.txt", all_tests=all_tests) for all_tests in (True, False)
    )
    lines = [line for line in plain.out.splitlines() if line.startswith(("FAILED", "ERROR "))]
    assert "FAILED test_example.txt::test_example.txt" in lines
    assert [line for line in isolated.out.splitlines() if line.startswith(("FAILED", "ERROR "))] == lines
    assert "fixture 'no_such_fixture' not found" in isolated.out


def test_warnings_of_odd_classes_read_the_same(run: Callable[..., Run]) -> None:
    source = """
        import warnings

        class Picky(UserWarning):
            def __init__(self, code, text):
                super().__init__(code, text)

        class Speaking(UserWarning):
            def __str__(self):
                return "spoken"

        class Outer:
            class Nested(DeprecationWarning):
                pass

        def test_it():
            class Local(UserWarning):
                pass

            for warning in (Picky(1, "x"), Speaking(), Outer.Nested("nested"), Local("local")):
                warnings.warn(warning)
            open(__file__)
        """
    isolated, plain = (run(source, "-Wdefault", all_tests=all_tests) for all_tests in (True, False))

    def summary(ran: Run) -> list[str]:
        lines = ran.out.splitlines()
        (start,) = (number for number, line in enumerate(lines) if "warnings summary" in line)
        (end,) = (number for number, line in enumerate(lines) if line.startswith("-- Docs:"))
        return [line for line in lines[start:end] if line.startswith("  ")]

    assert summary(isolated) == summary(plain)
    text = "\n".join(summary(isolated))
    for part in (
        "Picky: (1, 'x')",
        "Speaking: spoken",
        "Nested: nested",
        "Local: local",
        "Enable tracemalloc",
    ):
        assert part in text


def test_exit_leaves_the_test_unfinished(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    pytester.makeconftest("def pytest_runtest_logfinish(nodeid): print('finished', nodeid)")
    source = """
        import pytest

        def test_one():
            pass

        def test_two():
            pytest.exit("enough", returncode=7)
        """
    isolated, plain = (run(source, "-s", all_tests=all_tests) for all_tests in (True, False))
    assert isolated.result.ret == plain.result.ret == 7
    for ran in (isolated, plain):
        assert ran.out.count("finished test_it.py::test_one") == 1
        assert "finished test_it.py::test_two" not in ran.out


@pytest.mark.parametrize("attribute", ["shouldstop", "shouldfail"])
def test_a_test_that_stops_the_session_sees_all_torn_down(run: Callable[..., Run], attribute: str) -> None:
    source = f"""
        import pytest

        @pytest.fixture(scope="module", autouse=True)
        def shared():
            yield
            print("down")

        def test_one(request):
            request.session.{attribute} = "enough"

        def test_two():
            pass
        """
    isolated, plain = (run(source, "-rP", all_tests=all_tests) for all_tests in (True, False))
    assert isolated.outcomes == plain.outcomes
    for ran in (isolated, plain):
        ran.result.stdout.fnmatch_lines(["*Captured stdout teardown*", "down", "*enough*"])


def test_warnings_of_several_arguments_travel_through_xdist(run: Callable[..., Run]) -> None:
    source = """
        import warnings

        class Picky(UserWarning):
            def __init__(self, code, text):
                super().__init__(code, text)

        def test_it():
            warnings.warn(Picky(1, "x"))
        """
    assert "Picky: (1, 'x')" in run(source, "-n1").out


def test_the_garbage_collector_knows_what_was_there_before(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import gc, weakref

        class Node:
            pass

        HELD = {"node": Node()}
        cycle = Node()
        cycle.self = cycle
        seen = weakref.ref(cycle)

        def test_referrers():
            assert any(referrer is HELD for referrer in gc.get_referrers(HELD["node"]))

        def test_objects():
            assert any(known is HELD for known in gc.get_objects())

        def test_collects():
            global cycle
            del cycle
            gc.collect()
            assert seen() is None
        """
    )
    assert ran.outcomes == {"passed": 3}


DRAWING = """
    import random, pytest
    {seed}

    @pytest.mark.parametrize("number", range(3))
    def test_it(number, record_property):
        if number == 1:
            pytest.skip("draws nothing")
        record_property("drawn", random.random())
        record_property("gauss", random.gauss(0, 1))
"""


def _drawn(path: Path) -> list[str | None]:
    names = {"drawn", "gauss"}
    return [each.get("value") for each in ET.parse(path).iter("property") if each.get("name") in names]


def test_random_numbers_are_those_of_one_process(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    for name, switches in {"plain": ["--isolate-off"], "isolated": []}.items():
        run(DRAWING.format(seed="random.seed(5)"), f"--junitxml={name}.xml", *switches)
    isolated = _drawn(pytester.path / "isolated.xml")
    assert isolated == _drawn(pytester.path / "plain.xml")
    assert len(set(isolated)) == 4


def test_random_numbers_without_a_seed_differ(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    drawn = []
    for name in ("one", "two"):
        run(DRAWING.format(seed=""), f"--junitxml={name}.xml")
        drawn += _drawn(pytester.path / f"{name}.xml")
    assert len(set(drawn)) == 8

"""The JUnit file of an isolated run is that of a plain one, apart from times and properties named isolate.*."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest

from .comparing import comparable_xml
from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

SUITE = """
    import logging, pytest, sys, unittest

    def test_attribute(record_xml_attribute): record_xml_attribute("requirement", "R<1>")
    def test_property(record_property): record_property("key", {"a": 1})
    def test_suite_property(record_testsuite_property): record_testsuite_property("architecture", "x86 & arm")

    @pytest.fixture(scope="session")
    def recorded(record_testsuite_property): record_testsuite_property("from", "a shared fixture")

    def test_shared(recorded): pass

    def test_output():
        print("to stdout"); print("to stderr", file=sys.stderr)
        logging.warning("to the log")

    def test_fail():
        print("said")
        assert {"a": 1} == {"a": 2}

    @pytest.fixture
    def broken_setup(): raise RuntimeError("in setup")

    @pytest.fixture
    def broken_teardown():
        yield
        raise RuntimeError("in teardown")

    def test_error(broken_setup): pass
    def test_teardown_error(broken_teardown): pass
    def test_both(broken_teardown): assert 0
    def test_skip(): pytest.skip("not now")

    @pytest.mark.xfail(reason="known")
    def test_xfail(): assert 0

    @pytest.mark.xfail(strict=True)
    def test_xpass_strict(): pass

    class TestUnit(unittest.TestCase):
        def test_it(self): self.assertEqual(1, 2)
"""


@pytest.mark.parametrize("family", ["legacy", "xunit2"])
@pytest.mark.parametrize("logging", ["no", "all"])
def test_file_is_the_same(run: Runner, pytester: pytest.Pytester, family: str, logging: str) -> None:
    texts = []
    for mode in ("--isolate-off", "--isolate-all"):
        options = ("-o", f"junit_family={family}", "-o", f"junit_logging={logging}", "--junitxml=out.xml")
        run(SUITE, mode, *options, all_tests=False)
        texts.append((pytester.path / "out.xml").read_text())
    plain, isolated = map(comparable_xml, texts)
    assert isolated == plain
    assert any("'requirement': 'R<1>'" in line for line in isolated) == (family == "legacy")
    suite = {p.get("name"): p.get("value") for p in ET.fromstring(texts[1]).findall("*/properties/property")}
    assert suite == {"architecture": "x86 & arm", "from": "a shared fixture"}


def test_usage_and_properties(run: Runner, pytester: pytest.Pytester) -> None:
    run(
        "def test_it(record_property): record_property('mine', 1); print('text')\n\n"
        "def test_crash():\n    import os; print('text', flush=True); os._exit(1)",
        "--junitxml=out.xml",
    )
    cases = {c.get("name"): c for c in ET.parse(pytester.path / "out.xml").iter("testcase")}
    for name in ("test_it", "test_crash"):
        properties = {p.get("name"): p.get("value") for p in cases[name].iter("property")}
        assert float(str(properties["isolate.wall_s"])) > 0
        assert properties["isolate.outcome"] == ("passed" if name == "test_it" else "failed")
    assert {p.get("name") for p in cases["test_it"].iter("property")} >= {"mine"}


def test_with_xdist_as_much_as_without_isolation(run: Runner, pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    texts = []
    for mode in ("--isolate-off", "--isolate-all"):
        run(SUITE, mode, "-n1", "--junitxml=out.xml", all_tests=False)
        texts.append((pytester.path / "out.xml").read_text())
    plain, isolated = map(comparable_xml, texts)
    assert isolated == plain

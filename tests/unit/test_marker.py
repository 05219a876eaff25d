from __future__ import annotations

import pytest

from pytest_isolate import options
from pytest_isolate.errors import SpecError
from pytest_isolate.marker import opted_out, spec_for
from pytest_isolate.settings import session_options
from pytest_isolate.spec import Limits, Network, Spec

MIB = 2**20


class TinyPlugin:
    """As much of the plugin as options and markers need."""

    @staticmethod
    def pytest_addoption(parser: pytest.Parser) -> None:
        options.add_options(parser)

    @staticmethod
    def pytest_configure(config: pytest.Config) -> None:
        options.add_markers(config)


PRELUDE = """
import pytest
isolated, not_isolated = pytest.mark.isolated, pytest.mark.not_isolated
"""


@pytest.fixture
def tiny(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    # An installed pytest-isolate would register the same options.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # It collects garbage five times for each inner session: three quarters of the time of these tests.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:unraisableexception")
    return pytester


def collected(tiny: pytest.Pytester, *args: str) -> list[pytest.Item]:
    run = tiny.inline_run("--collect-only", "--strict-markers", *args, plugins=[TinyPlugin()])
    assert run.ret == 0
    return [call.item for call in run.getcalls("pytest_itemcollected")]


def items(tiny: pytest.Pytester, source: str, *args: str) -> dict[str, pytest.Item]:
    path = tiny.makepyfile(PRELUDE + source)
    return {item.name: item for item in collected(tiny, str(path), *args)}


def item(tiny: pytest.Pytester, source: str, *args: str) -> pytest.Item:
    (found,) = items(tiny, source, *args).values()
    return found


def test_no_mark_is_not_isolated(tiny: pytest.Pytester) -> None:
    found = item(tiny, "def test_a(): pass")
    assert spec_for(found) is None
    assert opted_out(found) is None


def test_bare_mark(tiny: pytest.Pytester) -> None:
    assert spec_for(item(tiny, "@isolated\ndef test_a(): pass")) == Spec()


def test_levels_merge_keyword_by_keyword(tiny: pytest.Pytester) -> None:
    source = """
pytestmark = isolated(memory="1M", pids=1, files=100)
@isolated(memory="2M", pids=2)
class TestA:
    @isolated(memory="3M")
    def test_a(self): pass
"""
    spec = spec_for(item(tiny, source, "--isolate-cpus=2", "--isolate-files=200"))
    assert spec is not None
    assert spec.limits == Limits(memory_bytes=3 * MIB, swap_bytes=0, pids=2, files=100, cpus=2.0)


def test_a_parametrised_case_is_closer_than_its_function(tiny: pytest.Pytester) -> None:
    source = """
@isolated(memory="1M", network="host")
@pytest.mark.parametrize("n", [
    1,
    pytest.param(2, marks=isolated(memory="2M")),
    pytest.param(3, marks=not_isolated(reason="why")),
])
def test_a(n): pass
"""
    found = items(tiny, source)
    assert spec_for(found["test_a[1]"]) == Spec(
        limits=Limits(memory_bytes=MIB, swap_bytes=0), network=Network.HOST
    )
    assert spec_for(found["test_a[2]"]) == Spec(
        limits=Limits(memory_bytes=2 * MIB, swap_bytes=0), network=Network.HOST
    )
    assert spec_for(found["test_a[3]"]) is None
    assert opted_out(found["test_a[3]"]) == "why"


def test_isolate_all(tiny: pytest.Pytester) -> None:
    source = """
def test_plain(): pass
@isolated(pids=3)
def test_marked(): pass
@not_isolated(reason="needs the host")
def test_out(): pass
"""
    found = items(tiny, source, "--isolate-all", "--isolate-timeout=5")
    assert spec_for(found["test_plain"]) == Spec(limits=Limits(timeout_s=5.0))
    assert spec_for(found["test_marked"]) == Spec(limits=Limits(timeout_s=5.0, pids=3))
    assert spec_for(found["test_out"]) is None
    assert [opted_out(one) for one in found.values()] == [None, None, "needs the host"]


def test_isolate_all_covers_doctests_and_unittest(tiny: pytest.Pytester) -> None:
    source = """
import unittest
def f():
    '''
    >>> 1
    1
    '''
@isolated(pids=3)
class TestCase(unittest.TestCase):
    def test_u(self): pass
"""
    found = items(tiny, source, "--doctest-modules", "-p", "doctest", "--isolate-all")
    assert [spec_for(one) for name, one in found.items() if name != "test_u"] == [Spec()]
    assert spec_for(found["test_u"]) == Spec(limits=Limits(pids=3))


def test_custom_item(tiny: pytest.Pytester) -> None:
    tiny.makeconftest(
        """
import pytest
class One(pytest.Item):
    def runtest(self): pass
class File(pytest.File):
    def collect(self):
        one = One.from_parent(self, name="one")
        one.add_marker(pytest.mark.isolated(pids=3))
        return [one]
def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".txt":
        return File.from_parent(parent, path=file_path)
"""
    )
    tiny.makefile(".txt", a="")
    assert [spec_for(one) for one in collected(tiny)] == [Spec(limits=Limits(pids=3))]


@pytest.mark.parametrize("switch", [["--isolate-off"], ["-o", "isolate_off=true"]])
def test_isolate_off_wins_over_everything(switch: list[str], tiny: pytest.Pytester) -> None:
    source = """
@isolated("wrong", memroy=1)
def test_a(): pass
@not_isolated
def test_b(): pass
"""
    found = items(tiny, source, "--isolate-all", *switch)
    assert [spec_for(one) for one in found.values()] == [None, None]
    assert [opted_out(one) for one in found.values()] == [None, None]
    assert session_options(found["test_a"].config).off is True


def test_closest_of_both_marks_wins(tiny: pytest.Pytester) -> None:
    source = """
@isolated(pids=1)
class TestIn:
    @not_isolated(reason="a")
    def test_out(self): pass
@not_isolated(reason="b")
class TestOut:
    @isolated(pids=2)
    def test_in(self): pass
    def test_outer(self): pass
"""
    found = items(tiny, source)
    assert spec_for(found["test_out"]) is None
    assert opted_out(found["test_out"]) == "a"
    assert spec_for(found["test_in"]) == Spec(limits=Limits(pids=2))
    assert opted_out(found["test_in"]) is None
    # Nothing would isolate this one.
    assert spec_for(found["test_outer"]) is None
    assert opted_out(found["test_outer"]) is None


def test_an_opt_out_between_ends_what_is_merged(tiny: pytest.Pytester) -> None:
    source = """
pytestmark = isolated(pids=1)
@not_isolated(reason="a")
class TestA:
    @isolated(files=100)
    def test_a(self): pass
"""
    assert spec_for(item(tiny, source)) == Spec(limits=Limits(files=100))


@pytest.mark.parametrize(
    "mark", ["", "()", "(reason='')", "(reason=' ')", "('why')", "(reason='a', x=1)", "(reason=1)"]
)
@pytest.mark.parametrize("args", [[], ["--isolate-all"]])
def test_an_opt_out_needs_a_reason(mark: str, args: list[str], tiny: pytest.Pytester) -> None:
    found = item(tiny, f"@not_isolated{mark}\ndef test_a(): pass", *args)
    with pytest.raises(SpecError, match="needs a reason") as info:
        spec_for(found)
    assert info.value.origin == "@pytest.mark.not_isolated"
    assert opted_out(found) is None


@pytest.mark.parametrize(
    ("mark", "origin", "expected"),
    [
        ("isolated('64M')", "@pytest.mark.isolated", "keywords only"),
        ("isolated(memroy=1)", "@pytest.mark.isolated", "did you mean memory?"),
        ("isolated(missing='skip')", "@pytest.mark.isolated", "--isolate-missing or ini isolate_missing"),
        ("isolated(memory='64Q')", "@pytest.mark.isolated(memory=…)", "'64Q'"),
    ],
)
def test_wrong_mark(mark: str, origin: str, expected: str, tiny: pytest.Pytester) -> None:
    found = item(tiny, f"@{mark}\ndef test_a(): pass")
    with pytest.raises(SpecError) as info:
        spec_for(found)
    assert info.value.origin == origin
    assert expected in str(info.value)


def test_wrong_session_value_fails_only_isolated_tests(tiny: pytest.Pytester) -> None:
    found = items(tiny, "@isolated\ndef test_a(): pass\ndef test_b(): pass", "--isolate-missing=perhaps")
    with pytest.raises(SpecError, match=r"^--isolate-missing: 'perhaps' is not 'fail', 'skip' or 'degrade'$"):
        spec_for(found["test_a"])
    assert spec_for(found["test_b"]) is None


def test_wrong_isolate_all_fails_every_test_that_is_not_opted_out(tiny: pytest.Pytester) -> None:
    source = "def test_a(): pass\n@not_isolated(reason='r')\ndef test_b(): pass"
    found = items(tiny, source, "-o", "isolate_all=maybe")
    with pytest.raises(SpecError, match=r"^ini isolate_all: "):
        spec_for(found["test_a"])
    assert spec_for(found["test_b"]) is None

"""Nodes and fixtures: see test_pytest_private.py."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest

from pytest_isolate.runner import pytest_private as private

from .conftest import MARKED, Inner

pytestmark = pytest.mark.usefixtures("cure")

TWO_TESTS = """
    import pytest
    events = []

    @pytest.fixture(scope="module")
    def wide():
        events.append("up")
        yield 1
        events.append("down")

    def test_one(wide): pass
    def test_two(wide): pass
"""


def only(name: str, function: Callable[[Any], object]) -> Callable[..., object]:
    """A hook for one item of several."""

    def hook(item: pytest.Item) -> object:
        return function(item) if item.name == name else None

    return hook


def fixture_names(session: pytest.Session) -> list[str]:
    return [definition.argname for definition, _ in private.held_fixtures(session)]


def test_ensure_basetemp(inner: Inner) -> None:
    """_pytest/tmpdir.py, ``Config._tmp_path_factory``: each child would make a base directory of its own."""
    source = "def test(tmp_path_factory): pass"
    seen = inner(
        source,
        pytest_runtest_call=lambda item: (
            private.ensure_basetemp(item.config),
            item.funcargs["tmp_path_factory"].getbasetemp(),
        ),
    )
    made, expected = seen.value
    assert made == expected
    seen = inner(
        "def test(): pass",
        "-pno:tmpdir",
        pytest_runtest_call=lambda item: private.ensure_basetemp(item.config),
    )
    assert seen.values == [None]


def test_Held(inner: Inner) -> None:
    """_pytest/fixtures.py, ``FixtureDef``: whose fixture one is, is told by its public attributes."""

    def look(item: pytest.Item) -> object:
        ((definition, node),) = private.held_fixtures(item.session)
        assert isinstance(definition, pytest.FixtureDef)
        assert callable(definition.func)
        assert definition.cached_result is not None
        return definition.argname, definition.scope, [*definition.argnames], type(node)

    seen = inner(TWO_TESTS, "-k", "test_one", pytest_runtest_call=look)
    assert seen.value == ("wide", "module", [], pytest.Module)


def test_set_up_nodes(inner: Inner) -> None:
    """_pytest/runner.py, ``SetupState.setup`` and ``.stack``: the parent could not set up collectors."""
    calls: list[str] = []

    def set_up(item: Any) -> object:
        item.parent.setup = lambda: calls.append("module")
        private.set_up_nodes(item.parent)
        private.set_up_nodes(item.parent)
        return [*calls]

    seen = inner(TWO_TESTS, pytest_runtest_protocol=only("test_one", set_up))
    assert seen.values[0] == calls == ["module"]
    assert seen.outcomes == {"passed": 2}


def fail_setup_of_parent(item: Any) -> ValueError:
    error = ValueError("of the module")

    def fail() -> None:
        raise error

    item.parent.setup = fail
    for _ in range(2):
        with pytest.raises(ValueError, match="of the module") as caught:
            private.set_up_nodes(item.parent)
        assert caught.value is error
    return error


def test_remembers(inner: Inner) -> None:
    """_pytest/fixtures.py, ``FixtureDef.cached_result``, and _pytest/runner.py, ``SetupState.stack``: a failure
    in a shared fixture would be reported twice or not at all."""

    def of_node(item: pytest.Item) -> object:
        error = fail_setup_of_parent(item)
        return private.remembers(item.session, error), private.remembers(item.session, ValueError())

    seen = inner("def test(): pass", pytest_runtest_protocol=of_node)
    assert seen.value == (True, False)
    assert seen.outcomes == {"errors": 1}

    def of_fixture(item: Any) -> object:
        private.set_up_nodes(item.parent)
        with private.request_of(item) as request, pytest.raises(KeyError) as caught:
            private.set_up_fixture(request, "broken")
        return private.remembers(item.session, caught.value), private.remembers(item.session, KeyError())

    source = """
        import pytest
        @pytest.fixture(scope="session")
        def broken(): raise KeyError
        def test(broken): pass
    """
    seen = inner(source, pytest_runtest_protocol=of_fixture)
    assert seen.value == (True, False)
    assert seen.outcomes == {"errors": 1}


def test_request_of(inner: Inner) -> None:
    """_pytest/fixtures.py, ``TopRequest``: the parent could not set up fixtures before a test starts."""

    def look(item: Any) -> object:
        private.set_up_nodes(item.parent)
        with private.request_of(item) as request:
            assert request.node is item
            assert request.getfixturevalue("wide") == 1
        return item.module.events, fixture_names(item.session)

    seen = inner(TWO_TESTS, "-k", "test_one", pytest_runtest_protocol=look)
    assert seen.value == (["up", "down"], ["wide"])
    assert seen.outcomes == {"passed": 1, "deselected": 1}


OVERRIDDEN = """
    import pytest

    @pytest.fixture(scope="session")
    def base(): return 1

    class Test:
        @pytest.fixture
        def base(self, base): return base + 1

        def test(self, base): assert base == 2
"""


def test_request_from(inner: Inner) -> None:
    """_pytest/fixtures.py, ``SubRequest``: the parent would set up the fixture that overrides the shared one."""

    def look(item: Any) -> object:
        private.set_up_nodes(item.parent)
        override = private.find_fixture(item, "base", 0)
        assert override is not None
        with private.request_of(item) as request:
            private.set_up_fixture(private.request_from(request, override), "base")
        return [
            (definition.argname, definition.scope) for definition, _ in private.held_fixtures(item.session)
        ]

    seen = inner(OVERRIDDEN, pytest_runtest_protocol=look)
    assert seen.value == [("base", "session")]
    assert seen.outcomes == {"passed": 1}


def test_set_up_fixture(inner: Inner) -> None:
    """_pytest/fixtures.py, ``FixtureRequest._get_active_fixturedef``: nothing would be shared, each child would
    set up all fixtures again."""

    def look(item: Any) -> object:
        private.set_up_nodes(item.parent)
        with private.request_of(item) as request:
            private.set_up_fixture(request, "wide")
        return [*item.module.events], fixture_names(item.session)

    seen = inner(TWO_TESTS, pytest_runtest_protocol=only("test_one", look))
    assert seen.values[0] == (["up"], ["wide"])
    assert seen.outcomes == {"passed": 2}


def test_finish_fixture(inner: Inner) -> None:
    """_pytest/fixtures.py, ``FixtureDef.finish``: a parametrized fixture would change its value without an end."""

    def look(item: Any) -> object:
        ((definition, _),) = private.held_fixtures(item.session)
        with private.request_of(item) as request:
            private.finish_fixture(request, definition)
        return [*item.module.events], fixture_names(item.session)

    seen = inner(TWO_TESTS, pytest_runtest_protocol=only("test_two", look))
    assert seen.values[1] == (["up", "down"], [])
    assert seen.outcomes == {"passed": 2}


PARAMETRIZED = """
    import pytest

    @pytest.fixture(scope="module", params=["a", "b"])
    def wide(request): return request.param

    def test_it(wide): pass
    def test_other(wide): pass
"""


def test_is_cached(inner: Inner) -> None:
    """_pytest/fixtures.py, ``FixtureDef.cached_result`` and ``.cache_key`` (since 8.0): tests would get the value
    of another parameter."""

    def look(item: pytest.Item) -> object:
        definition = private.find_fixture(item, "wide", 0)
        assert definition is not None
        return item.name, private.is_cached(item, definition)

    seen = inner(PARAMETRIZED, pytest_runtest_protocol=look)
    expected = {"test_it[a]": False, "test_other[a]": True, "test_it[b]": False, "test_other[b]": True}
    assert dict(seen.values) == expected


def test_is_same_parameter() -> None:
    """_pytest/fixtures.py, ``FixtureDef.execute`` compares parameters: a fixture would be set up for each test."""

    class Array:
        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value of an array is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    array = Array()
    assert private.is_same_parameter([1], [1])
    assert not private.is_same_parameter(1, 2)
    assert private.is_same_parameter(array, array)
    assert not private.is_same_parameter(array, Array())


def test_has_fixtures(inner: Inner) -> None:
    """_pytest/python.py, ``Function._request`` and ``._fixtureinfo`` (doctest.py too): fixtures would be looked
    for in items without any, or not in those that have them."""

    class Custom(pytest.Item):
        def runtest(self) -> None: ...

    def look(item: pytest.Item) -> object:
        assert item.parent is not None
        assert not private.has_fixtures(Custom.from_parent(item.parent, name="custom"))
        return type(item).__name__, private.has_fixtures(item)

    source = '''
        def test():
            """
            >>> 1
            1
            """
    '''
    seen = inner(source, "--doctest-modules", pytest_runtest_protocol=look)
    assert sorted(seen.values) == [("DoctestItem", True), ("Function", True)]


def test_find_fixture(inner: Inner) -> None:
    """_pytest/fixtures.py, ``FuncFixtureInfo.name2fixturedefs``: nobody would know which fixtures are shared."""

    def look(item: pytest.Item) -> object:
        found = [private.find_fixture(item, "base", level) for level in range(3)]
        assert private.find_fixture(item, "unknown", 0) is None
        return [definition and definition.scope for definition in found]

    assert inner(OVERRIDDEN, pytest_runtest_protocol=look).value == ["function", "session", None]


def test_scope_of_parameter(inner: Inner) -> None:
    """_pytest/python.py, ``CallSpec2._arg2scope`` (since 8.0): a fixture that takes another parameter with each
    test would be set up in the parent."""
    source = """
        import pytest
        @pytest.fixture(scope="session")
        def wide(request): return request.param
        @pytest.fixture
        def narrow(): pass
        @pytest.mark.parametrize("wide", [1], indirect=True, scope="class")
        def test_with(wide, narrow): pass
        def test_without(narrow): pass
    """
    seen = inner(
        source,
        pytest_runtest_protocol=lambda item: [
            private.scope_of_parameter(item, name) for name in ("wide", "narrow")
        ],
    )
    assert seen.values == [["class", None], [None, None]]


def test_held_fixtures(inner: Inner) -> None:
    """_pytest/fixtures.py, ``FixtureDef.execute`` adds ``partial(self.finish, …)`` to the finalizers of a node: what
    the parent has set up would be torn down by each child too."""
    source = """
        import pytest
        @pytest.fixture(scope="session")
        def first(): pass
        @pytest.fixture(scope="module")
        def second(request): request.addfinalizer(print)
        @pytest.fixture
        def third(first, second): yield
        @pytest.fixture
        def broken(third): raise ValueError
        def test(broken): pass
    """

    def look(item: pytest.Item) -> object:
        return [(held.definition.argname, type(held.node)) for held in private.held_fixtures(item.session)]

    expected = [
        ("first", pytest.Session),
        ("second", pytest.Module),
        ("third", pytest.Function),
        ("broken", pytest.Function),
    ]
    assert inner(source, pytest_runtest_teardown=look).value == expected


def test_never_free(inner: Inner) -> None:
    """_pytest/fixtures.py, ``FixtureDef.cached_result``: a generator that a child lets go of runs its ``finally``."""
    log: list[str] = []

    class Loop:
        def __del__(self) -> None:
            log.append("closed")

    kept, freed = Loop(), Loop()
    reference = weakref.ref(kept)
    private.never_free(kept)
    del kept, freed
    assert log == ["closed"]
    assert reference() is not None


@pytest.mark.parametrize(("keeps", "left"), [(True, ["Session", "Dir", "Module"]), (False, [])])
def test_disown_nodes(inner: Inner, keeps: bool, left: list[str]) -> None:
    """_pytest/runner.py, ``SetupState.stack``: a child would tear down the parent's fixtures."""

    def disown(item: Any) -> object:
        private.disown_nodes(item.session, item.listchain()[:-1] if keeps else [])
        names = [type(node).__name__ for node in item.session._setupstate.stack]
        assert fixture_names(item.session) == []
        return item.module.events, names

    seen = inner(TWO_TESTS, pytest_runtest_protocol=only("test_two", disown))
    assert seen.values[1] == (["up"], left)
    assert seen.outcomes == {"passed": 2}


@pytest.mark.parametrize("forget", [False, True])
def test_disown_fixture(inner: Inner, forget: bool) -> None:
    """_pytest/fixtures.py, ``FixtureDef._finalizers`` and ``.cached_result``: a child would tear down the parent's
    fixture, or go on with one that does not survive a fork."""

    def disown(item: Any) -> object:
        ((definition, _),) = private.held_fixtures(item.session)
        definition.addfinalizer(lambda: item.module.events.append("finalizer"))
        private.disown_nodes(item.session, item.listchain()[:-1])
        private.disown_fixture(definition, forget=forget)
        assert (definition.cached_result is None) is forget
        with private.request_of(item) as request:
            private.finish_fixture(request, definition)
        return item.module.events

    seen = inner(TWO_TESTS, pytest_runtest_protocol=only("test_two", disown))
    assert seen.values[1] == ["up", "up", "down"]
    assert seen.outcomes == {"passed": 2}


@pytest.mark.parametrize("run_xfail", [False, True])
def test_is_skipped_by_mark(inner: Inner, run_xfail: bool) -> None:
    """_pytest/skipping.py, ``evaluate_skip_marks`` and ``evaluate_xfail_marks`` (since 6.0): fixtures would be set
    up for tests that pytest skips."""

    def look(item: pytest.Item) -> object:
        return item.name.removeprefix("test_"), private.is_skipped_by_mark(item)

    seen = inner(MARKED, *["--runxfail"] * run_xfail, pytest_runtest_protocol=look)
    skipped = {name for name, is_skipped in seen.values if is_skipped}
    expected = {"skip", "skipif", "broken_skipif", "broken_xfail"}
    assert skipped == (expected if run_xfail else {*expected, "xfail_not_run"})


def test_tear_down_to(inner: Inner) -> None:
    """_pytest/runner.py, ``SetupState.teardown_exact`` (since 6.2): the parent could not end its fixtures."""

    def tear_down(item: Any) -> object:
        private.tear_down_to(item.session, item)
        before = [*item.module.events]
        private.tear_down_to(item.session, None)
        return before, [*item.module.events]

    seen = inner(TWO_TESTS, pytest_runtest_protocol=only("test_two", tear_down))
    assert seen.values[1] == (["up"], ["up", "down"])
    assert seen.outcomes == {"passed": 2}


def test_can_leave(inner: Inner) -> None:
    """_pytest/runner.py, ``SetupState.stack`` (since 6.2): a test that starts early would have the fixtures of
    others torn down under them, or wait for nothing."""

    def look(item: Any) -> object:
        return private.can_leave(item.session, item.session)

    source = "import pytest\n@pytest.fixture(scope='module')\ndef wide(): pass\ndef test(wide): pass"
    assert inner(source, pytest_runtest_call=look).value is False
    assert inner("def test(): pass", pytest_runtest_call=look).value is True
    source = "import pytest\n@pytest.fixture(scope='session')\ndef widest(): pass\ndef test(widest): pass"
    assert inner(source, pytest_runtest_call=look).value is True

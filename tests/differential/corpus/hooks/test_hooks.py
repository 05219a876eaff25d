import os

import pytest


@pytest.fixture
def noticed():
    yield


@pytest.fixture(scope="module")
def noticed_module():
    yield


def test_plain():
    pass


def test_fixture(noticed, noticed_module):
    pass


def test_failing():
    assert 0


def test_skip_by_hook():
    pass


def test_broken_teardown():
    pass


def test_changed():
    pass


def test_special():
    pass


def test_compare(thing):
    assert thing(1) == thing(2)


def test_current():
    print(os.environ["PYTEST_CURRENT_TEST"])
    assert 0


def test_added(request):
    request.node.add_report_section("call", "own", "added by the test")
    request.node.user_properties.append(("a", "b"))

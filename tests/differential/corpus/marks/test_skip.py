import sys

import pytest


@pytest.mark.skip
def test_bare():
    pass


@pytest.mark.skip(reason="a reason")
def test_reason():
    pass


@pytest.mark.skipif(sys.platform == "linux", reason="on linux")
def test_condition():
    pass


@pytest.mark.skipif("sys.platform == 'linux'")
def test_string_condition():
    pass


@pytest.mark.skipif("no_such_name")
def test_broken_condition():
    pass


def test_inside():
    print("before")
    pytest.skip("inside")


def test_importorskip():
    pytest.importorskip("no_such_module")


@pytest.fixture
def skipping():
    pytest.skip("in a fixture")


def test_fixture(skipping):
    pass


@pytest.fixture
def skipping_late():
    yield
    pytest.skip("in a teardown")


def test_teardown(skipping_late):
    pass


def test_fail():
    pytest.fail("by hand")


def test_fail_without_traceback():
    pytest.fail("by hand", pytrace=False)

import pytest


@pytest.fixture(scope="module")
def exits():
    pytest.exit("in a module fixture")


def test_exits(exits):
    pass


def test_never():
    pass

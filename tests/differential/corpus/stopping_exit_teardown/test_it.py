import pytest


@pytest.fixture
def exits():
    yield
    pytest.exit("in a teardown")


def test_exits(exits):
    pass


def test_never():
    pass

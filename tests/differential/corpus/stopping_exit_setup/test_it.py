import pytest


@pytest.fixture
def exits():
    pytest.exit("in a fixture", returncode=3)


def test_one():
    pass


def test_exits(exits):
    pass


def test_never():
    pass

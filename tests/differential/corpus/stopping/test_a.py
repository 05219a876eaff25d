import pytest


@pytest.fixture(scope="module")
def shared():
    print("up")
    yield
    print("down")


def test_one(shared):
    pass


def test_two(shared):
    assert 0


def test_three(shared):
    pass


def test_four(shared):
    assert 0


def test_five():
    pass

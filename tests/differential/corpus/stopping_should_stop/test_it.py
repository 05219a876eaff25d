import pytest


@pytest.fixture(scope="module", autouse=True)
def shared():
    print("up")
    yield
    print("down")


def test_one():
    pass


def test_exits(request):
    print("before")
    request.session.shouldstop = "enough"


def test_never():
    pass

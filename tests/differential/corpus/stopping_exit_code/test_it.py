import pytest


@pytest.fixture(scope="module", autouse=True)
def shared():
    print("up")
    yield
    print("down")


def test_one():
    pass


def test_exits():
    print("before")
    pytest.exit("enough", returncode=7)


def test_never():
    pass

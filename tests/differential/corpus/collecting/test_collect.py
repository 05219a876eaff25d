import pytest


def test_generated(generated):
    assert generated != 1


def test_deselected():
    pass


class TestOuter:
    class TestInner:
        def test_deep(self, request):
            print(request.node.nodeid)
            assert 0

    @pytest.mark.parametrize("a,b", [(1, 2), (3, 4)])
    def test_pairs(self, a, b):
        assert a + 1 == b


class TestWithInit:
    def __init__(self):
        pass

    def test_never(self):
        pass


@pytest.mark.parametrize("empty", [])
def test_empty(empty):
    pass


def test_returns():
    return 1


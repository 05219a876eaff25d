import pytest

pytestmark = [pytest.mark.skipif(True, reason="by pytestmark")]


def test_one():
    pass

def test_passing():
    pass


def test_failing():
    assert 0

def test_reads(cached, request):
    print(cached)
    assert request.config.cache.get("differential/session", None) == cached + 1


def test_one():
    pass


def test_two():
    assert 0


def test_three():
    assert 0


def test_four():
    pass

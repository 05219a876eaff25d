def teardown_module():
    raise LookupError("teardown_module fails")


def test_one():
    pass


def test_two():
    pass

def setup_module():
    raise LookupError("setup_module fails")


def test_one():
    pass


def test_two():
    pass

"""setup_module and its kin, which print what they do."""


def setup_module(module):
    print("setup_module", module.__name__)


def teardown_module(module):
    print("teardown_module")


def setup_function(function):
    print("setup_function", function.__name__)


def teardown_function(function):
    print("teardown_function", function.__name__)


def test_function():
    assert 1


def test_failing_function():
    assert 0


class TestClass:
    @classmethod
    def setup_class(cls):
        print("setup_class")
        cls.shared = []

    @classmethod
    def teardown_class(cls):
        print("teardown_class")

    def setup_method(self, method):
        print("setup_method", method.__name__)

    def teardown_method(self, method):
        print("teardown_method", method.__name__)

    def test_one(self):
        assert self.shared == []

    def test_two(self):
        assert not self.shared, "failing"


class TestBrokenClass:
    @classmethod
    def setup_class(cls):
        raise RuntimeError("setup_class fails")

    def test_one(self):
        pass

    def test_two(self):
        pass


class TestTornClass:
    @classmethod
    def teardown_class(cls):
        raise RuntimeError("teardown_class fails")

    def test_one(self):
        pass

    def test_two(self):
        pass

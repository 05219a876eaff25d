import warnings

import pytest

warnings.warn("while importing", UserWarning)


class Own(UserWarning):
    """A category of the suite's own."""

    def __init__(self, one, two="two"):
        super().__init__(one, two)


@pytest.fixture(scope="module")
def warning_module():
    warnings.warn("module set-up")
    yield
    warnings.warn("module teardown")


@pytest.fixture
def warning_function():
    warnings.warn("function set-up")
    yield
    warnings.warn("function teardown")


def test_one(warning_module, warning_function):
    warnings.warn("in the test")


def test_same_again(warning_module):
    warnings.warn("in the test")
    for _ in range(3):
        warnings.warn("in a loop", DeprecationWarning)


def test_own(warning_module):
    warnings.warn(Own("one"))


def test_stack():
    def inner():
        warnings.warn("from the caller", FutureWarning, stacklevel=2)

    inner()


def test_ignored():
    warnings.warn("ignored", UserWarning)


def test_error():
    warnings.warn("an error", RuntimeWarning)


@pytest.mark.filterwarnings("error::BytesWarning")
def test_by_mark():
    warnings.warn("bytes", BytesWarning)


def test_caught(recwarn):
    warnings.warn("recorded")
    assert len(recwarn) == 1
    with pytest.warns(UserWarning, match="expected"):
        warnings.warn("expected")


def test_deprecated_call():
    with pytest.deprecated_call():
        warnings.warn("old", DeprecationWarning)


def test_not_warned():
    with pytest.warns(UserWarning):
        pass


def test_resource():
    open(__file__)  # never closed


def test_unraisable():
    class Bad:
        def __del__(self):
            raise ValueError("in __del__")

    bad = Bad()
    del bad


def test_thread():
    import threading

    def run():
        raise ValueError("in a thread")

    thread = threading.Thread(target=run, name="named")
    thread.start()
    thread.join()

import pytest


def test_some_fail(subtests):
    for number in range(5):
        with subtests.test("number", number=number):
            print("number", number)
            assert number % 2 == 0


def test_all_pass(subtests):
    for text in ("a", 'quo"ted', "ünï", ""):
        with subtests.test(msg=text, text=text):
            assert True


def test_skips_and_xfails(subtests):
    with subtests.test("skipping"):
        pytest.skip("a reason")
    with subtests.test("xfailing"):
        pytest.xfail("another")


def test_outer_fails_too(subtests):
    with subtests.test("inner"):
        raise ValueError("inner")
    raise KeyError("outer")


def test_nested(subtests):
    with subtests.test("outer", level=1):
        with subtests.test("inner", level=2):
            assert 0, "inner"


@pytest.mark.xfail(reason="as a whole")
def test_xfail(subtests):
    with subtests.test("fails"):
        assert 0


@pytest.mark.parametrize("case", ["x", "y"])
def test_parametrized(subtests, case, record_property):
    with subtests.test(case=case, things=[1, {"a": None}]):
        record_property("inside", case)
        assert case == "x"

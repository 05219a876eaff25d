import pytest


@pytest.mark.xfail
def test_bare():
    assert 0


@pytest.mark.xfail(reason="a reason", raises=ValueError)
def test_raises():
    raise ValueError


@pytest.mark.xfail(reason="a reason", raises=ValueError)
def test_raises_another():
    raise KeyError


@pytest.mark.xfail(strict=True, reason="strictly")
def test_strict_pass():
    pass


@pytest.mark.xfail(reason="not strictly")
def test_pass():
    pass


@pytest.mark.xfail(run=False, reason="not run")
def test_not_run():
    raise SystemExit


@pytest.mark.xfail("False", reason="no")
def test_condition_false():
    pass


@pytest.mark.xfail("True", reason="yes")
def test_condition_true():
    assert 0


def test_inside():
    pytest.xfail("inside")


@pytest.fixture
def broken():
    raise ValueError("in a fixture")


@pytest.mark.xfail(reason="the fixture")
def test_fixture(broken):
    pass


@pytest.fixture
def torn():
    yield
    raise ValueError("in a teardown")


@pytest.mark.xfail(reason="the teardown")
def test_teardown(torn):
    assert 0


def test_added_late(request):
    request.applymarker(pytest.mark.xfail(reason="late"))
    assert 0


@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.skip(reason="two"))])
@pytest.mark.usefixtures("tmp_path")
def test_parametrized(n):
    pass

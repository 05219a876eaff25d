import pytest


@pytest.mark.isolated(timeout="10s")
def test_quick(isolation):
    assert isolation.limits.timeout_s == 10


@pytest.mark.isolated(timeout="10s")
def test_slow(isolation):
    assert isolation.limits.timeout_s == 100

import time

import pytest


@pytest.mark.isolated(exclusive=True)
def test_takes_as_long_as_alone():
    started = time.perf_counter()
    sum(range(100_000))
    assert time.perf_counter() - started < 5


@pytest.mark.isolated(memory="256M")
@pytest.mark.parametrize("size_mib", [10, 20, 30])
def test_declares_what_it_needs(size_mib):
    assert len(bytes(size_mib * 2**20)) == size_mib * 2**20

import pytest


def parse(text: str) -> list[list[str]]:
    return [line.split(",") for line in text.splitlines()]


@pytest.mark.isolated(memory="256M")
def test_memory_of_the_parser(isolation):
    text = "some,comma,separated,words\n" * 100_000
    before = isolation.usage()
    rows = parse(text)
    after = isolation.usage()
    assert len(rows) == 100_000
    # The peak is of the whole test so far: what was used before is part of it.
    assert after.memory_peak_bytes - before.memory_peak_bytes < 100 * 2**20
    assert after.cpu_user_s >= before.cpu_user_s


def test_not_isolated(isolation):
    # The fixture is harmless, and false, in a test without a sandbox. None: not measured.
    assert not isolation
    assert isolation.usage().memory_peak_bytes is None

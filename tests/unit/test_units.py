from __future__ import annotations

import math

import pytest

from pytest_isolate.units import (
    format_cpus,
    format_duration,
    format_size,
    parse_count,
    parse_cpus,
    parse_duration,
    parse_size,
    quoted,
)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("64M", 64 * 2**20),
        ("64MiB", 64 * 2**20),
        ("64 MiB", 64 * 2**20),
        ("64m", 64 * 2**20),
        ("1.5G", 3 * 2**29),
        ("512KiB", 2**19),
        ("1T", 2**40),
        ("4096", 4096),
        ("4096B", 4096),
        (" 1K ", 1024),
        ("0", 0),
        (4096, 4096),
        (64e6, 64_000_000),
        (2**63 - 1, 2**63 - 1),
        (str(2**63 - 1), 2**63 - 1),
    ],
)
def test_size(value: object, size: int) -> None:
    assert parse_size(value) == size
    assert type(parse_size(value)) is int


@pytest.mark.parametrize(
    ("value", "cpus"), [("0.5", 0.5), ("50%", 0.5), ("50 %", 0.5), ("150%", 1.5), (2, 2.0), (0.25, 0.25)]
)
def test_cpus(value: object, cpus: float) -> None:
    assert parse_cpus(value) == cpus


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("10s", 10.0), ("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0), ("0.5", 0.5), (10, 10.0), (1.5, 1.5)],
)
def test_duration(value: object, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(("value", "count"), [("12", 12), (0, 0), (7, 7)])
def test_count(value: object, count: int) -> None:
    assert parse_count(value) == count


NEVER = ["", "-1", "1e3", "inf", "nan", "1_0", "0x10", "1..5", "٣", "9" * 400, -1, True, None, [], object()]
NEVER += [math.inf, -math.inf, math.nan, b"1", "1\x00", 10**400]


@pytest.mark.parametrize("parse", [parse_size, parse_cpus, parse_duration, parse_count])
@pytest.mark.parametrize("value", NEVER, ids=lambda value: quoted(value)[:20])
def test_no_number(parse: object, value: object) -> None:
    assert callable(parse)
    with pytest.raises(ValueError, match=r"^[a-z]") as info:
        parse(value)
    assert "\n" not in str(info.value)
    assert " number" in str(info.value)


@pytest.mark.parametrize(
    ("parse", "value", "allowed"),
    [
        (parse_size, "64MB", "K, M, G or T, as in 64M"),
        (parse_size, "64Q", "K, M, G or T, as in 64M"),
        (parse_size, "1.5", "a whole number of bytes"),
        (parse_size, 1.5, "a whole number of bytes"),
        (parse_cpus, "2 cores", "as in 2, 0.5 or 50%"),
        (parse_duration, "10 minutes", "as in 10s, 500ms or 2m"),
        (parse_duration, "2M", "ms, s, m or h"),
        (parse_count, "1.0", "a whole number"),
        (parse_count, 1.0, "a whole number"),
        (parse_size, 2**63, "between 0 and 2**63 - 1"),
    ],
)
def test_error_names_value_and_allowed_forms(parse: object, value: object, allowed: str) -> None:
    assert callable(parse)
    with pytest.raises(ValueError, match=r"^[a-z]") as info:
        parse(value)
    assert allowed in str(info.value)
    assert repr(value) in str(info.value)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (64 * 2**20, "64.0 MiB"),
        (2**20 - 1, "1.0 MiB"),
        (3 * 2**29, "1.5 GiB"),
        (2**40, "1.0 TiB"),
        (2**53, "8192.0 TiB"),
    ],
)
def test_print_size(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize("power", range(63))
def test_printed_size_is_readable(power: int) -> None:
    size = 2**power - 1
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (10.0, "10.0 s"),
        (120, "120.0 s"),
        (1, "1.0 s"),
        (0.99999, "1.0 s"),
        (0.5, "500.0 ms"),
        (0.0004, "0.4 ms"),
        (0.0, "0.0 s"),
    ],
)
def test_print_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
    assert parse_duration(text) == pytest.approx(seconds, rel=0.01)


@pytest.mark.parametrize(("cpus", "text"), [(0.5, "0.5"), (2.0, "2"), (1 / 3, "0.333"), (100, "100")])
def test_print_cpus(cpus: float, text: str) -> None:
    assert format_cpus(cpus) == text


def test_quoted_is_one_bounded_line() -> None:
    class Long:
        def __repr__(self) -> str:
            return "a\n" * 100

    assert "\n" not in quoted(Long())
    assert len(quoted(Long())) == 80

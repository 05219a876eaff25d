"""Sizes, processor shares, durations and counts: the only place that parses or prints units.

Parsers take what a marker, the command line or an ini file can hold, and raise ``ValueError`` with
one lower-case line that names what is allowed. Ranges are not checked here (``options.py``).
"""

from __future__ import annotations

import math
import re
from typing import TypeGuard

__all__ = [
    "format_cpus",
    "format_duration",
    "format_size",
    "parse_count",
    "parse_cpus",
    "parse_duration",
    "parse_size",
    "quoted",
]

_SIZE_FORMS = "a whole number of bytes or a number with K, M, G or T, as in 64M, 1.5G or 512KiB"
_CPUS_FORMS = "a number of processors or a percentage of one, as in 2, 0.5 or 50%"
_DURATION_FORMS = "a number of seconds or a number with ms, s, m or h, as in 10s, 500ms or 2m"
_COUNT_FORMS = "a whole number from 0 on"

# KB and MB are left out on purpose: they are powers of ten to some and of two to others.
_SIZE_FACTORS = {"": 1, "b": 1} | {
    unit: 2**power
    for letter, power in (("k", 10), ("m", 20), ("g", 30), ("t", 40))
    for unit in (letter, f"{letter}ib")
}
_DURATION_FACTORS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PRINTED_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")

# The kernel keeps limits in signed 64 bits.
_LARGEST = 2**63 - 1
# Bounded, so that no text of thousands of digits becomes an infinity further down.
_NUMBER_AND_UNIT = r"\s*([0-9]{1,19}(?:\.[0-9]{1,19})?) ?([A-Za-z]*|%)\s*"
_LONGEST_QUOTE = 80


def quoted(value: object) -> str:
    """``repr`` of a value for an error text: one line, bounded."""
    text = " ".join(repr(value).split("\n"))
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"


def parse_size(value: object) -> int:
    """Bytes of ``64M``, ``1.5G``, ``512KiB``, ``4096`` or a plain number; M and MiB are both 2**20."""
    size: int | None = None
    if isinstance(value, str):
        number, unit = _split(value)
        factor = _SIZE_FACTORS.get(unit.lower())
        if number and factor is not None and not (factor == 1 and "." in number):
            size = int(float(number) * factor) if "." in number else int(number) * factor
    elif _is_number(value):
        size = int(value) if value == int(value) else None
    return int(_within_kernel("size", value, size, _SIZE_FORMS))


def parse_cpus(value: object) -> float:
    """Processors of ``0.5``, ``"50%"``, ``2``."""
    cpus: float | None = None
    if isinstance(value, str):
        number, unit = _split(value)
        if number and unit in ("", "%"):
            cpus = float(number) / (100 if unit else 1)
    elif _is_number(value):
        cpus = value
    return float(_within_kernel("cpus", value, cpus, _CPUS_FORMS))


def parse_duration(value: object) -> float:
    """Seconds of ``10s``, ``500ms``, ``2m``, ``1h`` or a plain number."""
    seconds: float | None = None
    if isinstance(value, str):
        number, unit = _split(value)
        factor = _DURATION_FACTORS.get(unit)
        if number and factor is not None:
            seconds = float(number) * factor
    elif _is_number(value):
        seconds = value
    return float(_within_kernel("duration", value, seconds, _DURATION_FORMS))


def parse_count(value: object) -> int:
    """A whole number, 0 included."""
    count: int | None = None
    if isinstance(value, str):
        number, unit = _split(value)
        count = int(number) if number.isdigit() and not unit else None
    elif _is_number(value) and isinstance(value, int):
        count = value
    return int(_within_kernel("count", value, count, _COUNT_FORMS))


def format_size(size_bytes: int) -> str:
    """``64.0 MiB``; what is below a KiB in whole bytes, ``512 B``."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    scaled = float(size_bytes)
    for unit in _PRINTED_SIZES:
        # Rounded first: 2**20 - 1 bytes are 1.0 MiB, never 1024.0 KiB.
        if round(scaled, 1) < 1024 or unit == _PRINTED_SIZES[-1]:
            break
        scaled /= 1024
    return f"{scaled:.1f} {unit}"


def format_duration(seconds: float) -> str:
    """``10.0 s``; what is below a second in milliseconds, ``500.0 ms``."""
    milliseconds = round(seconds * 1000, 1)
    if 0 < abs(milliseconds) < 1000:
        return f"{milliseconds:.1f} ms"
    return f"{seconds:.1f} s"


def format_cpus(cpus: float) -> str:
    """``0.5``, ``2``: at most three decimals, none that say nothing."""
    return f"{cpus:.3f}".rstrip("0").rstrip(".")


def _is_number(value: object) -> TypeGuard[int | float]:
    # A bool is an int to Python, and never a size to a person; infinities and NaN are no limits.
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _split(text: str) -> tuple[str, str]:
    match = re.fullmatch(_NUMBER_AND_UNIT, text)
    return (match[1], match[2]) if match else ("", "")


def _within_kernel(what: str, value: object, number: float | None, forms: str) -> float:
    if number is None:
        raise ValueError(f"{what} {quoted(value)} is not {forms}")
    if not 0 <= number <= _LARGEST:
        raise ValueError(f"{what} {quoted(value)} is not between 0 and 2**63 - 1; it is {forms}")
    return number

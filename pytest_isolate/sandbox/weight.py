"""What a message weighs before anything is made of it: ``[]`` is two bytes of JSON, and sixty of Python.

Cheap for what tests send, and within few seconds for the worst that fits into a frame.
"""

from __future__ import annotations

import re

from pytest_isolate.errors import ChannelError

__all__ = ["weigh"]

#: Python's own sizes of a list, of a dict with one entry, and of an entry of either, with a small object.
COSTS = {b"[": 80, b"{": 240, b",": 80}
#: Values in each other, beyond which those who go through them by calling themselves may come to an end.
MAX_DEPTH = 200
#: In a frame: to find them takes a microsecond each.
MOST_STRINGS = 2_500_000
#: Below, it does not matter that signs in strings count too.
CHEAP = MAX_DEPTH * min(COSTS[b"["], COSTS[b"{"])
STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def weigh(data: bytes) -> tuple[int, int]:
    """About how many bytes of memory JSON takes for what is no text, and for text, of which one character
    beyond 16 bits makes all four times as long. Raises ChannelError for too many values in each other."""
    objects = _cost(data)
    if objects > CHEAP:
        skeleton = _without_strings(data)
        objects = _cost(skeleton)
        if _is_deep(skeleton):
            raise ChannelError(f"more than {MAX_DEPTH} values in each other: {data[:80]!r}")
    is_wide = b"\\ud" in data or b"\\uD" in data or not data.isascii()
    return objects, len(data) * (4 if is_wide else 2 if b"\\u" in data else 1)


def _cost(data: bytes) -> int:
    return sum(data.count(sign) * size for sign, size in COSTS.items())


def _without_strings(data: bytes) -> bytes:
    """Not by ``re.sub``, which would take 170 bytes for each."""
    kept, at = bytearray(), 0
    for number, match in enumerate(STRING.finditer(data)):
        if number > MOST_STRINGS:
            raise ChannelError(f"more than {MOST_STRINGS} strings: {data[:80]!r}")
        kept += data[at : match.start()]
        at = match.end()
    return bytes(kept + data[at:])


def _is_deep(skeleton: bytes) -> bool:
    brackets = skeleton.translate(None, NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        outer = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(outer) == len(brackets):  # nothing is left, or it is no JSON
            return False
        brackets = outer
    return bool(brackets)

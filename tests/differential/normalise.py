"""What differs between any two runs, and says nothing: addresses, times, process ids, temporary names."""

from __future__ import annotations

import re

__all__ = ["normalise"]

#: In order: an earlier one may eat what a later one would match.
RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\x1b\[[0-9;]*m", ""),
        (r"\b0x[0-9a-fA-F]{4,}\b", "0xADDRESS"),
        (r"\bobject [at ]*\.\.\.[0-9a-fx]*>", "object at 0xADDRESS>"),  # cut by saferepr
        (r"\b(oldfd|fd|name)=\d+\b", r"\1=FD"),
        (r"pytest-of-([\w.-]+)/pytest-\d+", r"pytest-of-\1/pytest-N"),
        (r"\bpytest-\d+/", "pytest-N/"),
        (r"/tmp/tmp[a-z0-9_]{8}\b", "/tmp/tmpRANDOM"),
        (r"\btmp[a-z0-9_]{8}\b", "tmpRANDOM"),
        (r'\btime(stamp)?="[^"]*"', 'time="TIME"'),
        (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:?\d\d)?", "DATE"),
        (r"\b\d{1,2}:\d\d:\d\d([.,]\d+)?\b", "TIME"),
        (r"\b\d+(\.\d+)?(e-\d+)? ?(s|ms|us|µs|seconds?|sec)\b", "DURATION"),
        (r"\bDURATION \(TIME\)", "DURATION"),  # as pytest adds from a minute on
        (r"\[gw\d+\]", "[gwN]"),  # the worker of xdist that was free
        (r"(?i)\b(pid|process|tid|thread)([\"']?[ =:#(]{1,3})\d+\b", r"\1\2NUMBER"),
        (r"((?:127\.0\.0\.1|localhost|0\.0\.0\.0|\[?::1\]?|::)['\"]?(?::|, ))\d{4,5}\b", r"\1PORT"),
        (r"\b(port)([ =:]{1,3})\d{4,5}\b", r"\1\2PORT"),
        (r"\b\d+\.\d{4,}(e[+-]?\d+)?\b", "FLOAT"),
        (r"\b\d{12,}\b", "NUMBER"),  # thread identifiers, nanoseconds
        (r"\b(Task|Thread|Process|Dummy)-\d+\b", r"\1-N"),  # counted per process
        (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID"),
        (r"\b[0-9a-f]{32}\b", "HEX"),
    )
)


def normalise(text: str) -> str:
    for pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    return text

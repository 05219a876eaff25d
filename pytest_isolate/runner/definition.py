"""The line of ``def``.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import linecache
import re

__all__ = ["line_of_def"]


def line_of_def(filename: str, lineno: int, name: str) -> int:
    """Of the function at ``lineno``, which Python and pytest say is that of its first decorator."""
    lines = linecache.getlines(filename)[lineno - 1 :]
    if lines and lines[0].lstrip().startswith("@"):
        definition = re.compile(rf"\s*(?:async\s+)?def\s+{re.escape(name)}\b")
        for number, line in enumerate(lines, lineno):
            if definition.match(line):
                return number
    return lineno

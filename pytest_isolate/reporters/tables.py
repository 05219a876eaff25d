"""The tables of the costliest tests, and the fitting of test names and numbers into columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pytest_isolate.reporters.collect import Row
from pytest_isolate.reporters.line import Line
from pytest_isolate.units import format_size

__all__ = ["cpu_table", "memory_table", "shorten"]

_GAP = "  "
_INDENT = "  "
_TIGHT = 0.9  #: share of its memory limit from which on a test is worth a warning


class _Column(NamedTuple):
    title: str
    cells: Sequence[str]

    @property
    def width(self) -> int:
        return max(map(len, (self.title, *self.cells)))


def memory_table(rows: Iterable[Row], top: int, width: int) -> list[Line]:
    """Peak, limit and how much of the limit that is, of the tests with the highest peaks."""
    measured = [row for row in rows if row.memory_peak_bytes is not None]
    chosen = sorted(measured, key=lambda row: -(row.memory_peak_bytes or 0))[:top]
    columns = [
        _Column("peak", [_size(row.memory_peak_bytes) for row in chosen]),
        _Column("limit", [_size(row.memory_limit_bytes) for row in chosen]),
        _Column("used", ["" if (share := _share(row)) is None else f"{share * 100:.0f} %" for row in chosen]),
    ]
    # Without a cgroup it is the largest process alone, with the pages that it shares with pytest.
    what = "memory" if any(row.enforced.cgroup for row in chosen) else "memory (rss)"
    return _table(_title(what, chosen, measured), chosen, columns, _memory_style, width)


def cpu_table(rows: Iterable[Row], top: int, width: int) -> list[Line]:
    """User and system time together, wall-clock time, and for how long a limit held the test back."""
    measured = [row for row in rows if row.cpu_s is not None]
    chosen = sorted(measured, key=lambda row: -(row.cpu_s or 0))[:top]
    # One unit for all, so that numbers compare at a glance.
    unit = "s" if any(max(row.cpu_s or 0, row.wall_s or 0) >= 1 for row in chosen) else "ms"
    columns = [
        _Column("cpu", [_time(row.cpu_s, unit) for row in chosen]),
        _Column("wall", [_time(row.wall_s, unit) for row in chosen]),
        _Column("throttled", [_time(row.throttled_s or None, unit) for row in chosen]),
    ]
    return _table(_title("cpu", chosen, measured), chosen, columns, lambda row: "", width)


def shorten(nodeid: str, width: int) -> str:
    """A node id in at most ``width`` characters, which keeps the name of the test for as long as it can."""
    if len(nodeid) <= width:
        return nodeid
    call, bracket, case = nodeid.partition("[")
    path, *scopes = call.split("::")
    heads = [f"…{path[at:]}" for at, letter in enumerate(path) if letter == "/"]
    for parameters in (bracket + case, bracket + _cut(case, max(width // 3, 8))):
        for head in heads:
            if len(candidate := "::".join([head, *scopes]) + parameters) <= width:
                return candidate
    name = (scopes or [path])[-1] + bracket + _cut(case, max(width // 3, 8))
    file = path.rpartition("/")[2]
    for candidate in ("::".join([file, *scopes[:-1], name]), f"{file}::…::{name}", f"…::{name}"):
        if scopes and len(candidate) <= width:
            return candidate
    return _cut([file, *scopes][-1] + bracket + case, width)


def _cut(text: str, width: int) -> str:
    """Both ends of a text."""
    if len(text) <= width:
        return text
    tail = width // 2
    return f"{text[: max(width - tail - 1, 0)]}…{text[len(text) - tail :]}"


def _title(what: str, chosen: Sequence[Row], measured: Sequence[Row]) -> str:
    return f"top {len(chosen)} by {what}" if len(chosen) < len(measured) else f"by {what}"


def _table(
    title: str,
    rows: Sequence[Row],
    columns: Iterable[_Column],
    style: Callable[[Row], str],
    width: int,
) -> list[Line]:
    if not rows:
        return []
    filled = [column for column in columns if any(column.cells)]
    room = width - sum(len(_GAP) + column.width for column in filled)
    names = [_INDENT + shorten(row.nodeid, max(room - len(_INDENT), 20)) for row in rows]
    first = max(map(len, (title, *names)))
    lines = [Line(_cells(title, first, [(column.title, column.width) for column in filled]), "bold")]
    for index, row in enumerate(rows):
        cells = [(column.cells[index], column.width) for column in filled]
        lines.append(Line(_cells(names[index], first, cells), style(row)))
    return lines


def _cells(name: str, width: int, cells: Iterable[tuple[str, int]]) -> str:
    return (name.ljust(width) + "".join(_GAP + text.rjust(size) for text, size in cells)).rstrip()


def _memory_style(row: Row) -> str:
    if row.reason == "oom":
        return "red"
    share = _share(row)
    return "yellow" if share is not None and share >= _TIGHT else ""


def _share(row: Row) -> float | None:
    if row.memory_peak_bytes is None or not row.memory_limit_bytes:
        return None
    return row.memory_peak_bytes / row.memory_limit_bytes


def _size(size_bytes: float | None) -> str:
    return "" if size_bytes is None else format_size(int(size_bytes))


def _time(seconds: float | None, unit: str) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.2f} s" if unit == "s" else f"{seconds * 1000:.1f} ms"

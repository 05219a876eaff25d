"""The section ``isolate`` at the end of a run: what was isolated, how well, and what it cost."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_isolate.reporters.collect import Collected, Enforced, Row
from pytest_isolate.reporters.line import Line
from pytest_isolate.reporters.tables import cpu_table, memory_table, shorten
from pytest_isolate.units import format_duration, format_size
from pytest_isolate.violation import merge

if TYPE_CHECKING:
    import pytest

    from pytest_isolate.reporters.jsonlines import JsonLines

__all__ = ["TerminalSection", "one_line", "section"]

_MOST_NAMES = 3
_MOST_REASONS = 5
_MOST_GUILTY = 10
_LONG_SLEEP_S = 0.1
_UNRUN = {"setup": "no sandbox could be built", "options": "wrong options"}
_LIMITS = {"oom": "memory", "timeout": "timeout", "cpu_time": "cpu time"}


class TerminalSection:
    """Plugin: prints the section."""

    def __init__(
        self, collected: Collected, top: int, json_lines: JsonLines | None, *, profile: bool
    ) -> None:
        self._collected = collected
        self._top = top
        self._json_lines = json_lines
        self._profile = profile

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        problem = [*self._json_problem(), *self._profile_problem()]
        width = config.get_terminal_writer().fullwidth
        if terminalreporter.verbosity < 0:
            line = one_line(self._collected) if terminalreporter.verbosity == -1 else None
            lines = [*([line] if line is not None else []), *self._collected.profile.table(), *problem]
        else:
            lines = section(
                self._collected, self._top, width, self._records(config), terminalreporter.verbosity > 0
            )
            lines += problem
            if lines:
                terminalreporter.write_sep("=", "isolate")
        for line in lines:
            terminalreporter.write_line(line.text, **({line.style: True} if line.style else {}))

    def _records(self, config: pytest.Config) -> str:
        if self._json_lines is None or self._json_lines.error:
            return ""
        path = str(self._json_lines.path)
        return min(path, os.path.relpath(path, config.invocation_params.dir), key=len)

    def _profile_problem(self) -> list[Line]:
        if not self._profile or self._collected.profile.table():
            return []
        return [Line("--isolate-profile: no test was isolated; see --isolate-all")]

    def _json_problem(self) -> list[Line]:
        if self._json_lines is None or not self._json_lines.error:
            return []
        path, error = self._json_lines.path, self._json_lines.error
        return [Line(f"--isolate-json: {path} is incomplete: {error}", "red")]


def one_line(collected: Collected) -> Line | None:
    """All that ``-q`` prints."""
    rows = [*collected.rows.values()]
    hit = sum(1 for row in rows if _limits_hit(row))
    guilty = sum(1 for row in rows if row.deeds)
    degraded = sum(1 for row in rows if row.missing)
    parts = [
        _cost(rows, f"{_tests(len(rows))}, ", "") if rows else "",
        f"{hit} hit a limit" if hit else "",
        f"{guilty} not hermetic" if guilty else "",
        f"{degraded} degraded" if degraded else "",
        f"{len(collected.opted_out)} opted out" if collected.opted_out else "",
        f"off: {len(collected.switched_off)} unprotected" if collected.switched_off else "",
    ]
    text = ", ".join(part for part in parts if part)
    return Line(f"isolate: {text}") if text else None


def section(
    collected: Collected, top: int, width: int, records: str = "", verbose: bool = False
) -> list[Line]:
    """The lines below the header; none if isolation played no part in the session."""
    if not collected:
        return []
    rows = [*collected.rows.values()]
    lines = [
        *_overview(rows, width),
        *_endings(rows),
        *_deeds(rows, width),
        *_slept(rows, width),
        *_violations(rows, width, None if verbose else _MOST_GUILTY),
        *_kept(rows, width),
        *_rerun(collected.rerun),
        *_opted_out(collected.opted_out.values(), width),
        *_degraded(rows, width),
        *_switched_off(collected.switched_off, width),
        *([Line(f"one JSON line per isolated test: {records}")] if records else []),
    ]
    for table in (memory_table(rows, top, width), cpu_table(rows, top, width), collected.profile.table()):
        if table:
            lines += [Line(""), *table]
    return lines


# -- what there is to say, a line each ------------------------------------------------------------------


def _overview(rows: Sequence[Row], width: int) -> Iterator[Line]:
    if not rows:
        return
    overhead = [row.overhead_s for row in rows if row.overhead_s is not None]
    each = f" ({format_duration(sum(overhead) / len(overhead))} each)" if len(overhead) > 1 else ""
    tests = f"{len(rows)} isolated test{'s' * (len(rows) != 1)}"
    yield Line(_cost(rows, f"{tests}: ", "in sandboxes ") + each)
    groups = Counter(row.enforced for row in rows if row.has_run).most_common()
    if groups:
        most = groups[0][0]
        yield from _wrapped("enforced: ", _facts(most), width)
        for other, count in groups[1:]:
            yield from _wrapped(f"  on {_tests(count)}: ", _difference(other, most), width)


def _cost(rows: Collection[Row], tests: str, where: str) -> str:
    walls = [row.wall_s for row in rows if row.wall_s is not None]
    overheads = [row.overhead_s for row in rows if row.overhead_s is not None]
    if not walls:
        return tests.rstrip(":, ")
    return f"{tests}{_seconds(sum(walls))} {where}+ {_seconds(sum(overheads))} overhead"


def _facts(enforced: Enforced) -> list[str]:
    return [
        f"{' '.join(enforced.namespaces)} namespaces" if enforced.namespaces else _lower_level(enforced),
        *([f"{enforced.root} root"] if enforced.root else []),
        f"cgroup {enforced.cgroup}" if enforced.cgroup else "no cgroup",
    ]


def _lower_level(enforced: Enforced) -> str:
    if enforced.level is None:
        return "no namespaces"
    refused = f" (confined: {' '.join(enforced.confined)})" if enforced.confined else ""
    return f"level {enforced.level}, no namespaces{refused}"


def _difference(enforced: Enforced, most: Enforced) -> list[str]:
    """What is not as with most tests."""
    lost = [name for name in most.namespaces if name not in enforced.namespaces]
    gained = [name for name in enforced.namespaces if name not in most.namespaces]
    facts = []
    if lost and not enforced.namespaces:
        facts.append(_lower_level(enforced))
    elif lost:
        facts.append(f"no {' '.join(lost)} namespace{'s' * (len(lost) != 1)}")
    if gained:
        facts.append(f"{' '.join(gained)} namespace{'s' * (len(gained) != 1)} too")
    pairs = zip(_facts(enforced)[1:], _facts(most)[1:], strict=False)
    return facts + [mine for mine, theirs in pairs if mine != theirs]


def _limits_hit(row: Row) -> list[str]:
    return [
        *([_LIMITS[row.reason]] if row.reason in _LIMITS else []),
        *(["pids"] if row.pids_refused else []),
        *(["tmp_size"] if row.tmp_free_bytes == 0 else []),
    ]


def _endings(rows: Sequence[Row]) -> Iterator[Line]:
    hits = [hit for row in rows if (hit := _limits_hit(row))]
    if hits:
        kinds = Counter(kind for hit in hits for kind in hit)
        yield Line(f"{_tests(len(hits))} hit a limit: {_counted(kinds)}", "yellow")
    ends = Counter(
        row.signal if row.reason == "signal" else row.reason
        for row in rows
        if row.reason in ("signal", "exited", "channel")
    )
    if ends:
        words = {"exited": "exit", "channel": "broken report channel"}
        kinds = Counter({words.get(end, end): count for end, count in ends.items()})
        yield Line(f"{_tests(sum(ends.values()))} ended early: {_counted(kinds)}", "yellow")
    for reason, why in _UNRUN.items():
        if unrun := sum(1 for row in rows if row.reason == reason):
            yield Line(f"{_tests(unrun)} did not run: {why}", "red")


def _deeds(rows: Sequence[Row], width: int) -> Iterator[Line]:
    """What a test did that its author may not know of."""
    yield from _named("ran into the pids limit", rows, "pids_refused", width)
    yield from _named("left processes behind", rows, "leaked_processes", width)
    yield from _named("tried to reach the network", rows, "network_attempts", width)
    files = sum(int(row.written_files or 0) for row in rows)
    if files:
        size = sum(int(row.written_bytes or 0) for row in rows)
        amount = f"{files} file{'s' * (files != 1)}, {format_size(size)}"
        fate = "" if any(row.kept or row.artifacts for row in rows) else ", thrown away"
        yield from _named(f"wrote outside tmp_path ({amount}{fate})", rows, "written_files", width)


def _slept(rows: Sequence[Row], width: int) -> Iterator[Line]:
    """For how long, of those that slept long enough to be worth a word."""
    sleepers = [row for row in rows if (row.slept_s or 0) >= _LONG_SLEEP_S]
    if not sleepers:
        return
    sleepers.sort(key=lambda row: -(row.slept_s or 0))
    names = [
        f"{shorten(row.nodeid, width - 12)} ({_seconds(row.slept_s or 0)})" for row in sleepers[:_MOST_NAMES]
    ]
    if len(sleepers) > _MOST_NAMES:
        names.append(f"and {len(sleepers) - _MOST_NAMES} more")
    total = sum(row.slept_s or 0 for row in sleepers)
    yield from _wrapped(f"{_tests(len(sleepers))} asked to sleep {_seconds(total)}: ", names, width, indent=4)


def _violations(rows: Sequence[Row], width: int, most: int | None) -> Iterator[Line]:
    guilty = [row for row in rows if row.deeds]
    if not guilty:
        return
    count = sum(len(row.deeds) for row in guilty)
    yield Line(f"{_tests(len(guilty))} not hermetic, {count} violation{'s' * (count != 1)}:", "yellow")
    for row in guilty[:most]:
        yield Line(f"  {shorten(row.nodeid, width - 2)}")
        for violation in merge(row.deeds):
            yield from _wrapped("    ", str(violation).split(), width, joint=" ", indent=6)
    if more := len(guilty) - len(guilty[:most]):
        yield Line(f"  and {_tests(more, 'more ')}; all of them with -v or in --isolate-json FILE")


def _kept(rows: Iterable[Row], width: int) -> Iterator[Line]:
    kept = [row.kept for row in rows if row.kept]
    if kept:
        start = f"kept what {_tests(len(kept))} wrote: "
        yield from _wrapped(start, [os.path.commonpath(kept)], width, indent=4)


def _named(deed: str, rows: Iterable[Row], field: str, width: int) -> Iterator[Line]:
    doers = sorted((row for row in rows if getattr(row, field)), key=lambda row: -getattr(row, field))
    if not doers:
        return
    names = [f"{shorten(row.nodeid, width - 12)} ({getattr(row, field):.0f})" for row in doers[:_MOST_NAMES]]
    if len(doers) > _MOST_NAMES:
        names.append(f"and {len(doers) - _MOST_NAMES} more")
    yield from _wrapped(f"{_tests(len(doers))} {deed}: ", names, width, indent=4)


def _rerun(nodeids: Collection[str]) -> Iterator[Line]:
    if nodeids:
        yield Line(f"{_tests(len(nodeids))} ran more than once: this counts the last sandbox of each")


def _opted_out(reasons: Collection[str], width: int) -> Iterator[Line]:
    if not reasons:
        return
    counts = Counter(" ".join(reason.split()) for reason in reasons).most_common()
    opted_out = f"{_tests(len(reasons))} opted out (not_isolated): "
    if len(counts) == 1:
        yield from _wrapped(opted_out, counts[0][0].split(), width, joint=" ", indent=4)
        return
    yield Line(opted_out.rstrip())
    yield from _list(counts[:_MOST_REASONS], width)
    if len(counts) > _MOST_REASONS:
        yield Line(f"       and {len(counts) - _MOST_REASONS} more reasons")


def _degraded(rows: Iterable[Row], width: int) -> Iterator[Line]:
    degraded = [row for row in rows if row.missing]
    if degraded:
        yield Line(f"degraded: {_tests(len(degraded))} ran without what this machine lacks", "yellow")
        missing = Counter(text for row in degraded for text in row.missing)
        yield from _list(missing.most_common(), width, "yellow")


def _switched_off(nodeids: Collection[str], width: int) -> Iterator[Line]:
    if nodeids:
        text = f"isolation is off (--isolate-off): {_tests(len(nodeids))} ran unprotected"
        yield from _wrapped("", text.split(), width, joint=" ", indent=2, style="yellow")


# -- words and lines ------------------------------------------------------------------------------------


def _list(counts: Iterable[tuple[str, int]], width: int, style: str = "") -> Iterator[Line]:
    for text, count in counts:
        yield from _wrapped(f"{count:5}  ", text.split(), width, joint=" ", indent=7, style=style)


def _wrapped(
    start: str,
    parts: Sequence[str],
    width: int,
    *,
    joint: str = ", ",
    indent: int | None = None,
    style: str = "",
) -> Iterator[Line]:
    """``start`` and the joined parts, on as many lines as it takes; no part is broken."""
    indent = len(start) if indent is None else indent
    line = start
    for number, part in enumerate(parts):
        end = joint if number < len(parts) - 1 else ""
        if len(line + part + end.rstrip()) > width and (line != start or indent < len(start)):
            yield Line(line.rstrip(), style)
            line = " " * indent
        line += part + end
    yield Line(line.rstrip(), style)


def _tests(count: int, which: str = "") -> str:
    return f"{count} {which}test{'s' * (count != 1)}"


def _counted(kinds: Counter[str]) -> str:
    if len(kinds) == 1:
        return next(iter(kinds))
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"

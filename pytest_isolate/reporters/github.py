"""In GitHub Actions: an annotation for each violation, and a summary of the step in Markdown.

Workflow commands: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from pytest_isolate.reporters.collect import Collected, Row
from pytest_isolate.reporters.signoff import Escape, SignOff
from pytest_isolate.units import format_duration, format_size
from pytest_isolate.violation import Violation, merge

__all__ = ["GitHub", "annotate", "is_here", "markdown"]

#: Of each level in a step; what is more, GitHub drops without a word.
MOST_ANNOTATIONS = 10
MOST_SUMMARY_BYTES = 2**20
MOST_ROWS = 100
_PLACE = re.compile(r"(?P<file>[^\0\n]+?):(?P<line>\d+)(?: \(.*\))?(?:, (?:pid|thread) .*)?")
_CUT = "\n\nThis summary was cut: GitHub takes 1 MiB.\n"


def is_here(environ: Mapping[str, str]) -> bool:
    """Not in a pytest that a test runs: its violations are the test's business."""
    return environ.get("GITHUB_ACTIONS") == "true" and "PYTEST_CURRENT_TEST" not in environ


class GitHub:
    """Plugin: prints the annotations, and appends to the step's summary."""

    def __init__(self, collected: Collected, sign_off: SignOff | None, top: int) -> None:
        self._collected = collected
        self._sign_off = sign_off
        self._top = top

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        rows = [*self._collected.rows.values()]
        terminalreporter.ensure_newline()
        for line in annotate(rows, config.rootpath, os.environ.get("GITHUB_WORKSPACE")):
            terminalreporter.write_line(line)
        path = os.environ.get("GITHUB_STEP_SUMMARY")
        if not path or not self._collected:
            return
        escapes = self._sign_off.escapes if self._sign_off is not None else None
        account = self._sign_off.summary() if self._sign_off is not None else None
        try:
            _append(path, markdown(self._collected, self._top, escapes, account))
        except OSError as error:
            why = f"cannot write the step's summary to {path}: {error.strerror}"
            terminalreporter.write_line(f"isolate: {why}", yellow=True)


# -- annotations ----------------------------------------------------------------------------------------


def annotate(rows: Iterable[Row], rootdir: Path, workspace: str | None) -> Iterator[str]:
    """A line each: errors for tests that failed, warnings for others; none for what is known."""
    counts: Counter[str] = Counter()
    for row in rows:
        level = "error" if row.outcome in ("failed", "error") else "warning"
        new = [violation for violation in row.deeds if not violation.known]
        for violation in merge(new, by_line=True):
            counts[level] += 1
            if counts[level] <= MOST_ANNOTATIONS:
                yield _annotation(level, row, violation, rootdir, workspace)
    more = sum(max(count - MOST_ANNOTATIONS, 0) for count in counts.values())
    if more:
        each = f"GitHub shows {MOST_ANNOTATIONS} of a level in each step"
        yield f"isolate: {more} more violations without an annotation: {each}"


def _annotation(level: str, row: Row, violation: Violation, rootdir: Path, workspace: str | None) -> str:
    found = _PLACE.fullmatch(violation.where)
    file, line = row.location
    if found is not None and (rootdir / found["file"]).is_file():
        file, line = found["file"], int(found["line"])
    properties = {
        "file": _in_workspace(rootdir / file, workspace),
        "line": str(line),
        "title": f"not hermetic: {row.nodeid}",
    }
    shown = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{level} {shown}::{_data(str(violation))}"


def _in_workspace(path: Path, workspace: str | None) -> str:
    """Relative to the checkout, as GitHub shows it at the line of a change."""
    if workspace and path.is_relative_to(workspace):
        return str(path.relative_to(workspace))
    return str(path)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


# -- the step's summary ---------------------------------------------------------------------------------


def _append(path: str, text: str) -> None:
    """Raises OSError. Earlier commands of the step may have written there."""
    with open(path, "ab") as file:
        room = max(MOST_SUMMARY_BYTES - file.tell(), 0)
        data = text.encode()
        if len(data) > room:
            end = _CUT.encode()
            cut = data[: max(room - len(end), 0)]
            data = (cut[: cut.rfind(b"\n") + 1] + end)[:room]
        file.write(data)


def markdown(
    collected: Collected,
    top: int,
    escapes: Sequence[Escape] | None = None,
    account: Mapping[str, object] | None = None,
) -> str:
    """``escapes`` and ``account``: of a strict run."""
    rows = [*collected.rows.values()]
    parts = [
        f"### pytest-isolate: {len(rows)} isolated test{'s' * (len(rows) != 1)}\n",
        _table(("", ""), _facts(rows, collected, escapes, account)),
        _violations(rows),
        _escapes(escapes),
        *_costliest(rows, top),
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _facts(
    rows: Sequence[Row],
    collected: Collected,
    escapes: Sequence[Escape] | None,
    account: Mapping[str, object] | None,
) -> Iterator[tuple[str, ...]]:
    for enforced, count in Counter(row.enforced for row in rows if row.has_run).most_common():
        namespaces = f"{' '.join(enforced.namespaces)} namespaces" if enforced.namespaces else "no namespaces"
        cgroup = f"cgroup {enforced.cgroup}" if enforced.cgroup else "no cgroup"
        yield f"enforced on {count}", f"{namespaces}, {enforced.root or 'no known'} root, {cgroup}"
    deeds = [violation for row in rows for violation in row.deeds]
    known = sum(violation.known for violation in deeds)
    yield "violations", f"{len(deeds) - known} new, {known} known"
    if escapes is not None and account is not None:
        most = account["escapes_max"]
        yield "escapes", f"{len(escapes)}" if most is None else f"{len(escapes)} of {most} allowed"
        yield "hash seed", str(account["hash_seed"])
    elif collected.opted_out:
        yield "not isolated", f"{len(collected.opted_out)} (not_isolated)"
    if degraded := sum(1 for row in rows if row.missing):
        yield "degraded", str(degraded)
    if collected.switched_off:
        yield "isolation off", f"{len(collected.switched_off)} unprotected"


def _violations(rows: Sequence[Row]) -> str:
    found = [
        (row, violation)
        for row in rows
        for violation in merge(row.deeds, by_line=True)
        if not violation.known
    ]
    if not found:
        return ""
    cells = ((row.nodeid, v.kind.value, v.counted, v.where, v.advice) for row, v in found[:MOST_ROWS])
    return _titled("Violations", ("test", "kind", "what", "where", "cure"), cells, len(found))


def _escapes(escapes: Sequence[Escape] | None) -> str:
    return _titled("Escapes", ("test", "escape"), escapes[:MOST_ROWS], len(escapes)) if escapes else ""


def _costliest(rows: Sequence[Row], top: int) -> Iterator[str]:
    if not top:
        return
    memory = sorted((row for row in rows if row.memory_peak_bytes), key=lambda r: -(r.memory_peak_bytes or 0))
    if memory:
        sizes = [(r.nodeid, _size(r.memory_peak_bytes), _size(r.memory_limit_bytes)) for r in memory[:top]]
        yield _titled("By memory", ("test", "peak", "limit"), sizes, len(sizes))
    cpu = sorted((row for row in rows if row.cpu_s), key=lambda row: -(row.cpu_s or 0))
    if cpu:
        times = [(row.nodeid, _time(row.cpu_s), _time(row.wall_s)) for row in cpu[:top]]
        yield _titled("By cpu", ("test", "cpu", "wall"), times, len(times))


def _titled(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]], count: int) -> str:
    more = f"\nand {count - MOST_ROWS} more\n" if count > MOST_ROWS else ""
    return f"#### {title}\n\n{_table(head, rows)}{more}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(map(_cell, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    """As it is, whatever a test has put into it."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|~@!])", r"\\\1", text)


def _optional(show: Callable[[float], str], value: float | None) -> str:
    return "" if value is None else show(value)


def _size(value: float | None) -> str:
    return _optional(lambda number: format_size(int(number)), value)


def _time(value: float | None) -> str:
    return _optional(format_duration, value)

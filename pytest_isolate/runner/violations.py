"""The violations of one test, from all who saw some; and what becomes of its reports.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

import pytest

from pytest_isolate.errors import ChannelError
from pytest_isolate.runner import pytest_private
from pytest_isolate.runner.definition import line_of_def
from pytest_isolate.sandbox.messages import Observed
from pytest_isolate.spec import Spec
from pytest_isolate.violation import MOST_VIOLATIONS, Violation, merge

__all__ = ["fail_for", "gather", "told", "told_pids"]

#: A process or thread without a command line.
BARE = re.compile(r"pid \d+|thread .*")


def told(messages: Iterable[Observed]) -> list[Violation]:
    """What the test's own process has seen, as far as there is room. Raises ValueError for what it would not
    say."""
    all_told = (violation for message in messages for violation in message.violations)
    return [Violation.from_told(violation) for violation in islice(all_told, MOST_VIOLATIONS)]


def told_pids(message: Observed) -> set[int]:
    """Of the processes among them. Raises ChannelError."""
    pids = message.facts.get("pids", [])
    if not isinstance(pids, list) or not all(type(pid) is int for pid in pids):
        raise ChannelError(f"no process ids: {str(pids)[:80]}")
    return set(pids)


def gather(found: Iterable[Violation], item: pytest.Item, spec: Spec) -> tuple[Violation, ...]:
    """Without what the Spec allows; the same thing at the same place is one, with its count."""
    counts: dict[Violation, int] = {}
    for violation in found:
        if violation.kind not in spec.allow:
            once = replace(violation, count=1, where=_place(violation.where, item))
            counts[once] = counts.get(once, 0) + violation.count
    order = sorted(counts, key=lambda violation: violation.kind.value)
    return tuple(replace(violation, count=counts[violation]) for violation in order)


def _place(where: str, item: pytest.Item) -> str:
    """Where nobody knows the line, the test's own; beside a bare process or thread, too."""
    path, lineno, _ = item.location
    name = getattr(item, "originalname", None) or item.name
    test = f"{path}:{line_of_def(str(item.config.rootpath / path), (lineno or 0) + 1, name)} ({name})"
    if not where:
        return test
    return f"{test}, {where}" if BARE.fullmatch(where) else where


def fail_for(
    item: pytest.Item, reports: list[pytest.TestReport], violations: tuple[Violation, ...]
) -> list[pytest.TestReport]:
    """The test failed for them, if nothing of it has failed by itself; else they are a section.

    So do tests that skip or are expected to fail: neither says that they may do what they like.
    """
    text = "\n".join(str(violation) for violation in merge(violations, by_line=True))
    failed = [report for report in reports if report.failed]
    for report in failed:
        report.sections.append(("isolate: violations", text))
    # Of the last attempt: its call, or its setup if it did not come further.
    last = next((report for report in reversed(reports) if report.when != "teardown"), None)
    if failed or last is None:
        return reports
    many = f"{len(violations)} violations" if len(violations) > 1 else "a violation"
    path, lineno, _ = item.location
    head = f"not hermetic: {many}"
    last.outcome = "failed"
    if hasattr(last, "wasxfail"):
        del last.wasxfail  # by which reporters know the one that may fail
    last.longrepr = pytest_private.long_repr(
        path, (lineno or 0) + 1, f"{head}: {violations[0]}", f"{head}\n{text}"
    )
    return reports

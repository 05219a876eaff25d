"""What a test wrote and left running, as violations: found from outside of its sandbox.

Where in the code it was, the test's own process may have said.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_isolate.kernel.leftover import Left
from pytest_isolate.outcome import Completed
from pytest_isolate.runner import cures, process_words
from pytest_isolate.runner.observe import clock, paths
from pytest_isolate.sandbox.changes import Change, Deed, Rules, changes_in
from pytest_isolate.sandbox.plan import Plan
from pytest_isolate.sandbox.written import Written, matcher
from pytest_isolate.violation import Kind, Violation

if TYPE_CHECKING:
    from pytest_isolate.runner.run import TestRun

__all__ = ["Deeds", "clock_of", "violations_of"]

#: Of one test. What is more is counted.
MOST_FILES = 20
LONGEST_PATH = 400  # so that the size behind it is not cut
#: A test that says more has not slept: it makes something up.
LONGEST_SLEEP_S = 1e12
MOST_READS = 2**32
SHARED_MEMORY = "/dev/shm/"
#: What Python, pytest and its plugins write while a test runs, wherever it is.
_MACHINERY = re.compile(
    r".*/(__pycache__|\.pytest_cache|\.hypothesis)(/.*)?|.*\.pyc|.*/\.coverage[^/]*",
    re.DOTALL,
)
_OF_PYTEST = "/tmp/pytest-of-"


class Deeds:
    """Of the tests of one sandbox: what each of them has changed since the one before it."""

    def __init__(self, plan: Plan, rootdir: str) -> None:
        self._plan = plan
        self._rootdir = rootdir
        self._known: dict[str, Change] = {}
        self._rules: Rules | None = None

    def new(self, written: Written | None) -> tuple[Change, ...]:
        """After :meth:`Written.count`. Raises OSError where the test made something that cannot be read."""
        if written is None or written.is_untouched or not self._plan.steps:
            return ()
        self._rules = self._rules or _rules(self._plan, self._rootdir)
        found = {c.path: c for c in changes_in(written.scratch_fd, written.layers, self._rules)}
        new = {path: change for path, change in found.items() if self._known.get(path) != change}
        earlier, self._known = self._known, found
        return tuple(
            replace(change, deed=Deed.CHANGED) if path in earlier and change.deed is Deed.CREATED else change
            for path, change in new.items()
        )


def _rules(plan: Plan, rootdir: str) -> Rules:
    is_named = matcher((*plan.spec.artifacts, *plan.spec.writes))
    scaffold = plan.scaffold
    project = posixpath.join(rootdir, "")

    def is_declared(path: str) -> bool:
        return (
            path in scaffold
            or _MACHINERY.fullmatch(path) is not None
            or (path.startswith(_OF_PYTEST) and not path.startswith(project))
            or is_named(path)
        )

    return Rules(is_declared, scaffold, is_named)


def violations_of(run: TestRun) -> Iterator[Violation]:
    """Of a test that has ended."""
    places: dict[str, Any] = {}
    names: set[str] = set()
    for message in run.transcript.observed:
        places |= message.places
        names.update(_made_up(message.facts.get("made_up")))
    rootdir = str(run.item.config.rootpath)
    yield from run.seen
    yield from _files(run.changes, places, rootdir, names)
    if isinstance(run.outcome, Completed):
        yield from _processes(run.left, rootdir, names)


def clock_of(run: TestRun) -> tuple[float | None, int | None]:
    """How long it slept, and how often it asked for the time of day, as far as its process said; None where
    Python does not tell, or the process died."""
    if not clock.is_told() or not isinstance(run.outcome, Completed):
        return None, None
    told = [message.facts for message in run.transcript.observed]
    slept = [facts.get("slept_s", 0.0) for facts in told]
    reads = [facts.get("clock_reads", 0) for facts in told]
    return (
        math.fsum(seconds for seconds in slept if type(seconds) is float and 0 <= seconds <= LONGEST_SLEEP_S),
        sum(count for count in reads if type(count) is int and 0 <= count < MOST_READS),
    )


def _made_up(told: object) -> Iterator[str]:
    """Names that are none of the project's: from the test's own process, which could send anything."""
    for name in told if isinstance(told, list) else ():
        if isinstance(name, str) and paths.MADE_UP.fullmatch(name):
            yield name


def _files(
    changes: Iterable[Change], places: Mapping[str, Any], rootdir: str, names: Collection[str]
) -> Iterator[Violation]:
    """``places``: by path, from the test's own process."""
    changes = [*changes]
    files = [change for change in changes if not change.path.startswith(SHARED_MEMORY)]
    for change in changes:
        if change.path.startswith(SHARED_MEMORY):
            what, name = _shared(paths.shown(change.path, rootdir, names))
            yield Violation(kind=Kind.IPC, what=f"left {what} {name}", cure=cures.allow(Kind.IPC))
    for change in files[:MOST_FILES]:
        yield Violation(
            kind=Kind.FILES,
            what=_describe(change, paths.shown(change.path, rootdir, names)),
            where=_place(change.path, places),
            cure=_cure(change, paths.as_glob(change.path, rootdir, names)),
        )
    if (more := len(files) - MOST_FILES) > 0:
        yield Violation(kind=Kind.FILES, what="wrote more", cure=cures.allow(Kind.FILES), count=more)


def _cure(change: Change, glob: str) -> str:
    """A directory itself is written to where it goes away; else it is there for what is in it."""
    is_gone = change.deed in (Deed.DELETED, Deed.REPLACED)
    globs = [glob] * (is_gone or not change.is_directory)
    globs += [f"{glob}/**"] * (change.is_directory and change.deed is not Deed.DELETED)
    return cures.writes(globs) or cures.allow(Kind.FILES)


def _processes(left: Iterable[Left], rootdir: str, names: Collection[str]) -> Iterator[Violation]:
    """Those that the test's own process did not tell of."""
    told = [process for process in left if not process_words.is_harmless(process.command)]
    shown = ((paths.shown_command(each.command, rootdir, names), f"pid {each.pid}") for each in told)
    yield from process_words.describe(shown, len(told))


def _describe(change: Change, path: str) -> str:
    if len(path) > LONGEST_PATH:
        path = f"{path[:LONGEST_PATH]}…"
    path += "/" * change.is_directory
    size = f"{change.size_bytes} byte{'s' * (change.size_bytes != 1)}"
    if change.deed in (Deed.DELETED, Deed.RIGHTS):
        return f"{change.deed.value} {path}"
    if change.is_directory:
        return f"{change.deed.value} {path} ({change.files} file{'s' * (change.files != 1)}, {size})"
    return f"{change.deed.value} {path} ({size})"


def _shared(path: str) -> tuple[str, str]:
    name = path.removeprefix(SHARED_MEMORY)
    if name.startswith("sem."):  # sem_overview(7)
        return "a POSIX semaphore", f"/{name[4:]}"
    return "POSIX shared memory", f"/{name}"


def _place(path: str, places: Mapping[str, Any]) -> str:
    """Of the path itself, else of the directory that it was changed with, else of something in it."""
    outer = path
    while outer != "/":
        if isinstance(place := places.get(outer), str):
            return place
        outer = posixpath.dirname(outer)
    inside = (place for name, place in places.items() if name.startswith(f"{path}/"))
    return next((place for place in inside if isinstance(place, str)), "")

"""Paths of audit events, which are whatever the audited call was given; and how paths and commands read in
each run, for each user and on each machine."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import deque
from collections.abc import Iterable
from types import FrameType
from typing import Any

from pytest_isolate.kernel.leftover import own_command
from pytest_isolate.runner.observe import audit

__all__ = ["MADE_UP", "absolute", "as_glob", "begin", "made_up", "note_made_up", "shown", "shown_command"]

#: What ``tempfile`` makes up between a prefix and a suffix (_RandomNameSequence).
MADE_UP = re.compile(r"[a-z0-9_]{8}")
MOST_MADE_UP = 500
#: The same where nobody has seen it being made, as in a subprocess: by the prefix that all get who name none;
#: and what multiprocessing.shared_memory makes up.
_TEMPORARY = re.compile(r"(/tmp)[a-z0-9_]{8}(?![A-Za-z0-9_])|(/psm_)[0-9a-f]{8}(?![A-Za-z0-9_])")
_SESSION = re.compile(r"((?:/[^/\s]+)*)/pytest-of-[^/\s]+/pytest-\d+/(popen-gw\d+/)?")
#: Where a path begins in a command: --file=/x, -I/x.
_BEGIN = r"(?:(?<![\w./~-])|(?<=\s-[A-Za-z]))"
_END = r"(?![\w.-])"

#: Of the process of a test, and kept from test to test: a later one may write to an earlier one's directory.
_made_up: deque[str] = deque(maxlen=MOST_MADE_UP)
_basetemp = ""


def absolute(path: object) -> str | None:
    """None for a descriptor, and where the current directory is not known."""
    if type(path) is not str:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return None
        path = os.fsdecode(path)
    if path.startswith("/") and "/." not in path and "//" not in path:
        return path
    try:
        return os.path.abspath(path)
    except OSError:
        return None


def note_made_up(args: tuple[Any, ...]) -> None:
    """The events of ``tempfile`` have a path; which part of it is made up is a variable of their caller's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") != "tempfile":
        frame = frame.f_back
    name = frame.f_locals.get("name") if frame is not None else None
    if isinstance(name, bytes):
        name = name.decode(errors="replace")
    if isinstance(name, str) and MADE_UP.fullmatch(name) and name not in _made_up:
        _made_up.append(name)


def made_up() -> list[str]:
    """The names that ``tempfile`` has made up in this process."""
    return [*_made_up]


def begin(basetemp: str | None) -> None:
    """In pytest, which has made tmp_path's base directory; forks of it are the tests."""
    global _basetemp  # noqa: PLW0603
    _basetemp = basetemp or ""
    for event in ("tempfile.mkstemp", "tempfile.mkdtemp"):
        audit.listen(event, note_made_up)


def shown(text: str, rootdir: str, names: Iterable[str] = _made_up) -> str:
    """A path, or a text with some: relative to rootdir or to the home directory, and without the names that
    pytest and ``tempfile`` make up, of which ``names`` are known."""
    # A name may hold any bytes.
    text = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    bases = ((rootdir, ""), (_basetemp, "tmp_path/"), (os.path.expanduser("~"), "~/"))
    for base, short in sorted(bases, key=lambda each: -len(each[0])):  # one may be in the other
        text = _relative(text, base, short)
    return _SESSION.sub("tmp_path/", _without(text, names))


def shown_command(command: str, rootdir: str, names: Iterable[str] = _made_up) -> str:
    if command == own_command():
        return "a fork of the test"
    directory = os.path.dirname(sys.executable)
    found = {re.escape(each) for each in (directory, os.path.dirname(os.path.realpath(sys.executable)))}
    if directory:
        command = re.sub(rf"{_BEGIN}(?:{'|'.join(sorted(found))})/python[\d.]*{_END}", "python", command)
    if directory and sys.prefix != sys.base_prefix:  # the scripts of a virtual environment
        command = re.sub(rf"{_BEGIN}{re.escape(directory)}/", "", command)
    return shown(command, rootdir, names)


def as_glob(path: str, rootdir: str, names: Iterable[str] = _made_up) -> str:
    """What names a path in the next run, too."""
    text = re.sub("[\udc80-\udcff]", "?", glob.escape(path))  # bytes that are no text
    text = _relative(text, glob.escape(rootdir), "")
    text = _relative(text, glob.escape(os.path.expanduser("~")), "~/")
    return _SESSION.sub(
        lambda found: f"{found[1]}/pytest-of-*/pytest-*/{'popen-gw*/' if found[2] else ''}",
        _without(text, names),
    )


def _relative(text: str, base: str, short: str) -> str:
    if len(base) < 2 or base not in text:
        return text
    alone = short.rstrip("/") or "."
    return re.sub(rf"{_BEGIN}{re.escape(base)}(/|{_END})", lambda found: short if found[1] else alone, text)


def _without(text: str, names: Iterable[str]) -> str:
    for name in names:
        text = text.replace(name, "*")
    return _TEMPORARY.sub(lambda found: f"{found[1] or found[2]}*", text)

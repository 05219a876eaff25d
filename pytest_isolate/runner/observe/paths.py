"""Paths of audit events, which are whatever the audited call was given."""

from __future__ import annotations

import os
import re

__all__ = ["absolute", "shown"]

_SESSION = re.compile(r".*/pytest-of-[^/]+/pytest-\d+/")
_MADE_UP = re.compile(r"(/tmp)[a-z0-9_]{8}(?=[./]|$)")  # tempfile.py, template and _RandomNameSequence


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


def shown(path: str, rootdir: str) -> str:
    """As it reads in each run and for each user: relative to rootdir or to the home directory, and without
    the names that pytest and ``tempfile`` make up."""
    text = os.fsencode(path).decode(errors="backslashreplace")  # a name may hold any bytes
    for base, short in ((rootdir, ""), (os.path.expanduser("~"), "~/")):
        outer = os.path.join(base, "")
        if len(outer) > 1 and text.startswith(outer):
            text = short + text[len(outer) :]
            break
    return _SESSION.sub("tmp_path/", _MADE_UP.sub(r"\1*", text)) if "tmp" in text else text

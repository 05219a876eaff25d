"""``--isolate-json``: one JSON object per isolated test and line, written as each test ends."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pytest_isolate.reporters.collect import Record

__all__ = ["JsonLines"]

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class JsonLines:
    """A file of records. After a failed write it takes no more, and ``error`` says why."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self.error = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append(b"", os.O_TRUNC)
        except OSError as error:
            raise pytest.UsageError(f"--isolate-json: cannot write {path}: {error.strerror}") from error

    def write(self, record: Record) -> None:
        if self.error:
            return
        try:
            self._append(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            self.error = error.strerror or str(error)
        else:
            self.lines += 1

    def _append(self, data: bytes, flags: int = 0) -> None:
        # Opened for each line: a descriptor that stays open would be inherited by every isolated test, which
        # could then write to this file of the host.
        fd = os.open(self.path, _APPEND | flags, 0o666)
        try:
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)

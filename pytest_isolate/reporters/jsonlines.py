"""``--isolate-json``: one JSON object per isolated test and line, written as each test ends.

Of a strict run a summary is the last line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_isolate.account import Checksum
from pytest_isolate.reporters.collect import Record

__all__ = ["JsonLines"]

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class JsonLines:
    """A file of records. After a failed write it takes no more, and ``error`` says why."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self.error = ""
        self._checksum = Checksum()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append(b"", os.O_TRUNC)
        except OSError as error:
            raise pytest.UsageError(f"--isolate-json: cannot write {path}: {error.strerror}") from error

    def write(self, record: Record) -> None:
        self._write(json.dumps(record, separators=(",", ":")).encode() + b"\n")

    def close(self, summary: Mapping[str, Any]) -> None:
        """After the last record of a strict run."""
        self._write(self._checksum.last_line(summary))

    def _write(self, line: bytes) -> None:
        if self.error:
            return
        try:
            self._append(line)
        except OSError as error:
            self.error = error.strerror or str(error)
        else:
            self._checksum.add(line)
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

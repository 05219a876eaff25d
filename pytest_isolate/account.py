"""The last line of the records of a strict run: what was done in all, and a checksum over all before it.

The checksum shows that a file was cut or changed by accident or by hand. It is no signature: who can write
the file can compute it as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_isolate.errors import IsolateError

__all__ = ["SCHEMA", "Account", "AccountError", "Checksum", "read"]

SCHEMA = 1


class AccountError(IsolateError):
    """A file of records is not complete, was changed, or is none."""


class Checksum:
    """Of the lines of a file, as they are written."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        self._hash.update(data)

    def last_line(self, summary: Mapping[str, Any]) -> bytes:
        text = _dumps(summary)
        digest = self._hash.copy()
        digest.update(text)
        return b'{"schema":%d,"summary":%b,"sha256":"%b"}\n' % (SCHEMA, text, digest.hexdigest().encode())


@dataclass(frozen=True, slots=True)
class Account:
    summary: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...] = field(repr=False)


def read(path: Path) -> Account:
    """Raises AccountError unless the file is whole and unchanged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AccountError(f"cannot read {path}: {error.strerror}") from None
    if not data:
        raise AccountError(f"{path} is empty: no test has ended, or the run was killed")
    if not data.endswith(b"\n"):
        raise AccountError(f"{path} is cut off in its last line")
    *lines, last = data.splitlines(keepends=True)
    try:
        records = [json.loads(line) for line in lines]
        end = json.loads(last)
    except (ValueError, RecursionError) as error:
        raise AccountError(f"{path} is not JSON Lines: {error}") from None
    if not all(isinstance(record, dict) for record in [*records, end]):
        raise AccountError(f"{path} holds what is no record")
    summary = end.get("summary")
    if not isinstance(summary, dict):
        why = "the run was killed, or had no --isolate-strict"
        raise AccountError(f"{path} has no summary in its last line: {why}")
    if any("summary" in record for record in records):
        raise AccountError(f"{path} has more than one summary: it is put together from several files")
    checksum = Checksum()
    for line in lines:
        checksum.add(line)
    if checksum.last_line(summary) != last:
        raise AccountError(f"{path} is not as it was written: its checksum differs")
    return Account(summary, tuple(records))


def _dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()

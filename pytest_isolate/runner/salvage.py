"""What is copied out of a sandbox when it ends: artifacts, and all of it for somebody to look at."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from pytest_isolate.sandbox.plan import DEFAULT_TMP_SIZE_BYTES
from pytest_isolate.sandbox.written import Copied, Written
from pytest_isolate.spec import Spec
from pytest_isolate.units import format_size

__all__ = ["Salvaged", "salvage"]

KEPT = "isolate-kept"
LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class Salvaged:
    kept: str | None = None  #: the directory
    artifacts: int | None = None  #: files that were copied out, if any were asked for
    text: str = ""  #: for the report
    warnings: tuple[str, ...] = ()


def salvage(written: Written, spec: Spec, *, keep_in: str | None, name: str) -> Salvaged:
    """Copy out what ``spec`` asks for; and if ``keep_in`` is given everything, into a new directory there."""
    budget_bytes = spec.limits.tmp_size_bytes or DEFAULT_TMP_SIZE_BYTES
    warnings: tuple[str, ...] = ()
    artifacts = None
    if spec.artifacts:
        copied = written.copy_artifacts(spec.artifacts, budget_bytes)
        artifacts = copied.files
        warnings += tuple(f"an artifact of this test is lost: {problem}" for problem in copied.problems)
    if keep_in is None:
        return Salvaged(artifacts=artifacts, warnings=warnings)
    below = _free_name(keep_in, name)
    copied = written.keep(keep_in, below, budget_bytes)
    warnings += tuple(f"could not keep a file of this test: {problem}" for problem in copied.problems)
    if copied.files == 0:
        return Salvaged(artifacts=artifacts, warnings=warnings)
    directory = os.path.join(keep_in, below)
    text = f"{_amount(copied)} that the test wrote: kept in {directory}"
    return Salvaged(directory, artifacts, text, warnings)


def _free_name(base: str, name: str) -> str:
    """As pytest names ``tmp_path``."""
    stem = re.sub(r"\W", "_", name)[:LONGEST_NAME]
    number = 0
    while os.path.lexists(os.path.join(base, KEPT, f"{stem}-{number}")):
        number += 1
    return f"{KEPT}/{stem}-{number}"


def _amount(copied: Copied) -> str:
    return f"{copied.files} file{'s' * (copied.files != 1)} ({format_size(copied.size_bytes)})"

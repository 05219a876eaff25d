"""syrupy: which snapshots a test has used, for without that syrupy takes them for unused, and deletes them.

``--snapshot-update`` writes to the sandbox's files; they reach the source tree where the user bound it.
``SnapshotSession`` and ``SnapshotAssertion`` (syrupy 4 and 5).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pytest_isolate.runner import replay
from pytest_isolate.runner.isolation import current_isolation

__all__ = ["begin", "collect", "deliver"]

RESULT = ("snapshot_location", "snapshot_name", "created", "updated", "success")


def _session(config: pytest.Config) -> Any:
    return getattr(config, "_syrupy", None)


def begin(config: pytest.Config, send: Callable[[dict[str, Any]], None]) -> None:
    session = _session(config)
    if session is not None:
        session._assertions.clear()


def collect(item: pytest.Item) -> Iterable[dict[str, Any]]:
    session = _session(item.config)
    if session is None:
        return
    session.flush_snapshot_write_queue()
    for assertion in session._assertions:
        extension = type(assertion.extension)
        results = [[getattr(r, name) for name in RESULT] for r in assertion.executions.values()]
        written = {location for location, _, created, updated, _ in results if created or updated}
        yield {
            "extension": [extension.__module__, extension.__qualname__],
            "results": results,
            "stranded": sorted({os.path.dirname(path) for path in written if not _reaches_host(path)}),
        }
    session._assertions.clear()


def _reaches_host(path: str) -> bool:
    binds = [
        bind for bind in current_isolation().spec.binds if path.startswith(bind.target.rstrip("/") + "/")
    ]
    return bool(binds) and not max(binds, key=lambda bind: len(bind.target)).readonly


def _extension(module: str, name: str) -> type:
    """One that is imported already, and nothing but one: a child may name anything."""
    found = getattr(sys.modules[module], name)
    if isinstance(found, type) and issubclass(
        found, sys.modules["syrupy.extensions.base"].AbstractSyrupyExtension
    ):
        return found
    raise TypeError(f"{module}.{name} is no extension of syrupy")


def deliver(item: pytest.Item, data: dict[str, Any]) -> None:
    assertion_module = sys.modules["syrupy.assertion"]
    location = sys.modules["syrupy.location"].PyTestLocation(item)
    assertion = assertion_module.SnapshotAssertion(
        session=_session(item.config),
        extension_class=_extension(*data["extension"]),
        test_location=location,
        update_snapshots=item.config.getoption("update_snapshots"),
    )
    for index, values in enumerate(data["results"]):
        assertion.executions[index] = assertion_module.AssertionResult(
            **dict(zip(RESULT, values, strict=True)),
            asserted_data="",
            recalled_data="",
            exception=None,
            test_location=location,
        )
    for directory in data["stranded"]:
        parent = os.path.dirname(directory)
        replay.warn(
            item,
            f"syrupy wrote to {directory} inside the sandbox, and it was thrown away; "
            f"to keep it add --isolate-binds={parent}:{parent}",
        )

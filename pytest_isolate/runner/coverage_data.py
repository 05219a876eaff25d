"""Coverage of what a child ran, as plain data: without it a forked test would count as never run.

Not by ``CoverageData.dumps`` and ``loads``: the latter runs SQL that came from the child.
"""

from __future__ import annotations

import sys
from typing import Any

from pytest_isolate.sandbox.messages import Coverage

__all__ = ["collect", "merge", "settings", "start"]

#: What decides what is measured, as ``Coverage.get_option`` names it.
SETTINGS = (
    "branch",
    "source",
    "source_pkgs",
    "include",
    "omit",
    "cover_pylib",
    "timid",
    "concurrency",
    "relative_files",
    "context",
    "dynamic_context",
    "plugins",
)


def _current() -> Any:
    """The running ``coverage.Coverage``, whoever started it; None if nobody did (or its API is too old)."""
    module = sys.modules.get("coverage")
    cls = getattr(module, "Coverage", None)
    return cls.current() if cls is not None and hasattr(cls, "current") else None


def settings() -> dict[str, Any] | None:
    """How coverage is measured here, in JSON's own types; None if it is not."""
    cov = _current()
    if cov is None:
        return None
    return {name: cov.get_option(f"run:{name}") for name in SETTINGS} | {
        "config_file": cov.config.config_file
    }


def start(found: dict[str, Any]) -> None:
    """In a fresh interpreter: measure as :func:`settings` found it."""
    import coverage

    found = dict(found)
    cov = coverage.Coverage(data_file=None, config_file=found.pop("config_file") or False)
    for name, value in found.items():
        cov.set_option(f"run:{name}", value)
    cov.start()


def begin() -> None:
    """In the child: what is measured in it goes to pytest, and to no file of the project, which may be
    read-only. Of itself coverage would open one for each process that it finds itself in."""
    data: Any = getattr(_current(), "_data", None)
    if hasattr(data, "_no_disk") and hasattr(data, "_pid"):  # since coverage 5.0
        data._no_disk = True
        data._pid = 0  # as after a fork: it looks for another file


_collected: dict[tuple[str, str], set[Any]] = {}


def collect() -> list[Coverage]:
    """In the child, after each test: what was measured since the last call, one message per context."""
    cov = _current()
    if cov is None:
        return []
    data = cov.get_data()
    has_arcs = bool(data.has_arcs())
    messages = []
    for context in sorted(data.measured_contexts()):
        data.set_query_context(context)
        read = data.arcs if has_arcs else data.lines
        files = {}
        for name in data.measured_files():
            known = _collected.setdefault((context, name), set())
            if new := set(read(name) or ()) - known:
                known |= new
                files[name] = sorted(new)
        messages.append(Coverage(context, has_arcs, files))
    return messages


def merge(message: Coverage) -> None:
    """In the parent: add what a child measured to what is measured here. Wrong data is refused with an
    exception of coverage's own or a TypeError."""
    cov = _current()
    if cov is None:
        return
    data = cov.get_data()
    # Not by CoverageData.update: files of xdist's workers are told apart by a hash of what was added.
    data.set_context(message.context or None)
    try:
        if message.has_arcs:
            data.add_arcs({name: [(int(a), int(b)) for a, b in arcs] for name, arcs in message.files.items()})
        else:
            data.add_lines({name: [int(line) for line in lines] for name, lines in message.files.items()})
    finally:
        # Between tests there is no dynamic context, only the configured one.
        data.set_context(cov.get_option("run:context"))

"""pytest-benchmark: each measured duration, from which the parent makes its tables and files.

``BenchmarkSession.benchmarks`` and ``Metadata`` (pytest-benchmark 4 and 5).
"""

from __future__ import annotations

import pstats
import sys
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

__all__ = ["begin", "collect", "deliver"]

#: A message is bounded: 20 bytes each.
DURATIONS_PER_MESSAGE = 10**6
FIELDS = ("name", "fullname", "group", "param", "params", "extra_info", "iterations", "has_error")


def _benchmarks(config: pytest.Config) -> Any:
    session = getattr(config, "_benchmarksession", None)
    return session.benchmarks if session is not None else []


def begin(config: pytest.Config, send: Callable[[dict[str, Any]], None]) -> None:
    _benchmarks(config).clear()


def collect(item: pytest.Item) -> Iterable[dict[str, Any]]:
    benchmarks = _benchmarks(item.config)
    for benchmark in benchmarks:
        options = benchmark.as_dict(stats=False)["options"]
        durations = benchmark.stats.data
        yield {
            **{name: getattr(benchmark, name) for name in FIELDS},
            "options": {name: _plain(value) for name, value in options.items()},
            "profile": _profile(benchmark.cprofile_stats),
            "durations": durations[:DURATIONS_PER_MESSAGE],
        }
        for at in range(DURATIONS_PER_MESSAGE, len(durations), DURATIONS_PER_MESSAGE):
            yield {"durations": durations[at : at + DURATIONS_PER_MESSAGE]}
    benchmarks.clear()


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _profile(stats: pstats.Stats | None) -> list[list[Any]] | None:
    """Without the callers, which no table of pytest-benchmark shows."""
    if stats is None:
        return None
    return [[*place, *figures[:4]] for place, figures in stats.stats.items()]  # type: ignore[attr-defined]


def deliver(item: pytest.Item, data: dict[str, Any]) -> None:
    benchmarks = _benchmarks(item.config)
    if "name" in data:
        fixture = SimpleNamespace(**{name: data[name] for name in FIELDS}, cprofile_stats=None)
        if data["profile"] is not None:
            fixture.cprofile_stats = pstats.Stats()
            fixture.cprofile_stats.stats = {
                (file, line, name): (*figures, {}) for file, line, name, *figures in data["profile"]
            }
        metadata = sys.modules["pytest_benchmark.stats"].Metadata
        benchmarks.append(metadata(fixture, iterations=data["iterations"], options=data["options"]))
    benchmarks[-1].stats.data += map(float, data["durations"])

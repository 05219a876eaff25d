"""Every inner run is a process of its own: it forks, and the outer pytest shall not."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_isolate.kernel.cgroups import prepare_leaf

from .. import on_demand

TIME_SCALE = float(os.environ.get("TEST_TIME_SCALE", "1"))  # 25 in the virtual machine


class Run:
    """The result of an inner run: pytest's own, the records, and of a strict run the summary."""

    def __init__(self, result: pytest.RunResult, lines: list[dict[str, Any]]) -> None:
        self.result = result
        self.records = [line for line in lines if "nodeid" in line]
        self.summary: dict[str, Any] = next((line["summary"] for line in lines if "summary" in line), {})
        self.outcomes = result.parseoutcomes()
        self.out = result.stdout.str()

    def record(self, name: str) -> dict[str, Any]:
        (found,) = (r for r in self.records if r["nodeid"].endswith(f"::{name}"))
        return found


@pytest.fixture(scope="package", autouse=True)
def _room_for_cgroups() -> Iterator[None]:
    """cgroup2 grants limits to who is alone in its cgroup, and inner runs share this process's: they are to
    be born in its leaf, as xdist's workers are."""
    leave = prepare_leaf()
    yield
    leave()


@pytest.fixture(autouse=True)
def _few_plugins(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "pytester" in request.fixturenames:
        request.getfixturevalue("pytester")  # discards the variables
    for name, value in on_demand.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for mark in request.node.iter_markers("knows"):
        monkeypatch.setenv("PYTEST_ADDOPTS", f"{os.environ['PYTEST_ADDOPTS']} -p {mark.args[0]}")


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Write a test module and run it: ``run("def test(): …", "--isolate-all")``."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def run(source: str, *args: str, name: str = "test_it", all_tests: bool = True) -> Run:
        pytester.makepyfile(**{name: source})
        path = pathlib.Path(pytester.path, "records.jsonl")
        path.unlink(missing_ok=True)
        switches = ["--isolate-all"] if all_tests else []
        result = pytester.runpytest_subprocess(
            *switches, f"--isolate-json={path}", "-p", "no:cacheprovider", *args, timeout=180 * TIME_SCALE
        )
        records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return Run(result, records)

    return run


Both = Callable[..., tuple[Run, Run]]


@pytest.fixture
def both(run: Callable[..., Run]) -> Both:
    """The same run twice: without isolation, and with it."""

    def both(source: str, *args: str) -> tuple[Run, Run]:
        return run(source, "--isolate-off", *args), run(source, *args)

    return both

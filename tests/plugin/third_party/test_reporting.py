"""Plugins that report: pytest-html and pytest-json-report."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from ..conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

#: What differs from run to run, or is isolation's.
VARYING = {
    "duration",
    "created",
    "msecs",
    "relativeCreated",
    "process",
    "thread",
    "environment",
    "user_properties",
}


def without_varying(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_varying(inner) for key, inner in value.items() if key not in VARYING}
    return [without_varying(inner) for inner in value] if isinstance(value, list) else value


def test_html(run: Runner, pytester: pytest.Pytester) -> None:
    pytest.importorskip("pytest_html")
    source = """
        from pytest_html import extras as kinds

        def test_pass(extras):
            extras.append(kinds.text("an extra of the test"))
            print("printed")

        def test_fail(): assert 0
    """
    plugins = [word for name in ("metadata", "html", "html_fixtures") for word in ("-p", name)]
    tables = []
    for mode in ("--isolate-off", "--isolate-all"):
        run(source, mode, *plugins, "--html=report.html", "--self-contained-html", all_tests=False)
        text = (pytester.path / "report.html").read_text()
        (blob,) = re.findall(r'data-jsonblob="([^"]*)"', text)
        tests = json.loads(html.unescape(blob))["tests"]
        for rows in tests.values():
            for row in rows:
                row["resultsTableRow"] = [cell for cell in row["resultsTableRow"] if "duration" not in cell]
        tables.append(without_varying(tests))
    assert tables[0] == tables[1]
    assert [extra["name"] for extra in tables[1]["test_it.py::test_pass"][0]["extras"]] == ["Text"]
    assert "printed" in str(tables[1])


def test_json_report(run: Runner, pytester: pytest.Pytester) -> None:
    pytest.importorskip("pytest_jsonreport")
    source = """
        import logging, warnings

        def test_metadata(json_metadata):
            json_metadata["mine"] = {"a": [1]}
            print("printed")

        def test_fail():
            logging.warning("logged")
            assert 0

        def test_warns(): warnings.warn("careful")
    """
    found = []
    for mode in ("--isolate-off", "--isolate-all"):
        plugins = ("-p", "metadata", "-p", "pytest_jsonreport", "--json-report")
        run(source, mode, *plugins, all_tests=False)
        found.append(json.loads((pytester.path / ".report.json").read_text()))
    plain, isolated = map(without_varying, found)
    for key in ("tests", "warnings", "summary", "exitcode"):
        assert plain[key] == isolated[key]
    assert isolated["tests"][0]["metadata"] == {"mine": {"a": [1]}}

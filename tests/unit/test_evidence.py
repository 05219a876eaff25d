"""What a child says of itself, made a level of."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_isolate.evidence import Evidence
from pytest_isolate.runner import hints

HOST = {"user": 1, "net": 2}


def evidence(told: dict[str, Any]) -> Evidence:
    return Evidence.from_told(told, host=HOST, cgroup=None, missing=("x is not available",))


@pytest.mark.parametrize(
    ("told", "level"),
    [
        ({"namespaces": {"user": 7, "net": 2}, "confined": []}, "namespaces"),
        ({"namespaces": {"user": 7, "net": 2}, "confined": ["files"]}, "namespaces"),
        ({"namespaces": HOST, "confined": ["files", "network"]}, "landlock"),
        ({"namespaces": HOST, "confined": ["network"]}, "fork"),
        ({"namespaces": HOST}, "fork"),
    ],
)
def test_the_level_is_what_was_read_back(told: dict[str, Any], level: str) -> None:
    assert evidence(told).level == level
    assert evidence(told).to_dict()["level"] == level


def test_a_test_that_did_not_run_has_none() -> None:
    assert Evidence().to_dict()["level"] is None
    assert hints.level(Evidence()) == ""


def test_a_failure_is_told_of_what_was_refused_and_of_nothing_else() -> None:
    assert hints.level(evidence({"namespaces": {"user": 7}})) == ""
    text = hints.level(evidence({"namespaces": HOST, "confined": ["network"]}))
    assert text.startswith(
        "it ran at level fork, without namespaces: EACCES or EPERM may be the answer to a socket"
    )
    assert "tmp_path" not in text
    assert text.endswith("\nx is not available")
    bare = hints.level(evidence({"namespaces": HOST}))
    assert bare == "it ran at level fork, without namespaces\nx is not available"

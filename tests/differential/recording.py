"""What one run told: read from the recorder's file, normalised, and put together per test."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.differential.normalise import normalise

__all__ = ["SESSION", "Facts", "Recording", "load"]

#: The name under which the facts of no test stand.
SESSION = "(session)"
OURS = "isolate."

#: What is compared, by what it is: "setup longrepr", "warnings", …; each as lines of text.
Facts = dict[str, list[str]]


@dataclass(slots=True)
class Recording:
    exit_code: int
    wall_s: float
    facts: dict[str, Facts]  #: by nodeid, and SESSION
    order: list[str] = field(default_factory=list)

    @property
    def tests(self) -> int:
        return len(self.facts.keys() - {SESSION})


def load(
    path: Path, exit_code: int, wall_s: float, files: dict[str, str], *, tree: Path, ordered: bool
) -> Recording:
    """``files``: what else a run left, by name; ``tree``: the directory it ran in, which pytest names in full as long
    as the working directory is another; ``ordered``: whether the order of tests means something."""

    def lines(text: str) -> list[str]:
        return normalise(text.replace(f"{tree}/", "")).splitlines() or [""]

    facts: dict[str, Facts] = defaultdict(lambda: defaultdict(list))
    order: list[str] = []
    for event in _events(path):
        nodeid = event.get("nodeid") or SESSION
        if event["kind"] == "start" and nodeid not in order[-1:]:
            order.append(nodeid)
        for what, line in _facts(event):
            facts[nodeid][what] += lines(line)
    session = facts[SESSION]
    session["exit code"] = [str(exit_code)]
    for name, text in files.items():
        session[name] = lines(text)
    if ordered:
        session["order"] = order
    for of_test in facts.values():
        for what in ("warnings", "keywords"):  # of no order
            if what in of_test:
                of_test[what].sort()
    return Recording(exit_code, wall_s, {name: dict(of_test) for name, of_test in facts.items()}, order)


def _events(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def _facts(event: dict[str, Any]) -> Iterator[tuple[str, str]]:
    match event["kind"]:
        case "start" | "finish":
            yield "log", event["kind"]
        case "status":
            yield "status", f"{event['when']}: {event['status']}"
        case "report":
            yield from _report_facts(event)
        case "warning":
            text = (
                f"{event['when']} {event['place']} {event['category']}: {event['text']} {event['location']}"
            )
            yield "warnings", text
        case "collect":
            yield "collection", f"{event['outcome']}\n{event['longrepr']}"
        case "end":
            yield "end", f"{event['collected']} collected, {event['failed']} failed, stop {event['stop']}"
        case kind:
            yield kind, event["text"]


def _report_facts(event: dict[str, Any]) -> Iterator[tuple[str, str]]:
    when = event["when"]
    subtest = f" {event['subtest']}" if event["subtest"] else ""
    xfail = "" if event["wasxfail"] is None else f" xfail: {event['wasxfail']!r}"
    yield "outcome", f"{event['type']} {when}: {event['outcome']}{xfail}{subtest}"
    if event["longrepr"] is not None:
        yield f"{when} longrepr", event["longrepr"]
    for title, text in event["sections"]:
        yield f"{when} sections", f"-- {title} --\n{text}"
    for name, value in event["properties"]:
        if not str(name).startswith(OURS):
            yield f"{when} properties", f"{name} = {value}"
    yield f"{when} location", str(event["location"])
    for keyword in event["keywords"]:
        yield "keywords", f"{when} {keyword}"

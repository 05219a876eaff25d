"""How a strict run ends: with its account, and with a failure if there are more escapes than are allowed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pytest_isolate.baseline import Baseline, known_as, refresh_command
from pytest_isolate.reporters.collect import Collected, Record
from pytest_isolate.reporters.jsonlines import JsonLines
from pytest_isolate.reporters.line import Line
from pytest_isolate.reporters.tables import shorten
from pytest_isolate.runner.record import NEVER_RAN
from pytest_isolate.strict import HASH_SEED

__all__ = ["Escape", "SignOff", "hash_seed"]

_EVIDENCE = ("namespaces", "root", "cgroup", "capabilities", "no_new_privs", "seccomp")
_MOST_STALE = 5


class Escape(NamedTuple):
    nodeid: str
    what: str


def hash_seed() -> str:
    """Of pytest's own process and its forks: the fixed one, or ``random``."""
    seed = os.environ.get(HASH_SEED, "random")
    return seed if seed.isdecimal() else "random"


class SignOff:
    """Plugin, in the process that all reports come to."""

    def __init__(
        self,
        collected: Collected,
        json_lines: JsonLines | None,
        *,
        escapes_max: int | None,
        baseline: Path | None,
        may_degrade: bool,
    ) -> None:
        self._collected = collected
        self._json_lines = json_lines
        self._escapes_max = escapes_max
        self._may_degrade = may_degrade
        self._baseline_path = baseline
        self._baseline = Baseline() if baseline is None else Baseline.read(baseline)
        self._selected: set[str] = set()
        self._ran: set[str] = set()
        self._ended: set[str] = set()
        self._enforced: Counter[tuple[tuple[str, Any], ...]] = Counter()
        self._exitstatus = 0

    def add(self, record: Record) -> None:
        if record.get("reason") in NEVER_RAN:
            return
        evidence = record.get("enforced") or {}
        facts = {name: evidence.get(name) for name in _EVIDENCE}
        facts["namespaces"] = tuple(facts["namespaces"] or ())
        self._enforced[tuple(facts.items())] += 1

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._selected.update(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """In xdist's controller, which collects nothing itself."""
        self._selected.update(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._ran.add(report.nodeid)
        if report.when == "call" or not report.passed:  # a setup that passed says nothing yet
            self._ended.add(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        is_bad = self._is_over or self._new_violations or self._unenforced
        if is_bad and int(session.exitstatus) == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self._exitstatus = int(session.exitstatus)
        if self._json_lines is not None:
            self._json_lines.close(self.summary())

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        width = config.get_terminal_writer().fullwidth
        lines = [*self._lines(width)]
        if terminalreporter.verbosity < 0:
            lines = lines[-1:]
        else:
            terminalreporter.write_sep("=", "isolate strict")
        for line in lines:
            terminalreporter.write_line(line.text, **({line.style: True} if line.style else {}))

    # ---- the account ----------------------------------------------------------------------------

    def summary(self) -> Mapping[str, Any]:
        rows = [*self._collected.rows.values()]
        known = sum(violation.known for row in rows for violation in row.deeds)
        return {
            "strict": True,
            "exitstatus": self._exitstatus,
            "selected": len(self._selected),
            "unfinished": len(self._selected - self._ended),
            "tests": len(self._ran),
            "isolated": len({row.nodeid for row in rows if row.has_run}),
            "escapes": [escape._asdict() for escape in self.escapes],
            "escapes_max": self._escapes_max,
            "degraded": self._degraded,
            "violations": {"new": self._new_violations, "known": known},
            "stale": sum(len(found) for _, found in self._stale()),
            "enforced": [{"tests": count, **dict(facts)} for facts, count in self._enforced.most_common()],
            "hash_seed": hash_seed(),
        }

    @property
    def escapes(self) -> list[Escape]:
        """One for each thing of each test, the same in each run of a suite."""
        rows = self._collected.rows.values()
        opted_out = self._collected.opted_out
        found = [Escape(row.nodeid, what) for row in rows for what in row.escapes]
        found += [Escape(nodeid, f"not_isolated: {why}") for nodeid, why in opted_out.items()]
        accounted = {*opted_out, *(row.nodeid for row in rows)}
        found += [Escape(nodeid, "ran in no sandbox") for nodeid in self._ran - accounted]
        return sorted({*found})

    @property
    def _unbuilt(self) -> int:
        """Tests that did not run, or were skipped, as no sandbox could be built or planned for them."""
        return len({row.nodeid for row in self._collected.rows.values() if not row.has_run})

    @property
    def _degraded(self) -> int:
        return len({row.nodeid for row in self._collected.rows.values() if row.missing})

    @property
    def _unenforced(self) -> int:
        """Tests that were degraded, and nobody has asked for that."""
        return 0 if self._may_degrade else self._degraded

    @property
    def _new_violations(self) -> int:
        """Also those that failed no test: a hook may have switched that off."""
        rows = self._collected.rows.values()
        return sum(not violation.known for row in rows for violation in row.deeds)

    @property
    def _is_over(self) -> bool:
        return self._escapes_max is not None and len(self.escapes) > self._escapes_max

    def _stale(self) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Of tests that passed in a whole sandbox: others may not have come to it, or nobody saw."""
        for row in self._collected.rows.values():
            found = self._baseline.stale(row.nodeid, (known_as(v.kind.value, v.what) for v in row.deeds))
            if found and row.reason == "passed" and not row.missing:
                yield row.nodeid, found

    # ---- for people -----------------------------------------------------------------------------

    def _lines(self, width: int) -> Iterator[Line]:
        account = self.summary()
        outside = account["tests"] - account["isolated"]
        tests = f"{account['tests']} test{'s' * (account['tests'] != 1)}"
        yield Line(f"{tests}: {account['isolated']} isolated, {outside} not")
        yield from self._enforced_lines()
        yield from self._escape_lines(width)
        if account["degraded"]:
            yield Line(f"{account['degraded']} degraded: this machine lacks what they need", "yellow")
        yield from self._violation_lines(account["violations"], width)
        if account["hash_seed"] == "random":
            yield Line(
                f"hash seed: random in tests that are forked from pytest; start pytest with {HASH_SEED}=0",
                "yellow",
            )
        else:
            yield Line(f"hash seed: {account['hash_seed']}")
        if asked := sum(bool(row.clock_reads) for row in self._collected.rows.values()):
            yield Line(f"clock: {asked} test{'s' * (asked != 1)} asked for the time of day (clock_reads)")
        yield self._verdict(account)

    def _enforced_lines(self) -> Iterator[Line]:
        for facts, count in self._enforced.most_common():
            found = dict(facts)
            capabilities = found["capabilities"]
            parts = [
                f"{len(found['namespaces'])} namespaces" if found["namespaces"] else "no namespaces",
                f"{found['root'] or 'no known'} root",
                f"cgroup {found['cgroup']}" if found["cgroup"] else "no cgroup",
                f"capabilities {capabilities}" if capabilities else "capabilities unknown",
                "no_new_privs" if found["no_new_privs"] else "new privileges possible",
                f"seccomp {found['seccomp']}",
            ]
            yield Line(f"enforced on {count}: {', '.join(parts)}")

    def _escape_lines(self, width: int) -> Iterator[Line]:
        escapes, most = self.escapes, self._escapes_max
        allowed = "" if most is None else f", {most} allowed (isolate_escapes_max)"
        style = "red" if self._is_over else "yellow" if escapes else ""
        yield Line(f"{len(escapes)} escape{'s' * (len(escapes) != 1)}{allowed}{':' * bool(escapes)}", style)
        for escape in escapes:
            what = " ".join(escape.what.split())
            yield Line(f"  {shorten(escape.nodeid, max(width - len(what) - 4, 20))}  {what}", style)
        if most is not None and len(escapes) < most:
            yield Line(f"isolate_escapes_max can be lowered to {len(escapes)}", "green")

    def _violation_lines(self, counts: Mapping[str, int], width: int) -> Iterator[Line]:
        known = f", {counts['known']} known" if self._baseline_path is not None else ""
        yield Line(f"violations: {counts['new']} new{known}", "red" if counts["new"] else "")
        stale = [(nodeid, what) for nodeid, found in self._stale() for _, what in found]
        if not stale or self._baseline_path is None:
            return
        records = self._json_lines.path if self._json_lines is not None else None
        cure = refresh_command(_shown(self._baseline_path), _shown(records) if records else None)
        yield Line(f"{len(stale)} stale in the baseline; run: {cure}", "yellow")
        for nodeid, what in stale[:_MOST_STALE]:
            yield Line(f"  {shorten(nodeid, width // 2)}  {what}")
        if len(stale) > _MOST_STALE:
            yield Line(f"  and {len(stale) - _MOST_STALE} more")

    def _verdict(self, account: Mapping[str, Any]) -> Line:
        why = []
        if self._is_over:
            why.append(f"{len(self.escapes)} escapes are more than isolate_escapes_max = {self._escapes_max}")
        if account["violations"]["new"]:
            new = account["violations"]["new"]
            why.append(f"{new} new violation{'s' * (new != 1)}")
        if self._unenforced:
            tests = f"{self._unenforced} test{'s' * (self._unenforced != 1)}"
            why.append(f"not all was enforced on {tests} (--isolate-missing=degrade allows it)")
        if self._unbuilt:
            why.append(f"no sandbox for {self._unbuilt} test{'s' * (self._unbuilt != 1)}")
        if account["exitstatus"] and not why:
            why.append(f"exit status {account['exitstatus']}")
        if account["unfinished"]:
            why.append(f"{account['unfinished']} of {account['selected']} tests did not run to their end")
        if why:
            return Line(f"strict: not signed off: {', '.join(why)}", "red")
        return Line("strict: signed off", "green")


def _shown(path: Path) -> str:
    return min(str(path), os.path.relpath(path), key=len)

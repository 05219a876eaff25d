from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_isolate import reporters
from pytest_isolate.marker import OPTED_OUT, SWITCHED_OFF
from pytest_isolate.reporters.collect import Collected, Collector, Enforced, Row
from pytest_isolate.reporters.jsonlines import JsonLines
from pytest_isolate.reporters.line import Line
from pytest_isolate.reporters.tables import cpu_table, memory_table, shorten
from pytest_isolate.reporters.terminal import one_line, section
from pytest_isolate.runner import record
from pytest_isolate.violation import Kind, Violation

MIB = 2**20
ALL = Enforced(("user", "pid", "mnt", "net", "ipc", "uts", "cgroup"), "overlay", "v1")


def row(name: str = "test_x", **fields: Any) -> Row:
    usual: dict[str, Any] = {"wall_s": 0.05, "overhead_s": 0.004, "enforced": ALL}
    return Row(nodeid=f"tests/test_a.py::{name}", **(usual | fields))


def collected(*rows: Row, **rest: Any) -> Collected:
    return Collected(rows={("main", f"{number} {r.nodeid}"): r for number, r in enumerate(rows)}, **rest)


def texts(*rows: Row, top: int = 0, width: int = 80, **rest: Any) -> list[str]:
    return [line.text for line in section(collected(*rows, **rest), top, width)]


# -- the section ----------------------------------------------------------------------------------------


def test_nothing_is_said_of_a_session_without_isolation() -> None:
    assert section(Collected(), 5, 80, records="out.json") == []
    assert one_line(Collected()) is None


def test_overview() -> None:
    assert texts(row(), row()) == [
        "2 isolated tests: 0.10 s in sandboxes + 0.01 s overhead (4.0 ms each)",
        "enforced: user pid mnt net ipc uts cgroup namespaces, overlay root, cgroup v1",
    ]
    assert texts(row(wall_s=250, overhead_s=0.02))[0] == (
        "1 isolated test: 250 s in sandboxes + 0.02 s overhead"
    )
    assert texts(row(wall_s=None, overhead_s=None))[0] == "1 isolated test"


def test_overview_breaks_between_facts_only() -> None:
    assert texts(row(), width=64)[1:] == [
        "enforced: user pid mnt net ipc uts cgroup namespaces,",
        "          overlay root, cgroup v1",
    ]
    assert texts(row(), width=20)[1:] == [
        "enforced: user pid mnt net ipc uts cgroup namespaces,",
        "          overlay root,",
        "          cgroup v1",
    ]


def test_what_was_enforced_for_few_is_told_as_the_difference() -> None:
    host_net = Enforced(("user", "pid", "mnt", "ipc", "uts", "cgroup"), "overlay", "v1")
    nothing = Enforced((), "ext4", None)
    assert texts(*[row()] * 3, *[row(enforced=host_net)] * 2, row(enforced=nothing))[1:] == [
        "enforced: user pid mnt net ipc uts cgroup namespaces, overlay root, cgroup v1",
        "  on 2 tests: no net namespace",
        "  on 1 test: no namespaces, ext4 root, no cgroup",
    ]
    assert texts(*[row(enforced=nothing)] * 2, row(enforced=host_net))[1:] == [
        "enforced: no namespaces, ext4 root, no cgroup",
        "  on 1 test: user pid mnt ipc uts cgroup namespaces too, overlay root, cgroup v1",
    ]


def test_a_level_without_namespaces_is_named() -> None:
    landlock = Enforced((), "ext4", None, "landlock", ("files", "network"))
    fork = Enforced((), "ext4", None, "fork")
    assert texts(row(), row(), row(enforced=landlock), width=200)[1:] == [
        "enforced: user pid mnt net ipc uts cgroup namespaces, overlay root, cgroup v1",
        "  on 1 test: level landlock, no namespaces (confined: files network), ext4 root, no cgroup",
    ]
    assert texts(row(enforced=fork))[1:] == ["enforced: level fork, no namespaces, ext4 root, no cgroup"]


def test_endings() -> None:
    lines = section(
        collected(
            row(reason="oom"),
            row(reason="timeout"),
            row(reason="timeout", pids_refused=3),
            row(reason="cpu_time", tmp_free_bytes=4096),
            row(reason="failed"),
            row(reason="signal", signal="SIGSEGV"),
            row(reason="exited"),
            row(reason="channel"),
            row(reason="setup", wall_s=None, overhead_s=None, enforced=Enforced()),
            *[row(reason="options", wall_s=None, overhead_s=None, enforced=Enforced())] * 2,
        ),
        0,
        80,
    )
    assert lines[2:6] == [
        Line("4 tests hit a limit: 2 timeout, 1 memory, 1 pids, 1 cpu time", "yellow"),
        Line("3 tests ended early: 1 SIGSEGV, 1 exit, 1 broken report channel", "yellow"),
        Line("1 test did not run: no sandbox could be built", "red"),
        Line("2 tests did not run: wrong options", "red"),
    ]


def test_one_kind_of_ending_needs_no_count() -> None:
    assert texts(row(reason="oom"), row(reason="oom"))[2:] == ["2 tests hit a limit: memory"]
    assert texts(row(tmp_free_bytes=0))[2:] == ["1 test hit a limit: tmp_size"]


def test_deeds_are_named_with_their_doers() -> None:
    lines = texts(
        row("test_a", leaked_processes=1),
        row("test_b", leaked_processes=5),
        row("test_c", written_files=3, written_bytes=2048),
        row("test_d", network_attempts=2),
        row("test_e", pids_refused=7),
    )
    assert lines[2:] == [
        "1 test hit a limit: pids",
        "1 test ran into the pids limit: tests/test_a.py::test_e (7)",
        "2 tests left processes behind: tests/test_a.py::test_b (5),",
        "    tests/test_a.py::test_a (1)",
        "1 test tried to reach the network: tests/test_a.py::test_d (2)",
        "1 test wrote outside tmp_path (3 files, 2.0 KiB, thrown away):",
        "    tests/test_a.py::test_c (3)",
    ]


@pytest.mark.parametrize("saved", [{"kept": "/tmp/kept"}, {"artifacts": 2}])
def test_what_was_kept_was_not_thrown_away(saved: dict[str, Any]) -> None:
    line = texts(row(written_files=3, written_bytes=2048, **saved), row())[2]
    assert line.startswith("1 test wrote outside tmp_path (3 files, 2.0 KiB): tests/")
    assert "KiB, thrown away)" in texts(row(written_files=3, written_bytes=2048, artifacts=0))[2]


def test_sleepers_are_named() -> None:
    lines = texts(row("test_a", slept_s=0.09), row("test_b", slept_s=0.5), row("test_c", slept_s=2.0))
    assert lines[2:] == [
        "2 tests asked to sleep 2.50 s: tests/test_a.py::test_c (2.00 s),",
        "    tests/test_a.py::test_b (0.50 s)",
    ]


def test_three_doers_are_enough() -> None:
    lines = texts(*[row(f"test_{n}", leaked_processes=n) for n in range(1, 7)])
    assert lines[2:] == [
        "6 tests left processes behind: tests/test_a.py::test_6 (6),",
        "    tests/test_a.py::test_5 (5), tests/test_a.py::test_4 (4), and 3 more",
    ]


def test_zero_is_no_deed() -> None:
    quiet = row(leaked_processes=0, written_files=0, network_attempts=0, pids_refused=0)
    assert len(texts(quiet)) == 2


def left(pid: int, what: str = "left a process: sleep", **rest: Any) -> Violation:
    where = f"a.py:3 (test_x), pid {pid}"
    return Violation(kind=Kind.PROCESSES, what=what, where=where, cure='allow=["processes"]', **rest)


def test_violations_that_differ_in_their_place_alone_are_one_entry() -> None:
    deeds = (left(4), left(5, known=True), left(6), left(7, what="left a process: true"), left(8, count=3))
    assert texts(row(deeds=deeds), width=120)[2:] == [
        "1 test not hermetic, 5 violations:",
        "  tests/test_a.py::test_x",
        "    processes: left a process: sleep (5 times), a.py:3 (test_x), pid 4; "
        'allow it with allow=["processes"]',
        "    processes (known): left a process: sleep, a.py:3 (test_x), pid 5; "
        'allow it with allow=["processes"]',
        '    processes: left a process: true, a.py:3 (test_x), pid 7; allow it with allow=["processes"]',
    ]


def test_ten_tests_that_are_not_hermetic_are_enough() -> None:
    guilty = collected(*[row(f"test_{n}", deeds=(left(4),)) for n in range(12)])
    lines = [line.text for line in section(guilty, 0, 120)]
    assert lines[2] == "12 tests not hermetic, 12 violations:"
    assert len(lines) == 3 + 10 * 2 + 1
    assert lines[-1] == "  and 2 more tests; all of them with -v or in --isolate-json FILE"
    assert len(section(guilty, 0, 120, verbose=True)) == 3 + 12 * 2


def test_opted_out() -> None:
    assert texts(opted_out={"a": "needs the\nhost's network"}) == [
        "1 test opted out (not_isolated): needs the host's network"
    ]
    reasons = {"a": "docker", "b": "network", "c": "docker"}
    assert texts(opted_out=reasons) == [
        "3 tests opted out (not_isolated):",
        "    2  docker",
        "    1  network",
    ]
    many = {str(n): f"reason {n}" for n in range(8)}
    assert texts(opted_out=many)[-1] == "       and 3 more reasons"


def test_long_reasons_are_wrapped() -> None:
    assert texts(opted_out={"a": "one two three four", "b": "five"}, width=20) == [
        "2 tests opted out (not_isolated):",
        "    1  one two three",
        "       four",
        "    1  five",
    ]


def test_degraded_names_each_missing_thing_once() -> None:
    cure = "memory is not available: no cgroup; run: x"
    lines = section(collected(row(missing=(cure,)), row(missing=(cure, "net is not available"))), 0, 80)
    assert lines[2:] == [
        Line("degraded: 2 tests ran without what this machine lacks", "yellow"),
        Line(f"    2  {cure}", "yellow"),
        Line("    1  net is not available", "yellow"),
    ]


def test_switched_off() -> None:
    assert section(collected(switched_off={"a", "b"}), 5, 80) == [
        Line("isolation is off (--isolate-off): 2 tests ran unprotected", "yellow")
    ]


def test_reruns_and_records() -> None:
    assert section(collected(row(), rerun={"a"}), 0, 80, records="out.json")[2:] == [
        Line("1 test ran more than once: this counts the last sandbox of each"),
        Line("one JSON line per isolated test: out.json"),
    ]


def test_one_line_for_quiet_runs() -> None:
    quiet = collected(
        row(reason="oom"),
        row(missing=("net",)),
        row(deeds=(left(4), left(5))),
        opted_out={"a": "x"},
    )
    assert one_line(quiet) == Line(
        "isolate: 3 tests, 0.15 s + 0.01 s overhead, 1 hit a limit, 1 not hermetic, 1 degraded, 1 opted out"
    )
    assert one_line(collected(switched_off={"b"})) == Line("isolate: off: 1 unprotected")


# -- tables ---------------------------------------------------------------------------------------------


def test_memory_table() -> None:
    rows = [
        row("test_small", memory_peak_bytes=4 * MIB),
        row("test_killed", memory_peak_bytes=32 * MIB, memory_limit_bytes=32 * MIB, reason="oom"),
        row("test_tight", memory_peak_bytes=60 * MIB, memory_limit_bytes=64 * MIB),
        row("test_none"),
    ]
    assert memory_table(rows, 2, 80) == [
        Line("top 2 by memory                     peak     limit   used", "bold"),
        Line("  tests/test_a.py::test_tight   60.0 MiB  64.0 MiB   94 %", "yellow"),
        Line("  tests/test_a.py::test_killed  32.0 MiB  32.0 MiB  100 %", "red"),
    ]
    assert memory_table(rows[:1], 5, 80) == [
        Line("by memory                         peak", "bold"),
        Line("  tests/test_a.py::test_small  4.0 MiB"),
    ]


def test_memory_that_no_cgroup_counted_is_called_otherwise() -> None:
    table = memory_table([row(memory_peak_bytes=MIB, enforced=Enforced())], 5, 80)
    assert table[0].text.split() == ["by", "memory", "(rss)", "peak"]


def test_cpu_table() -> None:
    rows = [
        row("test_a", cpu_user_s=0.3, cpu_system_s=0.05, wall_s=0.66, throttled_s=0.25),
        row("test_b", cpu_user_s=0.01, wall_s=0.02, throttled_s=0.0),
        row("test_c"),
    ]
    assert [line.text for line in cpu_table(rows, 5, 80)] == [
        "by cpu                          cpu      wall  throttled",
        "  tests/test_a.py::test_a  350.0 ms  660.0 ms   250.0 ms",
        "  tests/test_a.py::test_b   10.0 ms   20.0 ms",
    ]
    long = [row("test_a", cpu_user_s=0.3, wall_s=2.0), row("test_b", cpu_user_s=0.01, wall_s=None)]
    assert [line.text for line in cpu_table(long, 5, 80)] == [
        "by cpu                        cpu    wall",
        "  tests/test_a.py::test_a  0.30 s  2.00 s",
        "  tests/test_a.py::test_b  0.01 s",
    ]


def test_no_table_without_measurements_or_rows() -> None:
    assert memory_table([row()], 5, 80) == []
    assert cpu_table([row(cpu_user_s=1.0)], 0, 80) == []


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_fit(width: int) -> None:
    deep = "a/" * 60 + "test_mod.py::TestLong::test_name[" + "p" * 90 + "]"
    rows = [
        row(deep, memory_peak_bytes=n * MIB, memory_limit_bytes=99 * MIB, cpu_user_s=n, throttled_s=1)
        for n in range(1, 5)
    ]
    lines = memory_table(rows, 3, width) + cpu_table(rows, 3, width)
    assert all(len(line.text) <= width for line in lines)
    assert sum("test_name" in line.text for line in lines) == 6


@pytest.mark.parametrize(
    ("width", "short"),
    [
        (56, "tests/unit/db/test_mod.py::TestX::test_name[alpha-omega]"),
        (55, "…/unit/db/test_mod.py::TestX::test_name[alpha-omega]"),
        (48, "…/db/test_mod.py::TestX::test_name[alpha-omega]"),
        (44, "…/test_mod.py::TestX::test_name[alpha-omega]"),
        (42, "test_mod.py::TestX::test_name[alpha-omega]"),
        (40, "test_mod.py::…::test_name[alpha-omega]"),
        (30, "…::test_name[alph…mega]"),
        (12, "test_…omega]"),
    ],
)
def test_shorten_keeps_the_name_of_the_test_longest(width: int, short: str) -> None:
    nodeid = "tests/unit/db/test_mod.py::TestX::test_name[alpha-omega]"
    assert len(shorten(nodeid, width)) <= width
    assert shorten(nodeid, width) == short


def test_shorten_of_what_is_no_function() -> None:
    assert shorten("docs/some/tutorial.md", 20) == "…/some/tutorial.md"
    assert shorten("tutorial_that_is_long.md", 12) == "tutor…ong.md"


# -- from reports to rows -------------------------------------------------------------------------------


def report(
    when: str = "call",
    *,
    nodeid: str = "a.py::test_x",
    worker: str | None = None,
    properties: dict[str, object] | None = None,
    **fields: object,
) -> pytest.TestReport:
    isolated = {"schema": 1, "reason": "passed", "wall_s": 0.5} | fields
    made = pytest.TestReport(
        nodeid=nodeid,
        location=("a.py", 0, "test_x"),
        keywords={},
        outcome="passed",
        longrepr=None,
        when=when,  # type: ignore[arg-type]
        user_properties=[*(properties or {record.PREFIX + k: v for k, v in isolated.items()}).items()],
    )
    if worker is not None:
        made.worker_id = worker  # type: ignore[attr-defined]
    return made


@pytest.fixture
def records() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def collector(records: list[dict[str, Any]]) -> Collector:
    return Collector(lambda found: records.append(dict(found)))


def feed(collector: Collector, *reports: pytest.TestReport, finish: bool = True) -> None:
    for each in reports:
        collector.pytest_runtest_logreport(each)
    if finish:
        collector.pytest_runtest_logfinish(reports[0].nodeid)


def test_one_record_per_test_from_its_last_report(
    collector: Collector, records: list[dict[str, Any]]
) -> None:
    feed(collector, report("setup", wall_s=1), report("call", wall_s=2), report("teardown", wall_s=3))
    feed(collector, report("setup", nodeid="a.py::test_y", wall_s=4))
    assert [(r["nodeid"], r["wall_s"]) for r in records] == [("a.py::test_x", 3), ("a.py::test_y", 4)]
    assert [r.wall_s for r in collector.collected.rows.values()] == [3, 4]
    assert not collector.collected.rerun


def test_tests_that_are_not_isolated_are_passed_by(
    collector: Collector, records: list[dict[str, Any]]
) -> None:
    feed(collector, report(properties={"mine": 1}))
    feed(collector, report(nodeid="b", properties={OPTED_OUT: "why"}))
    feed(collector, report(nodeid="c", properties={SWITCHED_OFF: "--isolate-off"}))
    assert records == []
    assert collector.collected == Collected(opted_out={"b": "why"}, switched_off={"c"})


def test_all_properties_have_the_prefix_that_reporting_waits_for() -> None:
    assert reporters._PREFIX == record.PREFIX
    assert OPTED_OUT.startswith(record.PREFIX)
    assert SWITCHED_OFF.startswith(record.PREFIX)


def test_the_last_attempt_counts(collector: Collector, records: list[dict[str, Any]]) -> None:
    feed(collector, report("setup"), report("call"), report("setup"), report("teardown", wall_s=9))
    assert [r["wall_s"] for r in records] == [9]
    assert collector.collected.rerun == {"a.py::test_x"}
    feed(collector, report("setup"), report("teardown", wall_s=7))
    assert [r.wall_s for r in collector.collected.rows.values()] == [7]


def test_workers_that_run_the_same_test_are_told_apart(
    collector: Collector, records: list[dict[str, Any]]
) -> None:
    feed(collector, report("setup", worker="gw0"), report("setup", worker="gw1"), finish=False)
    feed(collector, report("teardown", worker="gw0", wall_s=1))
    assert [r["wall_s"] for r in records] == [1]
    feed(collector, report("teardown", worker="gw1", wall_s=2))
    assert [r["wall_s"] for r in records] == [1, 2]
    assert not collector.collected.rerun


def test_a_worker_that_dies_loses_no_record(collector: Collector, records: list[dict[str, Any]]) -> None:
    feed(collector, report("setup"), finish=False)
    collector.pytest_sessionfinish()
    assert len(records) == 1


@pytest.mark.parametrize(
    "forged",
    [
        {"wall_s": "long", "memory_peak_bytes": [1], "leaked_processes": None},
        {"wall_s": float("nan"), "cpu_user_s": True},
        {"enforced": 3, "reason": 5, "signal": 7},
        {"enforced": '{"namespaces": 3, "root": [], "cgroup": {}, "missing": "abc"}'},
        {"enforced": "{"},
    ],
)
def test_forged_properties_break_nothing(collector: Collector, forged: dict[str, Any]) -> None:
    feed(collector, report(**forged))
    section(collector.collected, 5, 80)
    one_line(collector.collected)


# -- JSON Lines -----------------------------------------------------------------------------------------


def test_json_lines_are_there_as_soon_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "dirs" / "out.json"
    path.parent.mkdir(parents=True)
    path.write_text("from an earlier run\n")
    lines = JsonLines(path)
    assert path.read_text() == ""
    for number in range(2):
        lines.write({"nodeid": "a\nb", "number": number, "signal": None})
        assert [json.loads(line) for line in path.read_text().splitlines()][-1] == {
            "nodeid": "a\nb",
            "number": number,
            "signal": None,
        }
    assert lines.error == ""


def test_parent_directories_are_made(tmp_path: Path) -> None:
    JsonLines(tmp_path / "a" / "b" / "c.json")
    assert (tmp_path / "a" / "b" / "c.json").exists()


def test_a_path_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(pytest.UsageError, match=r"--isolate-json: cannot write .*: Is a directory"):
        JsonLines(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(pytest.UsageError, match=r"--isolate-json: cannot write .*/file/x: "):
        JsonLines(tmp_path / "file" / "x")


def test_a_write_that_fails_later_is_remembered_and_raises_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    lines = JsonLines(path)
    path.unlink()
    path.mkdir()
    lines.write({})
    lines.write({})
    assert lines.error == "Is a directory"


def test_the_fields_are_those_of_the_record(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    lines = JsonLines(path)
    write: Callable[[Any], None] = lines.write
    feed(Collector(write), report("teardown", enforced='{"root":"overlay"}'))
    written = json.loads(path.read_text())
    assert list(written) == ["schema", "nodeid", *record.FIELDS]
    assert written["enforced"] == {"root": "overlay"}
    assert written["signal"] is None

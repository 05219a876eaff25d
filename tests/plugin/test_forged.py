"""What a test's process may say to pytest that is not so: the trouble of that test, and of no other."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

TOLD = """
import json, os, struct, time
import pytest
from pytest_isolate.runner.isolation import current_isolation

def say(*message, data=None):
    data = data or json.dumps(message).encode()
    data = struct.pack("!I", len(data)) + data
    fd = current_isolation()._channel.fileno()
    while data:
        data = data[os.write(fd, data):]

@pytest.fixture
def report(request):
    def report(when, /, **changes):
        data = {
            "$report_type": "TestReport", "nodeid": request.node.nodeid, "location": request.node.location,
            "keywords": {}, "outcome": "passed", "longrepr": None, "when": when, "user_properties": [],
            "sections": [], "duration": 0.0, "start": 0.0, "stop": 0.0,
        }
        say("Report", {**data, **changes}, False, 0)
    return report

def end():
    say("End", time.monotonic(), [])
    os._exit(0)

def test_first(): pass
"""
LAST = "\n\ndef test_last(): pass\n"
REPORTS = """
@pytest.mark.parametrize("changes", [
    {"when": [1]},
    {"outcome": "weird"},
    {"outcome": ["passed"]},
    {"duration": "abc"},
    {"duration": 10**400},
    {"duration": float("inf")},
    {"outcome": "failed", "longrepr": "boo", "sections": [["a"]]},
    {"user_properties": [1]},
    {"outcome": "skipped", "longrepr": [1]},
    {"outcome": "skipped", "longrepr": ["a", 1, None]},
    {"toterminal": 1, "outcome": "failed", "longrepr": "boo"},
    {"location": [1, 2]},
], ids=lambda changes: "-".join(changes))
def test_report(report, changes):
    report("setup")
    report("call", **changes)
    report("teardown")
    end()

def test_failed_without_a_text(report):
    report("setup")
    report("call", outcome="failed")
    report("teardown")
    end()

def test_pids(): say("Observed", [], 0, {}, {"pids": 5})
def test_interrupted(): say("Interrupted", "x", "f\\0", 10**10)
def test_not_a_number(): say("End", float("nan"), [])
def test_many_values(): say(data=b'["Carried", "none", {"a": [' + b"[]," * 2_000_000 + b"[]]}]")
def test_large(): say("PhaseBegun", "x" * 2**21)
"""


def test_malformed_messages(run: Runner) -> None:
    report = "report.xml"
    inner = run(TOLD + REPORTS + LAST, "-rA", "--durations=0", "-vv", f"--junitxml={report}")
    assert "INTERNALERROR" not in inner.out
    assert len(inner.records) == len(ET.parse(report).findall(".//testcase")) == 20
    for record in inner.records:
        name = record["nodeid"].partition("::")[2]
        if name in ("test_first", "test_last"):
            assert record["outcome"] == "passed"
        elif name == "test_failed_without_a_text":
            assert (record["outcome"], record["reason"]) == ("failed", "failed")
        else:
            assert record["outcome"] in ("failed", "error"), name
            assert record["reason"] == "channel", name


def test_sleep_without_bounds(run: Runner) -> None:
    told = 'say("Observed", [], 0, {}, {"slept_s": 1.7e308})'
    inner = run(f"{TOLD}def test_it(): {told}; {told}{LAST}")
    assert inner.outcomes == {"passed": 3}
    assert (inner.record("test_it")["slept_s"] or 0) < 1


def test_violations_are_bounded(run: Runner) -> None:
    inner = run(
        TOLD
        + "def test_it():\n"
        + '    found = [{"kind": "threads", "what": f"thing {number}"} for number in range(20_000)]\n'
        + '    say("Observed", found, 1, {}, {})\n'
        + LAST,
    )
    assert inner.outcomes == {"passed": 3}
    assert len(inner.record("test_it")["violations"]) == 100


ENDINGS = """
def test_without_a_report(): end()
def test_without_a_call(report): report("setup"); report("teardown"); end()
def test_without_a_teardown(report): report("setup"); report("call"); end()
def test_paused_for_ever(): say("Paused", time.monotonic(), [])
def test_skipped(report): report("setup", outcome="skipped", longrepr=["a", 1, "x"]); report("teardown"); end()
"""


@pytest.mark.parametrize("mode", [[], ["--isolate-strict"]], ids=["", "strict"])
def test_a_test_does_not_end_without_its_reports(run: Runner, mode: list[str]) -> None:
    inner = run(TOLD + ENDINGS + LAST, *mode)
    reasons = {record["nodeid"].partition("::")[2]: record["reason"] for record in inner.records}
    expected = dict.fromkeys(reasons, "channel")
    assert reasons == expected | {"test_first": "passed", "test_skipped": "skipped", "test_last": "passed"}
    assert len(reasons) == 7
    assert inner.result.ret == 1


def test_a_shared_sandbox_ends_with_who_forges_its_end(run: Runner) -> None:
    inner = run(
        f"""{TOLD}
pytestmark = pytest.mark.isolated(scope="module")

def test_it(report):
    say("Paused", time.monotonic(), [])
    time.sleep(30)

def test_next(): pass
""",
        all_tests=False,
    )
    assert inner.record("test_it")["reason"] == "channel"
    assert [inner.record(name)["reason"] for name in ("test_first", "test_next")] == ["passed", "passed"]


OWN_PROTOCOL = """
import pytest

def pytest_runtest_protocol(item):
    if item.name == "test_silent":
        return True
    if item.name == "test_brief":
        for when in ("setup", "teardown"):
            call = pytest.CallInfo.from_call(lambda: None, when)
            report = item.ihook.pytest_runtest_makereport(item=item, call=call)
            item.ihook.pytest_runtest_logreport(report=report)
        return True
"""
BRIEF = "def test_silent(): pass\n\ndef test_brief(): pass\n\ndef test_last(): pass\n"


def test_a_protocol_of_somebodys_own_may_report_less(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(OWN_PROTOCOL)
    plain, isolated = run(BRIEF, "--isolate-off"), run(BRIEF)
    assert plain.outcomes == isolated.outcomes == {"passed": 1}
    strict = run(BRIEF, "--isolate-strict")
    assert strict.out.count("the test ended without its reports") >= 2
    assert strict.result.ret == 1


@pytest.mark.parametrize("switch", ["--setup-only", "--setup-plan", "--setup-show"])
def test_without_a_call_because_nobody_wants_one(run: Runner, switch: str) -> None:
    inner = run("def test_it(tmp_path): pass", switch)
    assert "report channel" not in inner.out
    assert inner.result.ret == 0


def test_the_end_of_a_module_is_told_too(run: Runner) -> None:
    inner = run(
        f"""{TOLD}
pytestmark = pytest.mark.isolated(scope="module", fixtures="fresh")

@pytest.fixture(scope="module")
def module():
    yield
    say("Report", {{"when": "teardown", "keywords": [1]}}, False, 0)

def test_it(module): assert 0
def test_next(module): pass
""",
        "-x",
        all_tests=False,
    )
    assert "INTERNALERROR" not in inner.out
    assert inner.outcomes["failed"] == inner.outcomes["errors"] == 1
    assert "ERROR at teardown of test_it" in inner.out


# ---- times, and the page of entering ----------------------------------------------------------------


def test_a_test_lasts_as_long_as_it_takes(run: Runner) -> None:
    inner = run(
        f"""{TOLD}
def test_it(report):
    time.sleep(0.5)
    for when in ("setup", "call", "teardown"):
        report(when)
    say("End", 1.0, [])
    os._exit(0)
{LAST}"""
    )
    assert inner.outcomes == {"passed": 3}
    assert 0.4 < inner.record("test_it")["wall_s"] < 30


PAGE = """
import ctypes, os, struct, time

def overwrite(step):
    \"\"\"Whatever is shared with others and has the size of a page, or several.\"\"\"
    for line in open("/proc/self/maps"):
        if " rw-s " in line:
            begin, end = (int(word, 16) for word in line.split()[0].split("-"))
            for page in range(begin, end, 4096):
                ctypes.memmove(page + 4, struct.pack("ii", step, 5), 8)

def test_unknown_step(): overwrite(77)
def test_known_step(): overwrite(3)
def test_both(): overwrite(77); os._exit(3)
def test_slow(): time.sleep(1)
def test_last(): pass
"""


@pytest.mark.parametrize("args", [[], ["--isolate-jobs=3"]], ids=["", "jobs"])
def test_the_page_of_entering_is_nobodys_who_has_entered(run: Runner, args: list[str]) -> None:
    inner = run(PAGE, "-p", "no:randomly", *args)
    assert inner.outcomes == {"passed": 4, "failed": 1}
    assert inner.record("test_both")["reason"] == "exited"


# ---- who is to blame --------------------------------------------------------------------------------


def test_the_end_is_told_even_if_nothing_can_be_measured(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from pytest_isolate.sandbox import meter

        def end(self, *args, original=meter.Meter.end):
            end.calls += 1
            if end.calls == 2:
                raise KeyError("a bug of ours")
            return original(self, *args)

        end.calls = 0
        meter.Meter.end = end
        """
    )
    inner = run("def test_a(): pass\n\ndef test_b(): pass\n\ndef test_c(): pass\n")
    assert [record["reason"] for record in inner.records] == ["passed", "channel", "passed"]
    assert "what the test has used cannot be read: KeyError('a bug of ours')" in inner.out


def test_a_plugins_own_error_is_not_the_tests(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        def pytest_isolate_sandbox_ready(item):
            if item.name == "test_it":
                raise RuntimeError("a bug of mine")
        """
    )
    inner = run("def test_it(): pass\n\ndef test_last(): pass\n")
    assert "INTERNALERROR> RuntimeError: a bug of mine" in inner.out
    assert "report channel" not in inner.out


def test_an_error_in_reading_a_report_names_the_hook(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        def pytest_report_from_serializable(data):
            if data["nodeid"].endswith("test_it"):
                raise RuntimeError("a bug of mine")
        """
    )
    inner = run("def test_it(): pass\n\ndef test_last(): pass\n")
    assert "pytest_report_from_serializable raised RuntimeError('a bug of mine')" in inner.out
    assert inner.record("test_last")["outcome"] == "passed"

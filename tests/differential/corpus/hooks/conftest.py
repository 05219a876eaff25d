"""Every hook around a test says when it is called, and some change what they are given."""

import os

import pytest

CALLS = []


def say(text):
    print("hook:", text)


def pytest_runtest_logstart(nodeid, location):
    CALLS.append(("logstart", nodeid))


def pytest_runtest_logfinish(nodeid, location):
    CALLS.append(("logfinish", nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    item.stash[KEY] = ["protocol"]
    return (yield)


KEY = pytest.StashKey()


def pytest_runtest_setup(item):
    say(f"setup {item.name}")
    item.stash[KEY].append("setup")
    if "skip_by_hook" in item.name:
        pytest.skip("by the hook")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    say("before the call")
    try:
        return (yield)
    finally:
        say(f"after the call {item.stash[KEY]}")


@pytest.hookimpl(trylast=True)  # after pytest's own, which would miss its part for the next test
def pytest_runtest_teardown(item, nextitem):
    say(f"teardown {item.name}")
    if "broken_teardown" in item.name:
        raise RuntimeError("the hook fails")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    report.sections.append(("from makereport", f"{call.when} {item.name}"))
    report.extra = {"a": 1}
    if call.when == "call" and "changed" in item.name:
        report.outcome = "failed"
        report.longrepr = "changed by makereport"
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    say(f"pyfunc_call {pyfuncitem.name}")


def pytest_fixture_setup(fixturedef, request):
    if fixturedef.argname in ("noticed", "noticed_module"):
        say(f"fixture_setup {fixturedef.argname}")


def pytest_fixture_post_finalizer(fixturedef, request):
    if fixturedef.argname == "noticed":
        say("fixture_post_finalizer")


def pytest_assertrepr_compare(op, left, right):
    if isinstance(left, Thing) and isinstance(right, Thing):
        return ["comparing Things", f"   {left.value} {op} {right.value}"]
    return None


class Thing:
    def __init__(self, value):
        self.value = value


@pytest.fixture
def thing():
    return Thing


def pytest_runtest_logreport(report):
    CALLS.append((report.nodeid, report.when, report.outcome, sorted(getattr(report, "extra", {}))))


def pytest_report_teststatus(report, config):
    if report.when == "call" and report.passed and "special" in report.nodeid:
        return "special", "S", "SPECIAL"
    return None


def pytest_exception_interact(node, call, report):
    say(f"exception_interact {node.name} {call.when}")


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("calls of hooks")
    for call in CALLS:
        terminalreporter.line(str(call))
    terminalreporter.line(f"PYTEST_CURRENT_TEST is {os.environ.get('PYTEST_CURRENT_TEST')}")


def pytest_sessionfinish(session, exitstatus):
    CALLS.append(("sessionfinish", int(exitstatus), session.testsfailed))

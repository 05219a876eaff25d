"""Many tests in one session cost what one costs, and leave what one leaves: nothing."""

from __future__ import annotations

import json
import pathlib

import pytest

TESTS = 2000
WARM = 200

CONFTEST = """
import json, os, pathlib

def state():
    status = dict(l.split(":", 1) for l in pathlib.Path("/proc/self/status").read_text().splitlines() if ":" in l)
    mounts = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    cgroups = 0
    for line in mounts:
        if " - cgroup" in line:
            for own in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
                base = pathlib.Path(line.split(" ")[4] + own.split(":", 2)[2])
                mine = f"pytest-isolate-{os.getpid()}-*/t*"
                cgroups += len([*base.glob(mine)]) + len([*base.parent.glob(mine)])
    children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        "rss_kb": int(status["VmRSS"].split()[0]),
        "fds": len(os.listdir("/proc/self/fd")),
        "mounts": len(mounts),
        "cgroups": cgroups,
        "children": len(children),
    }

seen = []

def pytest_runtest_logfinish(nodeid):
    seen.append(nodeid)
    if len(seen) in (WARM, TESTS):
        with open("states.jsonl", "a") as file:
            file.write(json.dumps(state()) + "\\n")
"""


@pytest.mark.needs("user namespace")
def test_nothing_grows(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.replace("WARM", str(WARM)).replace("TESTS", str(TESTS)))
    pytester.makepyfile(
        f"import pytest\n\n@pytest.mark.parametrize('i', range({TESTS}))\ndef test_it(i): pass\n"
    )
    result = pytester.runpytest_subprocess("--isolate-all", "-q", "-p", "no:cacheprovider", timeout=600)
    assert result.parseoutcomes() == {"passed": TESTS}
    lines = pathlib.Path(pytester.path, "states.jsonl").read_text().splitlines()
    warm, end = (json.loads(line) for line in lines)
    for what in ("fds", "mounts", "cgroups", "children"):
        assert end[what] <= warm[what] + 2, (what, warm, end)  # the last one may still be on its way out
    # pytest itself keeps the reports: some KiB a test.
    assert end["rss_kb"] - warm["rss_kb"] < (TESTS - WARM) * 12, (warm, end)

"""Plugin: the least that a runner with a process per test does: a fork, pytest's protocol, the reports.

With ``FORK_ONLY=bare`` not even that: a child that ends at once, and the test runs in pytest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from _pytest.runner import runtestprotocol


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if os.environ.get("FORK_ONLY") == "bare":
        _fork(lambda: None)
        return None
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    receiver, sender = os.pipe()

    def run() -> None:
        reports = runtestprotocol(item, nextitem=None, log=False)
        data = [item.config.hook.pytest_report_to_serializable(config=item.config, report=r) for r in reports]
        with open(sender, "w", encoding="utf-8") as file:
            json.dump(data, file)

    pid = _fork(run, wait=False)
    os.close(sender)
    with open(receiver, encoding="utf-8") as file:
        sent = json.load(file)
    os.waitpid(pid, 0)
    for data in sent:
        report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _fork(run: Callable[[], None], *, wait: bool = True) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            run()
        finally:
            os._exit(0)
    if wait:
        os.waitpid(pid, 0)
    return pid

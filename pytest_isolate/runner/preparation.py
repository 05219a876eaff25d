"""Setting up, in pytest, the fixtures that a test inherits; and in its child, what that said and raised.

Plain pytest sets them up as part of the first test that needs them: its output, its log and its errors are
that test's. So the child brings them up again where its own set-up begins.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from pytest_isolate.runner import pytest_private, replay
from pytest_isolate.runner.fixtures import Ownership

__all__ = ["Preparation", "Revival", "prepare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What became of setting up the parent's fixtures for one item."""

    duration_s: float
    ran_code: bool = True  #: of the suite, which may have said something
    error: BaseException | None = None  #: which pytest will not raise again by itself
    out: str = ""  #: captured output, unless it is left to whoever reads the capture next
    err: str = ""
    log: list[logging.LogRecord] = field(default_factory=list)

    @property
    def is_silent(self) -> bool:
        return self.error is None and not (self.out or self.err or self.log)


def prepare(
    item: pytest.Item, ownership: Ownership, *, take_output: bool, is_ready: bool = False
) -> Preparation:
    """Set up what ``item`` inherits. Raises only what ends the session.

    ``is_ready``: somebody has looked, and there is nothing to do.
    """
    __tracebackhide__ = True
    if is_ready or ownership.is_ready(item):
        _seed(item)
        return Preparation(duration_s=0.0, ran_code=False)
    started = time.perf_counter()
    error: BaseException | None = None
    ran_code = True
    with replay.Capturing(item.config), pytest_private.catch_log(item.config, "setup") as log:
        _seed(item)
        try:
            ran_code = ownership.set_up(item)
        except (pytest.exit.Exception, KeyboardInterrupt):
            raise
        except (Exception, pytest.skip.Exception, pytest.fail.Exception) as raised:
            if not isinstance(raised, pytest.FixtureLookupError):
                error = None if pytest_private.remembers(item.session, raised) else raised
    out, err = pytest_private.read_capture(item.config) if take_output else ("", "")
    duration_s = time.perf_counter() - started
    return Preparation(duration_s=duration_s, ran_code=ran_code, error=error, out=out, err=err, log=log)


def _seed(item: pytest.Item) -> None:
    """pytest-randomly seeds random generators before each set-up."""
    randomly = item.config.pluginmanager.getplugin("randomly")
    if randomly is not None:
        randomly.pytest_runtest_setup(item)


class Revival:
    """Plugin, in the child. Runs after pytest has looked at skip marks and before it sets up the item."""

    def __init__(self, preparations: Mapping[pytest.Item, Preparation]) -> None:
        self._preparations = dict(preparations)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        __tracebackhide__ = True
        preparation = self._preparations.pop(item, None)
        if preparation is None:
            return
        sys.stdout.write(preparation.out)
        sys.stderr.write(preparation.err)
        pytest_private.replay_log(item.config, preparation.log)
        if preparation.error is not None:
            raise preparation.error

"""``--isolate-profile``: moments, the stages between them, and the table."""

from __future__ import annotations

import time

import pytest

from pytest_isolate.errors import ChannelError
from pytest_isolate.reporters.profile import MEANINGS, Profile
from pytest_isolate.sandbox.moments import STAGES, Moments


def test_a_stage_lasts_until_the_next_one_that_is_known() -> None:
    moments = Moments(asked=1.0, started=2.0, begun=5.0, done=9.0, logged=10.0)
    assert moments.stages() == {"prepare": 1.0, "sandbox": 3.0, "test": 4.0, "log": 1.0}


def test_without_an_end_the_last_stage_is_unknown() -> None:
    assert Moments(asked=1.0, forked=2.0).stages() == {"prepare": 1.0}
    assert Moments().stages() == {}


def test_what_a_child_says_is_no_time_travel() -> None:
    now = time.monotonic()
    moments = Moments(forked=now)
    moments.hear([0.0, 1e12, None, now])
    assert moments.born == now
    assert moments.ready is not None
    assert moments.ready < 1e12
    assert moments.begun is None
    assert all(seconds >= 0 for seconds in moments.stages().values())


@pytest.mark.parametrize("told", [["1"], [1], [{}], [None, True]])
def test_what_is_no_time_is_an_error_of_the_channel(told: list[object]) -> None:
    with pytest.raises(ChannelError, match="no time"):
        Moments(forked=1.0).hear(told)


def test_every_stage_but_the_wait_is_shown() -> None:
    assert set(MEANINGS) == set(STAGES) - {"wait"}
    profile = Profile()
    profile.add({"held": True, **dict.fromkeys(STAGES, 0.25)})
    profile.add({"held": False, **dict.fromkeys(STAGES, 0.75)})
    title, *lines, held = [line.text for line in profile.table()]
    assert title.split()[-3:] == ["median", "slowest", "all"]
    assert [line.split()[0] for line in lines] == [*MEANINGS]
    assert all(line.endswith("500.00 ms   750.00 ms     1.00 s") for line in lines)
    assert held.strip() == "* of 1 of 2 tests while the one before it ran"
    assert len({len(line) for line in (title, *lines)}) == 1


def test_nothing_is_shown_of_nothing() -> None:
    profile = Profile()
    profile.add(None)
    assert profile.table() == []
    with pytest.raises(TypeError):
        profile.add("stages")

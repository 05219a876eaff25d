import os

import pytest

pytestmark = pytest.mark.isolated


def test_isolated(isolation):
    assert isolation
    assert os.uname().nodename == "isolated"


@pytest.mark.not_isolated(reason="reads the serial port of the test rig")
def test_hardware(isolation):
    assert not isolation

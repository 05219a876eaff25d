import os
import socket
from pathlib import Path

import pytest


@pytest.mark.isolated(env="clean")
def test_clean_environment():
    # PATH, HOME and a few more are kept; LANG and TZ have fixed values; all else is gone.
    assert os.environ["LANG"] == "C.UTF-8"
    assert os.environ["TZ"] == "UTC"
    assert "AWS_SECRET_ACCESS_KEY" not in os.environ


@pytest.mark.isolated(env={"DEBUG": "1", "SSH_AUTH_SOCK": None})
def test_changed_environment():
    assert os.environ["DEBUG"] == "1"
    assert "SSH_AUTH_SOCK" not in os.environ


@pytest.mark.isolated(env=["clean", "DEBUG=1"])
def test_both():
    assert os.environ["DEBUG"] == "1"


@pytest.mark.isolated(hostname="db1.example")
def test_hostname():
    assert socket.gethostname() == "db1.example"


@pytest.mark.isolated(user="root")
def test_looks_like_root():
    # To the test its user is uid 0; on the host it is still whoever runs pytest.
    assert os.geteuid() == 0


@pytest.mark.isolated
def test_times_of_files_only():
    # There is no time namespace: the clock is the host's, and cannot be set.
    assert float(Path("/proc/uptime").read_text().split()[0]) > 0
    with pytest.raises(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))

"""What must never happen to the host, nor to the test that runs next."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def test_home_directory(trace):
    """Reading shows the host's files; what is written goes to a layer that is thrown away."""
    (Path.home() / trace).write_text("a test was here")
    assert (Path.home() / trace).read_text() == "a test was here"


def test_source_tree(trace):
    Path(__file__).with_name(trace).touch()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may write to /etc, in a sandbox too")
def test_system_files(trace):
    Path("/etc", trace).touch()
    Path("/etc/hosts").write_text("127.0.0.1 localhost\n127.0.0.1 production.example\n")
    assert socket.gethostbyname("production.example") == "127.0.0.1"


@pytest.mark.parametrize("attempt", [1, 2])
def test_fixed_file_name(attempt):
    """Both start with an empty /tmp, so neither finds the other's file."""
    Path("/tmp/lock").touch(exist_ok=False)


def test_network():
    """Refused by the kernel at once, for C code and subprocesses too; nothing waits for a timeout."""
    with socket.socket() as client, pytest.raises(OSError, match="Network is unreachable"):
        client.connect(("192.0.2.1", 80))


@pytest.mark.isolated(hostname="db.example")
def test_hostname():
    assert socket.gethostname() == "db.example"


def test_processes():
    """The host's processes cannot be seen, let alone killed."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    assert sorted(pids) == [1, os.getpid()]


DAEMON = """
import os, time
if child := os.fork():
    os.waitpid(child, 0)
elif os.setsid() or os.fork() == 0:
    time.sleep(600)
"""


def test_daemon(trace, running):
    """A daemon has left its parent, session and terminal, and still ends with the sandbox."""
    subprocess.run([sys.executable, "-c", DAEMON, trace], check=True)
    assert len(running()) == 1

import os
import subprocess
from pathlib import Path

import pytest


@pytest.mark.isolated(rootfs="busybox")
def test_commands_are_those_of_the_image():
    assert os.readlink("/bin/ls") == "/bin/busybox"
    shell = subprocess.run(["sh", "-c", "ls /etc | sort"], capture_output=True, text=True, check=True)
    assert shell.stdout.split() == ["group", "hosts", "passwd"]


@pytest.mark.isolated(rootfs="busybox")
def test_python_and_the_project_are_there(tmp_path):
    import sqlite3  # with the library that the host has for it

    sqlite3.connect(tmp_path / "db").close()
    assert Path(__file__).exists()


@pytest.mark.isolated(rootfs="busybox", readonly=True)
def test_the_image_stays_as_it_is():
    with pytest.raises(OSError, match="Read-only file system"):
        Path("/etc/passwd").write_text("")

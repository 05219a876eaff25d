import os
import subprocess
import threading
import time

import pytest

# Each of these tests does what a hermetic one must not, and says so: without its mark it would fail.
pytestmark = pytest.mark.isolated(watch="fail")

kept = []


@pytest.mark.isolated(watch="fail", writes=["/var/tmp/mytool/**"])
def test_files():
    # files: created /var/tmp/mytool/ (1 file, 5 bytes)
    os.mkdir("/var/tmp/mytool")
    with open("/var/tmp/mytool/cache", "w") as file:
        file.write("12345")


@pytest.mark.isolated(watch="fail", allow=["secrets"])
def test_secrets():
    # secrets: tried to read ~/.netrc
    with pytest.raises(OSError, match=r"\.netrc"):
        os.listdir(os.path.expanduser("~/.netrc"))


@pytest.mark.isolated(watch="fail", allow=["processes"])
def test_processes():
    # processes: left a process: sleep 60
    kept.append(subprocess.Popen(["sleep", "60"]))


@pytest.mark.isolated(watch="fail", allow=["threads"])
def test_threads():
    # threads: left a thread that runs sleep
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


@pytest.mark.isolated(watch="fail", allow=["descriptors"])
def test_descriptors():
    # descriptors: left a descriptor open: file /etc/passwd
    kept.append(os.open("/etc/passwd", os.O_RDONLY))


@pytest.mark.isolated(watch="fail", allow=["ipc"])
def test_ipc():
    # ipc: left POSIX shared memory /mytool
    open("/dev/shm/mytool", "w").close()


@pytest.mark.isolated(watch="fail", allow=["environment"])
def test_environment():
    # environment: changed os.environ: MYTOOL, and changed the current directory
    os.environ["MYTOOL"] = "1"
    os.chdir("/")


def test_none(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("12345")
    monkeypatch.setenv("MYTOOL", "1")
    monkeypatch.chdir(tmp_path)
    subprocess.run(["true"], check=True)
    thread = threading.Thread(target=time.sleep, args=(0.01,))
    thread.start()
    thread.join()

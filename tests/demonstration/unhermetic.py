"""Thirty tests of kinds that are met in the wild, and one that needs what another of them has left. Plain pytest
passes all of them, on each run.

A comment ``# -> kind`` marks the line that ``--isolate-strict`` is to name, and the kind of the violation;
``# -> kind by pid`` that it names the process; ``# -> broken`` that the test fails there for want of what was left. Where only the kernel knows of it, that is the test's own line. tests/plugin/test_demonstration.py holds it against that.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import locale
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

HOME = Path.home()
PROJECT = Path(__file__).parent
#: Of TEST-NET-1 (RFC 5737): nobody is there, and no packet leaves.
ELSEWHERE = "192.0.2.1"


# ---- network ---------------------------------------------------------------------------------------------


def test_phones_home() -> None:
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://{ELSEWHERE}/version", timeout=0.05)  # -> network


def test_phones_home_in_a_subprocess() -> None:
    code = f"import socket; s = socket.socket(); s.settimeout(0.05); s.connect_ex(('{ELSEWHERE}', 443))"
    subprocess.run([sys.executable, "-c", code], check=True)  # -> network by pid


def test_asks_for_a_name() -> None:
    with contextlib.suppress(OSError):
        socket.gethostbyname("updates.example.invalid")  # -> network


def test_asks_for_a_name_by_a_program_in_c() -> None:
    subprocess.run(["getent", "hosts", "metrics.example.invalid"], check=False)  # -> network by pid


def test_sends_metrics() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
        udp.sendto(b"suite.runs:1|c", (ELSEWHERE, 8125))  # -> network


def test_connects_in_a_loop_of_its_own() -> None:
    async def main() -> None:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.open_connection(ELSEWHERE, 5432), 0.05)  # -> network

    asyncio.run(main())  # -> network


def test_connects_in_a_thread() -> None:
    def connect() -> None:
        with contextlib.suppress(OSError):
            socket.create_connection((ELSEWHERE, 6379), timeout=0.05)  # -> network

    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()


# ---- files -----------------------------------------------------------------------------------------------


def test_writes_a_cache() -> None:
    cache = HOME / ".cache" / "unhermetic"
    cache.mkdir(parents=True, exist_ok=True)  # -> files
    (cache / "state.json").write_text("{}")


def test_uses_a_fixed_name_in_tmp() -> None:
    Path("/tmp/unhermetic-fixed").write_text("mine")  # -> files
    assert Path("/tmp/unhermetic-fixed").read_text() == "mine"


def test_needs_what_an_earlier_test_left() -> None:
    assert Path("/tmp/unhermetic-fixed").read_text() == "mine"  # -> broken


def test_counts_its_runs_in_a_file_that_the_last_run_left() -> None:
    counter = Path("/var/tmp/unhermetic-runs")
    runs = int(counter.read_text()) if counter.exists() else 0
    counter.write_text(str(runs + 1))  # -> files


def test_writes_into_the_project() -> None:
    (PROJECT / "report.out").write_text("done")  # -> files


def test_regenerates_its_data() -> None:
    data = PROJECT / "data.json"
    data.write_text(json.dumps({"answer": 42}))  # -> files
    assert json.loads(data.read_text())["answer"] == 42


def test_has_a_program_write_its_log() -> None:  # -> files
    subprocess.run(["sh", "-c", "echo started >> /tmp/unhermetic.log"], check=True)


def test_configures_a_tool() -> None:
    (HOME / ".unhermeticrc").write_text("verbose = true\n")  # -> files


# ---- secrets ---------------------------------------------------------------------------------------------


def test_reads_netrc() -> None:
    with contextlib.suppress(OSError):
        (HOME / ".netrc").read_text()  # -> secrets


def test_looks_for_keys() -> None:
    with contextlib.suppress(OSError):
        os.listdir(HOME / ".ssh")  # -> secrets


def test_has_credentials_of_a_cloud() -> None:
    with contextlib.suppress(OSError), open(HOME / ".aws" / "credentials"):  # -> secrets
        pass


def test_talks_to_docker() -> None:
    with socket.socket(socket.AF_UNIX) as docker:
        docker.connect_ex("/var/run/docker.sock")  # -> secrets


# ---- processes and threads -------------------------------------------------------------------------------


def test_leaves_a_server() -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3)"])  # -> processes by pid


def test_leaves_a_daemon() -> None:
    subprocess.run(["sh", "-c", "setsid sleep 3 >/dev/null 2>&1 &"], check=True)  # -> processes by pid


def test_leaves_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(3,), daemon=True).start()  # -> threads


def test_leaves_a_pool() -> None:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    assert pool.submit(sum, [1, 2]).result() == 3  # -> threads
    globals()["_pool"] = pool  # as a module does that has one for all


# ---- descriptors and shared memory -----------------------------------------------------------------------


def test_leaves_a_file_open() -> None:
    globals()["_file"] = Path("/etc/hostname").open()  # -> descriptors


def test_binds_a_fixed_port() -> None:
    server = socket.create_server(("127.0.0.1", 8080))  # -> descriptors
    globals()["_server"] = server


def test_leaves_shared_memory() -> None:  # -> ipc
    code = "import _posixshmem, os; _posixshmem.shm_open('/unhermetic', os.O_CREAT | os.O_RDWR, mode=0o600)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- environment -----------------------------------------------------------------------------------------


def test_changes_a_variable() -> None:
    os.environ["UNHERMETIC_MODE"] = "test"  # -> environment


def test_changes_the_directory() -> None:
    os.chdir("/")  # -> environment


def test_changes_the_umask() -> None:  # -> environment
    os.umask(0o077)


def test_changes_a_signal_handler() -> None:  # -> environment
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def test_changes_the_locale() -> None:  # -> environment
    locale.setlocale(locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C")

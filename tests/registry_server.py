"""A real registry (Debian's ``docker-registry``) on a free port of loopback, and pushing to it with skopeo.

The fixtures ``registry`` and ``closed_registry`` of tests/conftest.py start one::

    def test(registry: RegistryServer) -> None:
        registry.push(make_layout(), "library/tiny:1")  # then it is f"{registry.host}/library/tiny:1"
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .oci_layout import Layout

__all__ = ["PASSWORD", "USER", "RegistryServer", "need_programs", "serve_registry"]

TIME_SCALE = float(os.environ.get("TEST_TIME_SCALE", "1"))
USER, PASSWORD = "alice", "correct horse"
#: bcrypt, the only kind that the registry takes; with the least rounds.
HTPASSWD = f"{USER}:$2b$04$BM8zmTrzKar.QSxdN5c/MOYHkSYrcKNs2//.FxRCOK846nD.IjN3e\n"


@dataclass(frozen=True)
class RegistryServer:
    host: str  #: 127.0.0.1:PORT
    directory: Path
    is_closed: bool

    def push(self, layout: Layout, name: str) -> None:
        """``name``: NAME:TAG. All platforms, and with the same digests."""
        source = Path(tempfile.mkdtemp(prefix="pushed-", dir=self.directory))
        layout.write(source)
        login = [f"--dest-creds={USER}:{PASSWORD}"] if self.is_closed else []
        command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests"]
        places = [f"oci:{source}:{layout.tag}", f"docker://{self.host}/{name}"]
        ran = subprocess.run(
            [*command, "--dest-tls-verify=false", *login, *places],
            capture_output=True,
            text=True,
            timeout=60 * TIME_SCALE,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr

    def blob(self, digest: str) -> Path:
        """The file in which the registry keeps a blob."""
        algorithm, _, value = digest.partition(":")
        return self.directory / "data/docker/registry/v2/blobs" / algorithm / value[:2] / value / "data"


def need_programs(config: pytest.Config, *names: str) -> None:
    """Skip a test for want of a program; where features are required, fail."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"  # runc is root's
    missing = [name for name in names if shutil.which(name, path=path) is None]
    if not missing:
        return
    text = f"missing: {' '.join(missing)}; apt-get install {' '.join(missing)}"
    if config.getoption("--require-features") == "all":
        pytest.fail(text)
    pytest.skip(text)


@contextlib.contextmanager
def serve_registry(directory: Path, *, is_closed: bool = False) -> Iterator[RegistryServer]:
    """``is_closed``: for USER with PASSWORD only."""
    auth = {}
    if is_closed:
        (directory / "htpasswd").write_text(HTPASSWD)
        auth = {"auth": {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}}
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": "127.0.0.1:0"},  # the kernel chooses the port, and the log says it
        **auth,
    }
    path, log = directory / "config.yml", directory / "log"
    path.write_text(json.dumps(config))  # JSON is YAML
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["docker-registry", "serve", path],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
        )
    try:
        yield RegistryServer(_listening(process, log), directory, is_closed)
    finally:
        process.terminate()
        process.wait()


def _listening(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 20 * TIME_SCALE
    while process.poll() is None and time.monotonic() < deadline:
        if found := re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"docker-registry did not start: {log.read_text(errors='replace')}")

"""A command in a container of other tools, over the host's files: what a test each in one of them costs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["in_bwrap", "in_runc"]

TOP = ("etc", "opt", "root", "tmp", "usr", "var", "work")


def in_bwrap(command: list[str], suite: Path) -> list[str]:
    options = ["--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    return ["bwrap", *options, "--bind", str(suite), str(suite), *command]


def in_runc(command: list[str], suite: Path) -> list[str]:
    """Writes the bundle; raises RuntimeError where there is no runc."""
    if shutil.which("runc") is None:
        raise RuntimeError("runc is not installed; run: apt-get install runc")
    bundle = suite.parent / f"{suite.name}-bundle"
    root = bundle / "rootfs"
    mounts = [name for name in TOP if os.path.isdir(f"/{name}")]
    for name in (*mounts, "proc", "dev", "sys"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        if os.path.islink(f"/{name}") and not os.path.lexists(root / name):
            os.symlink(os.readlink(f"/{name}"), root / name)
    config = bundle / "config.json"
    config.unlink(missing_ok=True)
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    spec = json.loads(config.read_text())
    environ = [f"{name}={value}" for name, value in os.environ.items() if name in ("PATH", "HOME")]
    spec["process"] |= {"terminal": False, "args": command, "cwd": str(suite), "env": [*environ, "TESTS=5"]}
    spec["mounts"] += [
        {"destination": f"/{name}", "type": "bind", "source": f"/{name}", "options": ["rbind"]}
        for name in mounts
    ]
    config.write_text(json.dumps(spec))
    return ["runc", "run", "--bundle", str(bundle), f"isolate-benchmark-{os.getpid()}"]

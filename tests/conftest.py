"""Gating of tests that need kernel features: ``@pytest.mark.needs("overlay")``, and the check for leftovers."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pytest_isolate.kernel.features import Feature, probe

from .registry_server import RegistryServer, need_programs, serve_registry

#: Beside another worker of xdist it may be its session whose cgroups wait for the next one to remove them.
WAIT_S = 60.0 if "PYTEST_XDIST_WORKER" in os.environ else 3.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-features",
        choices=["all", "default"],
        default=None,
        help="a missing kernel feature is a failure and no skip: all of them, or those of the default sandbox",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*features): kernel features (pytest-isolate doctor) needed")


@cache
def features() -> dict[str, Feature]:
    return {feature.name: feature for feature in probe()}


def pytest_runtest_setup(item: pytest.Item) -> None:
    required = item.config.getoption("--require-features")
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            feature = features()[name]
            if feature.available:
                continue
            if required == "all" or (required == "default" and feature.needed):
                pytest.fail(f"{name} is required here: {feature.reason}; {feature.cure}")
            pytest.skip(f"{name} is not available: {feature.reason}; {feature.cure}")


def leftovers() -> dict[str, set[str]]:
    """What this process and the plugin could have left on the machine."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    cgroups = {
        str(path)
        for line in mounts
        if " - cgroup" in line and Path(line.split(" ")[4]).is_dir()
        for path in _our_cgroups(line.split(" ")[4])
    }
    return {
        "children": set(children),
        "mounts": {line.split(" ")[4] for line in mounts},
        "cgroups": cgroups,
        "descriptors": set(os.listdir("/proc/self/fd")),
    }


def _our_cgroups(mount_point: str) -> Iterator[Path]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        path = Path(mount_point + line.split(":", 2)[2])
        for directory in (path, path.parent):
            if directory.is_dir():
                found = (d for d in directory.glob("pytest-isolate-*") if d.name != "pytest-isolate-leaf")
                yield from (d for d in found if not _is_locked(d))


def _is_locked(directory: Path) -> bool:
    """Whether a session that is alive holds it: one beside this one, on the same machine."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return True  # gone by now
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test that deals with the kernel: no child, mount, cgroup or descriptor more than before."""
    if "kernel" not in request.path.parts and "plugin" not in request.path.parts:
        yield
        return
    before = leftovers()
    yield
    deadline = time.monotonic() + WAIT_S
    while True:
        left = {what: sorted(now - before[what]) for what, now in leftovers().items()}
        if not any(left.values()) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert not any(left.values()), f"left behind: {left}"


@pytest.fixture(scope="module")
def registry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RegistryServer]:
    """A registry for everybody."""
    need_programs(request.config, "docker-registry", "skopeo")
    with serve_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="module")
def closed_registry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RegistryServer]:
    """A registry for those who log in as registry_server.USER with registry_server.PASSWORD."""
    need_programs(request.config, "docker-registry", "skopeo")
    with serve_registry(tmp_path_factory.mktemp("closed-registry"), is_closed=True) as server:
        yield server

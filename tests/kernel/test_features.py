"""The probe, on this machine as it is and with something taken away from it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_isolate.cli.doctor import whole_sandbox
from pytest_isolate.kernel.features import Feature, probe
from pytest_isolate.kernel.host import Host

TIME_SCALE = float(os.environ.get("TEST_TIME_SCALE", "1"))
DOCTOR = (sys.executable, "-m", "pytest_isolate.cli", "doctor", "--json")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")

#: Installs a filter that answers system call argv[1] with errno argv[2], as container engines do, and runs
#: the rest of its arguments (seccomp(2); BPF: load the number, compare, refuse or allow).
SECCOMP = """
import ctypes, os, struct, sys
number, error = int(sys.argv[1]), int(sys.argv[2])
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | error), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(code)))
prctl = ctypes.CDLL(None).prctl
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, filter, 0, 0) == 0
os.execv(sys.argv[3], sys.argv[3:])
"""
SYS_CLONE3 = 435  # on every architecture


def doctor(*before: str, shell: str = "", env: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """(exit status, features by name) of the doctor, run by way of ``before`` and after ``shell``."""
    command: Sequence[str] = (*before, *DOCTOR)
    if shell:
        command = (*before, "sh", "-ec", f'{shell}; exec "$@"', "sh", *DOCTOR)
    environment = {**os.environ, **(env or {})}
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=60 * TIME_SCALE, env=environment, check=False
    )
    assert ran.stdout, ran.stderr
    report = json.loads(ran.stdout)
    return ran.returncode, {feature["name"]: feature for feature in report["features"]}


def broken(features: dict[str, Any]) -> set[str]:
    """Needed features that are missing for a reason of their own."""
    return {
        name
        for name, feature in features.items()
        if feature["needed"] and not feature["available"] and not feature["reason"].startswith("needs ")
    }


@pytest.fixture(scope="module")
def features() -> dict[str, Feature]:
    found = probe()
    assert len({feature.name for feature in found}) == len(found)
    return {feature.name: feature for feature in found}


@pytest.mark.vm
def test_what_is_missing_has_a_reason(features: dict[str, Feature]) -> None:
    for feature in features.values():
        assert feature.available != bool(feature.reason), feature
        assert "\n" not in feature.reason + feature.cure + feature.detail


@pytest.mark.vm
def test_limits_come_with_the_cgroup(features: dict[str, Feature]) -> None:
    if not features["cgroup"].available:
        assert features["cgroup memory limit"].reason == "needs cgroup"
    assert features["cgroup"].detail.split(":")[0] in ("v1", "v2", "hybrid", "")


@pytest.mark.vm
@pytest.mark.needs("overlay")
def test_overlay_xattrs_without_privileges_take_linux_6_6(features: dict[str, Feature]) -> None:
    host = Host()
    expected = host.privileged or host.kernel >= (6, 6)
    assert features["overlay xattrs"].available == expected, features["overlay xattrs"]


@pytest.mark.vm
@as_root
def test_everything_is_there_for_root(features: dict[str, Feature], request: pytest.FixtureRequest) -> None:
    missing = [feature for feature in features.values() if not feature.available]
    if missing and request.config.getoption("--require-features") != "all":
        pytest.skip(f"missing here: {missing}")
    assert not missing
    assert features["overlay"].detail == "of /, with privileges"


@pytest.mark.vm
@pytest.mark.needs("user namespace", "id maps", "overlay", "fresh proc", "loopback")
def test_a_process_runs_in_the_whole_sandbox() -> None:
    whole = whole_sandbox(Host())
    assert whole.available, whole


@as_root
@pytest.mark.needs("user namespace")
def test_nobody_gets_the_default_sandbox() -> None:
    if subprocess.run([*NOBODY, sys.executable, "-c", "import pytest_isolate.cli"], check=False).returncode:
        pytest.skip("nobody may not run this Python")
    status, features = doctor(*NOBODY, env={"HOME": "/nonexistent"})
    assert (status, broken(features)) == (0, set())
    assert "low ports" not in features
    assert features["overlay"]["detail"] != "of /"


@pytest.mark.vm
@pytest.mark.needs("user namespace")
def test_root_of_a_user_namespace_gets_the_default_sandbox() -> None:
    """It has CAP_SYS_ADMIN, and still no overlay covers its /."""
    status, features = doctor("unshare", "--user", "--map-root-user", "--mount")
    assert (status, broken(features)) == (0, set())


@pytest.mark.needs("user namespace")
@pytest.mark.parametrize(("kind", "name"), [("user", "user namespace"), ("net", "network namespace")])
def test_a_limit_of_namespaces_is_named(kind: str, name: str) -> None:
    sysctl = f"/proc/sys/user/max_{kind}_namespaces"  # each user namespace has limits of its own
    status, features = doctor("unshare", "--user", "--map-root-user", shell=f"echo 0 > {sysctl}")
    assert (status, broken(features)) == (1, {name})
    assert features[name]["reason"] == f"user.max_{kind}_namespaces is 0"
    assert features[name]["cure"] == f"run: sudo sysctl -w user.max_{kind}_namespaces=15000"


@as_root
@pytest.mark.needs("user namespace")
def test_root_that_may_not_map_itself_is_told_why() -> None:
    status, features = doctor("setpriv", "--bounding-set=-setfcap", "--inh-caps=-all")
    assert (status, broken(features)) == (1, {"id maps"})
    assert features["id maps"]["reason"] == "writing its id maps takes CAP_SETFCAP"


@pytest.mark.needs("user namespace")
def test_a_masked_proc_is_named() -> None:
    if not Path("/proc/keys").exists():
        pytest.skip("no /proc/keys to mask")
    before = ("unshare", "--user", "--map-root-user", "--mount")
    status, features = doctor(*before, shell="mount --bind /dev/null /proc/keys")
    assert (status, broken(features)) == (1, {"fresh proc"})
    assert "/proc/keys is covered" in features["fresh proc"]["reason"]


def test_a_container_engines_filter_is_named() -> None:
    before = (sys.executable, "-c", SECCOMP, str(SYS_CLONE3), str(errno.ENOSYS))
    status, features = doctor(*before, env={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert (status, broken(features)) == (1, {"supervisor"})
    assert features["supervisor"]["reason"] == "the seccomp filter of Kubernetes refuses it"
    assert "hostUsers: false" in features["supervisor"]["cure"]


@pytest.mark.needs("user namespace")
def test_what_only_the_whole_shows_is_found() -> None:
    """Every part can be made, and no process can enter."""
    setns = {"x86_64": 308, "aarch64": 268}[os.uname().machine]
    status, features = doctor(sys.executable, "-c", SECCOMP, str(setns), str(errno.EPERM))
    assert (status, broken(features)) == (1, {"default sandbox"})
    assert features["default sandbox"]["reason"].startswith("cannot enter the ")


def test_a_supervisor_that_ends_at_once_is_reported() -> None:
    pidfd_open = 434  # on every architecture
    status, features = doctor(sys.executable, "-c", SECCOMP, str(pidfd_open), str(errno.EPERM))
    assert (status, broken(features)) == (1, {"supervisor"})
    assert not features["ptrace"]["available"]

"""Where the process is, from texts of /proc as real machines show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_isolate.errors import UnsupportedError
from pytest_isolate.kernel.cgroups import cures, open_cgroups, prepare_leaf
from pytest_isolate.kernel.cgroups.detect import Mount, find_place, parse_membership, parse_mounts

HYBRID_CGROUP = """\
9:name=systemd:/
8:pids:/
7:blkio:/
4:memory:/process_api/e034ff08
3:cpuset:/
2:cpuacct:/
1:cpu:/
0::/
"""
HYBRID_MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
31 23 0:28 / {root} rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / {root}/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / {root}/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
35 31 0:32 / {root}/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / {root}/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / {root}/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / {root}/unified rw,relatime - cgroup2 cgroup2 rw
"""
# Debian 12 with systemd 252.
V2_CGROUP = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope\n"
V2_MOUNTS = """\
29 1 0:24 / / rw,relatime shared:1 - overlay root rw,lowerdir=/lower,upperdir=/up/u
37 35 0:34 / {root} rw,nosuid,nodev,noexec,relatime shared:12 - cgroup2 cgroup2 rw,nsdelegate
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A stand-in for /proc, beside a stand-in for /sys/fs/cgroup."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "cg").mkdir()
    return tmp_path / "proc"


def describe(proc: Path, cgroup: str, mounts: str, *directories: str) -> str:
    root = proc.parent / "cg"
    (proc / "self/cgroup").write_text(cgroup)
    (proc / "self/mountinfo").write_text(mounts.format(root=root))
    for directory in directories:
        (root / directory).mkdir(parents=True, exist_ok=True)
    return str(root)


def test_hybrid_uses_v1(proc: Path) -> None:
    root = describe(
        proc, HYBRID_CGROUP, HYBRID_MOUNTS, "cpu", "cpuacct", "memory/process_api/e034ff08", "pids", "unified"
    )
    place = find_place(str(proc))
    assert place.version == "hybrid"
    assert place.v1 == {
        "memory": f"{root}/memory/process_api/e034ff08",
        "cpu": f"{root}/cpu",
        "cpuacct": f"{root}/cpuacct",
        "pids": f"{root}/pids",
    }
    assert not place.problems


def test_co_mounted_controllers_share_a_directory(proc: Path) -> None:
    mounts = "33 31 0:30 / {root}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    root = describe(proc, "4:cpu,cpuacct:/a\n", mounts, "cpu,cpuacct/a")
    place = find_place(str(proc))
    assert place.version == "v1"
    assert place.v1 == {"cpu": f"{root}/cpu,cpuacct/a", "cpuacct": f"{root}/cpu,cpuacct/a"}


def test_v2(proc: Path) -> None:
    own = V2_CGROUP.strip().removeprefix("0::/")
    root = describe(proc, V2_CGROUP, V2_MOUNTS, own)
    place = find_place(str(proc))
    assert (place.version, place.v1, place.v2) == ("v2", {}, f"{root}/{own}")


def test_mount_that_shows_the_own_cgroup_as_its_root(proc: Path) -> None:
    """Docker on v1, without a cgroup namespace."""
    mounts = "35 31 0:32 /docker/abc {root}/memory rw - cgroup cgroup rw,memory\n"
    root = describe(proc, "4:memory:/docker/abc\n", mounts, "memory")
    assert find_place(str(proc)).v1 == {"memory": f"{root}/memory"}


def test_second_mount_serves_where_the_first_is_read_only(proc: Path) -> None:
    mounts = (
        "35 31 0:32 / {root}/one ro,nosuid - cgroup2 cgroup rw\n"
        "36 31 0:32 /a {root}/two rw,nosuid - cgroup2 cgroup rw\n"
    )
    root = describe(proc, "0::/a/b\n", mounts, "two/b")
    assert find_place(str(proc)).v2 == f"{root}/two/b"


@pytest.mark.parametrize(
    ("cgroup", "mount", "reason"),
    [
        pytest.param("0::/\n", "/ {root} ro,nosuid", "{root} is mounted read-only", id="docker"),
        pytest.param(
            "0::/\n", "/../.. {root} rw", "{root} shows /../.., and this process is in /", id="bind"
        ),
        pytest.param("0::/../x\n", "/ {root} rw", "{root} shows /, and this process is in /../x", id="moved"),
        pytest.param("0::/ab\n", "/a {root} rw", "{root} shows /a, and this process is in /ab", id="sibling"),
        pytest.param("0::/gone\n", "/ {root} rw", "{root}/gone is not writable for uid ", id="not-there"),
    ],
)
def test_unusable_mount(proc: Path, cgroup: str, mount: str, reason: str) -> None:
    root = describe(proc, cgroup, f"37 35 0:34 {mount} - cgroup2 cgroup2 rw\n")
    with pytest.raises(UnsupportedError) as caught:
        open_cgroups(proc=str(proc), run_id="x")
    assert caught.value.feature == "cgroup"
    assert caught.value.reason.startswith(reason.format(root=root))
    assert caught.value.cure
    prepare_leaf(proc=str(proc))()  # says nothing, and does nothing


def test_nothing_mounted(proc: Path) -> None:
    describe(proc, HYBRID_CGROUP, "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n")
    with pytest.raises(UnsupportedError, match="no mount shows cgroup /process_api/e034ff08"):
        open_cgroups(proc=str(proc), run_id="x")


def test_no_proc_at_all(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no cgroup file system is mounted"):
        open_cgroups(proc=str(tmp_path), run_id="x")


def test_membership() -> None:
    text = "5:cpu,cpuacct:/a:b\n1:name=systemd:/s\n0::/u\n"
    assert parse_membership(text) == {"cpu": "/a:b", "cpuacct": "/a:b", "name=systemd": "/s", "": "/u"}


def test_mounts_are_unescaped_and_hidden_ones_left_out() -> None:
    text = (
        r"31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
        "\n"
        r"32 31 0:29 /a\040b /my\040cgroups rw shared:3 master:4 - cgroup2 cgroup2 rw"
        "\n"
        r"33 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw"
        "\n"
    )
    expected = Mount(root="/a b", point="/my cgroups", readonly=False, controllers=frozenset({""}))
    assert parse_mounts(text) == [expected]


@pytest.mark.parametrize(
    ("seen", "uid", "cure"),
    [
        ("_DOCKER", 1000, "run docker with --cgroupns=private"),
        ("_PODMAN", 0, "run podman with --cgroups=split"),
        ("_SYSTEMD", 1000, "start pytest with: systemd-run --user --scope -p Delegate=yes pytest"),
        ("_SYSTEMD", 0, "start pytest with: systemd-run --scope -p Delegate=yes pytest"),
        (None, 0, "make the cgroup file system writable"),
        (None, 1000, "run pytest as root"),
    ],
)
def test_cure_fits_the_machine(
    monkeypatch: pytest.MonkeyPatch, seen: str | None, uid: int, cure: str
) -> None:
    for name in ("_DOCKER", "_PODMAN", "_SYSTEMD"):
        monkeypatch.setattr(cures, name, "/" if name == seen else "/nonexistent")
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert cures.delegated_scope().startswith(cure)


def test_cure_in_wsl_2_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_DOCKER", "_PODMAN", "_SYSTEMD"):
        monkeypatch.setattr(cures, name, "/nonexistent")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    release = "5.15.90.1-microsoft-standard-WSL2"
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "pc", release, "#1", "x86_64")))
    assert cures.delegated_scope().startswith("put systemd=true below [boot] into /etc/wsl.conf")


def test_cure_in_a_kubernetes_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_DOCKER", "_PODMAN", "_SYSTEMD"):
        monkeypatch.setattr(cures, name, "/nonexistent")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert "privileged" in cures.delegated_scope()

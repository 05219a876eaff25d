"""What a failed step is explained with, in the places where people run tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from errno import EACCES, EAGAIN, EINVAL, EIO, ENODEV, ENOENT, ENOSPC, ENOSYS, EPERM
from pathlib import Path
from typing import Any

import pytest

from pytest_isolate.kernel import diagnosis, surroundings
from pytest_isolate.kernel.acts import Act, act_of
from pytest_isolate.kernel.features import explain_failure
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.namespaces import Namespace
from pytest_isolate.kernel.trials import trials
from pytest_isolate.sandbox import enter, reach, steps
from pytest_isolate.sandbox.oci import stage
from pytest_isolate.spec import TcpPort
from pytest_isolate.syscalls.program import Program

CREATE = "create the namespaces"
MAP = steps.describe(steps.MapSelf("1000 1000 1", "1000 1000 1"))
PRIVATE = steps.describe(steps.MakePrivate())
SCRATCH = steps.describe(steps.MakeScratch(2**30))
OVERLAY = steps.describe(steps.MountOverlay("/srv/data", "/srv/data", layer="1", user_xattrs=True))
BIND = steps.describe(steps.MountBind("/nowhere", "/here", readonly=True))
PROC = steps.describe(steps.MountProc())
LO = steps.describe(steps.LoopbackUp())
ROOT_MOUNT = "1 0 8:1 / / rw - ext4 /dev/sda rw"
DOCKER = "run docker with --security-opt seccomp=unconfined"
PODMAN = "run podman with --security-opt seccomp=unconfined"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A machine, as its /proc shows it."""

    sysctls: dict[str, str] = field(default_factory=dict)
    mounts: tuple[str, ...] = (ROOT_MOUNT,)
    version: str = "Linux version 6.8.0-31-generic"
    seccomp: int = 0
    capabilities: int = 0
    profile: str = "unconfined\n"
    engine: str = ""
    privileged: bool = False
    kernel: tuple[int, int] = (6, 8)

    def host(self, directory: Path) -> Host:
        status = f"CapEff:\t{self.capabilities:016x}\nSeccomp:\t{self.seccomp}\n"
        files = {
            "version": self.version,
            "self/status": status,
            "self/mountinfo": "".join(f"{mount}\n" for mount in self.mounts),
            "self/attr/current": self.profile,
            **{f"sys/{name.replace('.', '/')}": f"{value}\n" for name, value in self.sysctls.items()},
        }
        for name, text in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        host = Host(str(directory))
        host.uid = 1000
        vars(host).update(privileged=self.privileged, kernel=self.kernel)
        return host


@pytest.fixture(autouse=True)
def nowhere_special(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for name in ("DOCKER_MARK", "PODMAN_MARK"):
        monkeypatch.setattr(surroundings, name, str(tmp_path / name))
    monkeypatch.setattr(diagnosis, "SELINUX_ENFORCE", str(tmp_path / "enforce"))


UBUNTU = Place(sysctls={"kernel.apparmor_restrict_unprivileged_userns": "1"})
UBUNTU_CURE = "run: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
DEBIAN_10 = Place(sysctls={"kernel.unprivileged_userns_clone": "0"})
NO_NAMESPACES = Place(sysctls={"user.max_user_namespaces": "0"})
NO_NETWORKS = Place(sysctls={"user.max_user_namespaces": "100", "user.max_net_namespaces": "0"})
IN_DOCKER = Place(engine="DOCKER_MARK", seccomp=2, profile="docker-default (enforce)\n")
IN_DOCKER_ON_UBUNTU = Place(engine="DOCKER_MARK", seccomp=2, sysctls=UBUNTU.sysctls)
NO_SECCOMP = Place(engine="DOCKER_MARK", profile="docker-default (enforce)\n")
MASKED = Place(engine="DOCKER_MARK", mounts=(ROOT_MOUNT, "2 1 0:5 /null /proc/kcore rw - tmpfs none rw"))
IN_PODMAN = Place(engine="PODMAN_MARK", seccomp=2)
NESTED = Place(mounts=("1 0 0:9 / / rw - overlay overlay rw",), privileged=True)
ON_NTFS = Place(mounts=(ROOT_MOUNT, "2 1 8:2 / /srv rw - ntfs3 /dev/sdb rw"))
MOUNT_INSIDE = Place(mounts=(ROOT_MOUNT, "2 1 8:2 / /srv/data/more rw - ext4 /dev/sdb rw"))
IN_CHROOT = Place(mounts=("2 1 8:2 / /home rw - ext4 /dev/sdb rw",))
INITRAMFS = Place(mounts=("1 0 0:1 / / rw - rootfs rootfs rw",), privileged=True)
GVISOR = Place(version="Linux version 4.19.0-gvisor #1 SMP Sun Jan 10 15:06:54 PST 2016", kernel=(4, 19))
WSL_1 = Place(version="Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com)", kernel=(4, 4))
WSL_2 = Place(version="Linux version 5.15.90.1-microsoft-standard-WSL2 (Microsoft@Microsoft.com)")
WEAK_ROOT = Place(privileged=True, capabilities=1 << 6 | 1 << 7 | 1 << 21)
SERVICE = Place(seccomp=2)
PLAIN = Place()
RHEL_8 = Place(kernel=(4, 18))

USER, DATA = "user namespace", "overlay of /srv/data"
SITUATIONS: list[tuple[str, Place, str, int, str, str, str]] = [
    ("Ubuntu 24.04, setgroups", UBUNTU, MAP, EACCES, USER, "AppArmor", UBUNTU_CURE),
    ("Ubuntu 24.04, uid_map", UBUNTU, MAP, EPERM, USER, "AppArmor", UBUNTU_CURE),
    ("Ubuntu 24.04, lo", UBUNTU, LO, EPERM, "loopback interface", "AppArmor", UBUNTU_CURE),
    ("Ubuntu 24.04, mounts", UBUNTU, PRIVATE, EACCES, "private mount namespace", "AppArmor", UBUNTU_CURE),
    ("Ubuntu 24.04, tmpfs", UBUNTU, SCRATCH, EPERM, "scratch tmpfs", "AppArmor", UBUNTU_CURE),
    ("Ubuntu 24.04, proc", UBUNTU, PROC, EACCES, "fresh /proc", "AppArmor", UBUNTU_CURE),
    ("Ubuntu 23.10, clone", UBUNTU, CREATE, EPERM, USER, "AppArmor", UBUNTU_CURE),
    (
        "Debian 10", DEBIAN_10, CREATE, EPERM, USER,
        "kernel.unprivileged_userns_clone is 0", "run: sudo sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        "no user namespaces", NO_NAMESPACES, CREATE, ENOSPC, USER,
        "user.max_user_namespaces is 0", "run: sudo sysctl -w user.max_user_namespaces=15000",
    ),
    (
        "no net namespaces", NO_NETWORKS, CREATE, ENOSPC, USER,
        "user.max_net_namespaces is 0", "run: sudo sysctl -w user.max_net_namespaces=15000",
    ),
    ("too many", PLAIN, CREATE, ENOSPC, USER, "32 deep", "run: sysctl -a"),
    ("Docker, clone3", IN_DOCKER, CREATE, ENOSYS, USER, "seccomp filter of Docker", DOCKER),
    ("Docker, clone3 before 20.10.10", IN_DOCKER, CREATE, EPERM, USER, "seccomp", DOCKER),
    ("Docker on Ubuntu", IN_DOCKER_ON_UBUNTU, CREATE, EPERM, USER, "seccomp", DOCKER),
    ("Docker on Ubuntu, maps", IN_DOCKER_ON_UBUNTU, MAP, EACCES, USER, "AppArmor", UBUNTU_CURE),
    ("Docker's AppArmor", NO_SECCOMP, SCRATCH, EACCES, "scratch tmpfs", "docker-default", DOCKER),
    ("Docker's masks", MASKED, PROC, EPERM, "fresh /proc", "/proc/kcore is covered", DOCKER),
    ("Podman", IN_PODMAN, CREATE, EPERM, USER, "seccomp filter of Podman", PODMAN),
    ("Podman, mount", IN_PODMAN, PROC, EPERM, "fresh /proc", "Podman", PODMAN),
    ("root without CAP_SETFCAP", WEAK_ROOT, MAP, EPERM, USER, "CAP_SETFCAP", "run pytest as root"),
    ("a service", SERVICE, CREATE, EPERM, USER, "seccomp", "run pytest outside the service"),
    ("nested overlays", NESTED, OVERLAY, EINVAL, DATA, "two at most", "run pytest one"),
    ("ntfs", ON_NTFS, OVERLAY, EINVAL, DATA, "is on ntfs3", "move it"),
    ("mount below", MOUNT_INSIDE, OVERLAY, EINVAL, DATA, "/srv/data/more", "run pytest as"),
    ("no module", PLAIN, OVERLAY, ENODEV, DATA, "no overlay", "run: sudo modprobe overlay"),
    ("before 5.11", RHEL_8, OVERLAY, EPERM, DATA, "for root only", "use Linux 5.11"),
    ("chroot", IN_CHROOT, CREATE, EPERM, USER, "chroot", "run pytest outside"),
    ("chroot, root", IN_CHROOT, SCRATCH, EINVAL, "scratch tmpfs", "no mount point", "before the chroot"),
    ("initramfs", INITRAMFS, SCRATCH, EINVAL, "scratch tmpfs", "initramfs", "boot a root"),
    ("no such directory", PLAIN, BIND, ENOENT, "bind mount of /nowhere", "not there", "check rootfs, b"),
    ("full", PLAIN, OVERLAY, ENOSPC, DATA, "is full", "raise tmp_size"),
    ("gVisor", GVISOR, CREATE, EINVAL, USER, "gVisor", "use a container runtime"),
    ("gVisor, mount", GVISOR, OVERLAY, ENODEV, DATA, "gVisor", "use a container runtime"),
    ("WSL 1", WSL_1, CREATE, EINVAL, USER, "WSL 1", "run in Windows: wsl --set-version"),
    ("WSL 2", WSL_2, CREATE, EPERM, USER, "uid 1000", "run pytest as root"),
    ("old kernel", RHEL_8, CREATE, ENOSYS, USER, "Linux 4.18", "use Linux 5.15"),
    ("kernel without", PLAIN, CREATE, EINVAL, USER, "built without", "run: zgrep"),
    ("no processes left", PLAIN, CREATE, EAGAIN, USER, "ulimit -u", "run: ulimit -u"),
    ("unknown", PLAIN, "do a thing", EIO, "sandbox", "Input/output error", "run: pytest-isolate doctor"),
    ("join", PLAIN, "join the cgroup", EACCES, "cgroup", "may not join", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "step", "error", "feature", "reason", "cure"),
    [pytest.param(*rest, id=name) for name, *rest in SITUATIONS],
)
def test_explain_failure(
    place: Place,
    step: str,
    error: int,
    feature: str,
    reason: str,
    cure: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if place.engine:
        monkeypatch.setattr(surroundings, place.engine, __file__)
    explained = explain_failure(step, error, place.host(tmp_path))
    assert explained.feature == feature
    assert reason in explained.reason
    assert explained.cure.startswith(cure)
    assert "\n" not in str(explained)


def test_kubernetes_is_told_by_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    explained = explain_failure(CREATE, EPERM, IN_DOCKER.host(tmp_path))
    assert "Kubernetes" in explained.reason
    assert "hostUsers: false" in explained.cure


def test_selinux_is_named(tmp_path: Path) -> None:
    (tmp_path / "enforce").write_text("1")
    host = Place(profile="unconfined_u:unconfined_r:unconfined_t:s0").host(tmp_path)
    assert explain_failure(SCRATCH, EACCES, host).reason == "SELinux refuses it"


def test_a_missing_proc_is_survived(tmp_path: Path) -> None:
    host = Place().host(tmp_path)
    (tmp_path / "self" / "status").unlink()
    (tmp_path / "version").unlink()
    assert explain_failure(CREATE, EPERM, host).cure == "run pytest as root"


EVERY_STEP: dict[type, tuple[Any, ...]] = {
    steps.MakePrivate: (),
    steps.MapSelf: ("0 0 1", "0 0 1"),
    steps.MapByHelpers: ("0 1 1", "0 1 1", "/usr/bin/newuidmap", "/usr/bin/newgidmap"),
    steps.MakeScratch: (1,),
    steps.MakeDirectory: ("/a",),
    steps.MakeSymlink: ("/a", "/b"),
    steps.MountOverlay: ("/a", "/a", "1", True),
    steps.MountBind: ("/a", "/a", True),
    steps.MountScratch: ("/a", 0o755),
    steps.MountProc: (),
    steps.MountSys: ("/sys", True),
    steps.MountDev: ("/dev", ("null",)),
    steps.MakeReadOnly: ("/a",),
    steps.ChangeRoot: (),
    steps.OpenLowPorts: (),
    steps.LoopbackUp: (),
    steps.SetHostname: ("a",),
    steps.EnterUserNamespace: ("0 0 1", "0 0 1"),
    steps.LimitNamespaces: (0,),
    steps.HandOut: ((Namespace.PID,),),
    steps.Seal: (),
    reach.ListenOn: (TcpPort(host=80, inside=8080), ("127.0.0.1",)),
    reach.MountHosts: ("/etc/hosts", "127.0.0.1 db"),
    stage.Stage: ("/stage", 1, ()),
    stage.LendCgroups: ("/stage", ()),
}


@pytest.mark.parametrize("kind", steps.Step.__args__, ids=lambda kind: kind.__name__)
def test_each_step_is_known(kind: type) -> None:
    step = kind(*EVERY_STEP[kind])
    assert act_of(steps.describe(step)) is not Act.OTHER


def test_binding_sys_is_no_bind_of_the_users() -> None:
    assert act_of(steps.describe(steps.MountSys("/sys", fresh=False))) is Act.SYS


@pytest.mark.parametrize("name", enter.STEP_NAMES.values())
def test_each_stage_of_entering_is_known(name: str) -> None:
    assert act_of(name) is not Act.OTHER


@pytest.mark.parametrize("privileged", [True, False])
def test_trials_are_named_once_and_ordered(privileged: bool) -> None:
    host = Host()
    vars(host)["privileged"] = privileged
    seen: set[str] = set()
    for trial in trials(host):
        assert trial.name not in seen
        assert set(trial.after) <= seen
        assert (Namespace.USER in trial.namespaces) == (not privileged and trial.name != "supervisor")
        program = Program()
        trial.build(program)
        assert all(act_of(call.label) is not Act.OTHER for call in program.calls)
        seen.add(trial.name)

"""A plan as config.json: valid by the specification's schema, and what it says of a sandbox."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
import referencing
from referencing.jsonschema import DRAFT4

from pytest_isolate.errors import UnsupportedError
from pytest_isolate.kernel.host import Entry, Host
from pytest_isolate.kernel.mounts import MountPoint
from pytest_isolate.kernel.seccomp import DENIED
from pytest_isolate.kernel.supervisor import CONTAINER_INIT
from pytest_isolate.sandbox.images.manifest import Config, own_platform
from pytest_isolate.sandbox.images.store import Image
from pytest_isolate.sandbox.lending import Workspace
from pytest_isolate.sandbox.oci.config import RUNTIME_PIDS, Machine, Process, config
from pytest_isolate.sandbox.oci.stage import Directory, Link, layout
from pytest_isolate.sandbox.plan import make_plan
from pytest_isolate.spec import Bind, ImageRootfs, Limits, Network, Seccomp, Spec, Start, User

SCHEMA = Path(__file__).with_name("runtime_spec")
PROCESS = Process(
    args=["/run/pytest-isolate/init", "0", "0", "--", "/bin/true"],
    env={"PATH": "/bin"},
    cwd="/work",
    uid=0,
    gid=0,
    is_remapped=False,
    groups=[0, 4],
    umask=0o22,
    rlimits={"RLIMIT_NOFILE": (64, 64)},
)
MACHINE = Machine(name="x86_64", capabilities=2**41 - 1, has_swap=True, has_cgroups=True, cgroup="/t1")


class ThisHost(Host):
    """A machine of a few files."""

    uid_extents = gid_extents = ((0, 2**32 - 1),)
    devices = ("null", "zero")
    mounts = (
        MountPoint(path="/", fstype="ext4", root="/", readonly=False),
        MountPoint(path="/srv/data", fstype="xfs", root="/", readonly=False),
    )
    tree: ClassVar[dict[str, Any]] = {
        "/": {
            "bin": "usr/bin",
            "etc": {},
            "home": {},
            "srv": {"data": {}, "x": {}},
            "tmp": {},
            "usr": {},
            "log": 1,
        },
    }

    def __init__(self, *, privileged: bool = True) -> None:
        super().__init__()
        self.__dict__["privileged"] = privileged
        self.uid = self.gid = 0 if privileged else 1000

    def entries(self, directory: str) -> tuple[Entry, ...]:
        if directory in self.tree:
            found: Any = self.tree[directory]
        else:
            found = self.tree["/"]
            for part in directory.strip("/").split("/"):
                found = found.get(part, {}) if isinstance(found, dict) else {}
        at = directory.rstrip("/")
        return tuple(
            Entry(
                path=f"{at}/{name}",
                is_directory=isinstance(what, dict),
                points_to=what if isinstance(what, str) else None,
            )
            for name, what in sorted(found.items())
        )

    def exists(self, path: str) -> bool:
        return True

    def is_directory(self, path: str) -> bool:
        return not path.endswith((".py", "init"))

    def is_writable(self, path: str) -> bool:
        return self.uid == 0 or path.startswith("/home")

    def is_readable(self, path: str) -> bool:
        return path != "/srv"

    def ownership(self, path: str) -> tuple[int, tuple[int, int]]:
        return (0o711, (7, 8)) if path == "/home" else (0o755, (0, 0))


def make(
    spec: Spec, *, privileged: bool = True, machine: Machine = MACHINE, image: Image | None = None
) -> dict[str, Any]:
    workspace = Workspace(
        cwd="/work", project=("/home/me/project",), interpreter=("/opt/python",), writable=("/tmp/pytest-0",)
    )
    spec = replace(spec, runtime="runc", start=Start.SPAWN)
    plan = make_plan(spec, ThisHost(privileged=privileged), workspace, image)
    process = replace(PROCESS, is_remapped=not privileged)
    content = config(plan, process, machine, "/stage/layers")
    validator().validate(content)
    assert json.loads(json.dumps(content)) == content
    return content


@cache
def validator() -> jsonschema.Draft4Validator:
    files = {path.name: json.loads(path.read_text()) for path in SCHEMA.glob("*.json")}
    registry: Any = referencing.Registry().with_resources(
        (name, referencing.Resource.from_contents(content, default_specification=DRAFT4))
        for name, content in files.items()
    )
    return jsonschema.Draft4Validator({"$ref": "config-schema.json"}, registry=registry)


def mount(content: dict[str, Any], target: str) -> dict[str, Any]:
    (found,) = (mount for mount in content["mounts"] if mount["destination"] == target)
    assert isinstance(found, dict)
    return found


def test_the_schema_refuses_what_is_wrong() -> None:
    content = make(Spec())
    content["linux"]["namespaces"].append({"type": "time-machine"})
    with pytest.raises(jsonschema.ValidationError):
        validator().validate(content)


def test_namespaces_and_ids_as_root() -> None:
    content = make(Spec())
    kinds = [namespace["type"] for namespace in content["linux"]["namespaces"]]
    assert kinds == ["user", "pid", "mount", "network", "ipc", "uts", "cgroup"]
    everybody = [{"containerID": 0, "hostID": 0, "size": 2**32 - 1}]
    assert content["linux"]["uidMappings"] == content["linux"]["gidMappings"] == everybody
    assert content["linux"]["sysctl"] == {"net.ipv4.ip_unprivileged_port_start": "0"}
    assert content["process"]["user"]["additionalGids"] == [0, 4]
    kept = content["process"]["capabilities"]
    assert "CAP_CHOWN" in kept["effective"] == kept["bounding"] == kept["permitted"]
    assert "CAP_SYS_ADMIN" not in kept["bounding"]
    assert kept["inheritable"] == kept["ambient"] == []


def test_ids_without_privileges() -> None:
    """runc maps root or nobody: its init makes the caller of it again, for which it needs CAP_SETFCAP."""
    content = make(Spec(), privileged=False)
    assert content["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert content["process"]["capabilities"]["permitted"] == ["CAP_SETFCAP"]
    assert "sysctl" not in content["linux"]
    assert "userxattr" in mount(content, "/home")["options"]
    assert mount(content, "/etc")["options"] == ["rbind", "rprivate", "rro"]
    assert mount(content, "/sys")["options"] == ["rbind", "rprivate", "rro"]


def test_host_root_has_no_user_namespace() -> None:
    content = make(Spec(user=User.HOST_ROOT))
    assert {"type": "user"} not in content["linux"]["namespaces"]
    assert "uidMappings" not in content["linux"]
    assert len(content["process"]["capabilities"]["bounding"]) == 41
    assert "userxattr" not in mount(content, "/home")["options"]


def test_the_network_of_the_host() -> None:
    content = make(Spec(network=Network.HOST))
    assert {"type": "network"} not in content["linux"]["namespaces"]
    assert mount(content, "/sys")["type"] == "bind"
    assert mount(make(Spec()), "/sys")["type"] == "sysfs"


def test_limits() -> None:
    limits = Limits(memory_bytes=2**26, swap_bytes=2**20, cpus=0.5, pids=9)
    resources = make(Spec(limits=limits))["linux"]["resources"]
    assert resources == {
        "memory": {"limit": 2**26, "swap": 2**26 + 2**20},
        "cpu": {"quota": 50_000, "period": 100_000},
        "pids": {"limit": 9 + RUNTIME_PIDS},
    }
    no_swap = make(Spec(limits=limits), machine=replace(MACHINE, has_swap=False))
    assert no_swap["linux"]["resources"]["memory"] == {"limit": 2**26}
    none = make(Spec(limits=limits), machine=replace(MACHINE, has_cgroups=False, cgroup=None))
    assert none["linux"]["resources"] == {}
    assert "cgroupsPath" not in none["linux"]


def test_mounts_of_the_hosts_root() -> None:
    content = make(Spec(binds=(Bind(source="/srv/data", target="/data", readonly=True),)))
    (number,) = (
        o.rpartition("/")[2] for o in mount(content, "/home")["options"] if o.startswith("upperdir=")
    )
    assert mount(content, "/home")["options"] == [
        "nosuid",
        "nodev",
        "lowerdir=/home",
        f"upperdir=/stage/layers/upper/{number}",
        f"workdir=/stage/layers/work/{number}",
        "userxattr",
    ]
    assert mount(content, "/log")["options"] == ["bind", "private", "ro", "nosuid", "nodev"]
    assert mount(content, "/tmp")["source"] == "/stage/layers/scratch/tmp"
    assert mount(content, "/tmp/pytest-0")["options"] == ["bind", "private"]
    assert mount(content, "/data")["options"] == ["rbind", "rprivate", "rro"]
    assert mount(content, "/run/pytest-isolate/init")["source"] == str(CONTAINER_INIT)
    # No overlay covers a tree with mounts below: those below are covered one by one.
    targets = [mount["destination"] for mount in content["mounts"]]
    assert "/srv" not in targets
    assert {"/srv/data", "/srv/x"} <= {*targets}
    assert targets.index("/tmp") < targets.index("/tmp/pytest-0")


def test_a_root_that_refuses_writes() -> None:
    assert make(Spec())["root"] == {"path": "/stage/layers/rootfs", "readonly": False}
    assert make(Spec(readonly=True))["root"]["readonly"] is True
    assert "ro" in mount(make(Spec(readonly=True)), "/home")["options"]


def image_of(*layers: Path, **said: Any) -> Image:
    """``layers``: the topmost first."""
    config = Config(diff_ids=(), platform=own_platform(), **said)
    return Image("image", "sha256:0", tuple(map(str, layers)), config)


def test_another_root(tmp_path: Path) -> None:
    top, bottom = tmp_path / "top", tmp_path / "bottom"
    for path in (top / "usr", bottom / "usr", bottom / "etc"):
        path.mkdir(parents=True)
    (top / "lib").symlink_to("usr/lib")
    (top / "init").touch()
    image = image_of(top, bottom, working_dir="/srv/app", user="7:8", env=(("A", "1"),))
    content = make(Spec(rootfs=ImageRootfs("image")), image=image)
    assert f"lowerdir={top}/usr:{bottom}/usr" in mount(content, "/usr")["options"]
    assert f"lowerdir={bottom}/etc" in mount(content, "/etc")["options"]
    assert mount(content, "/init")["source"] == str(top / "init")
    assert mount(content, "/home/me/project")["options"] == ["rbind", "rprivate", "rro"]
    assert content["linux"]["uidMappings"] == [{"containerID": 7, "hostID": 0, "size": 1}]


def test_more_layers_than_a_runtime_can_mount(tmp_path: Path) -> None:
    layers = [tmp_path / f"{'long' * 20}{number}" for number in range(100)]
    for layer in layers:
        (layer / "usr").mkdir(parents=True)
    with pytest.raises(UnsupportedError, match=r"100 layers.*pytest-isolate image export.*--format rootfs"):
        make(Spec(rootfs=ImageRootfs("image")), image=image_of(*layers))


def test_seccomp_denies_and_allows() -> None:
    seccomp = make(Spec())["linux"]["seccomp"]
    denied, absent, typing, _, vsock = seccomp["syscalls"]
    assert seccomp["defaultAction"] == "SCMP_ACT_ALLOW"
    assert {"keyctl", "bpf", "open_by_handle_at", "init_module", "swapon"} <= {*denied["names"]}
    assert not {"mount", "unshare", "clone3", "ptrace"} & {*denied["names"]}
    assert len(denied["names"]) + len(absent["names"]) == sum(map(len, DENIED.values()))
    assert typing["names"] == ["ioctl"]
    assert typing["args"][0]["valueTwo"] == 0x5412
    assert vsock == {
        "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EAFNOSUPPORT,
        "args": [{"index": 0, "value": 0xFFFFFFFF, "valueTwo": 40, "op": "SCMP_CMP_MASKED_EQ"}],
    }  # fmt: skip
    assert "seccomp" not in make(Spec(seccomp=Seccomp.OFF))["linux"]
    arm = make(Spec(), machine=replace(MACHINE, name="aarch64"))["linux"]["seccomp"]
    assert arm["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]


def test_masked_and_read_only_paths() -> None:
    linux = make(Spec())["linux"]
    assert "/proc/kcore" in linux["maskedPaths"]
    assert "/proc/sys" in linux["readonlyPaths"]


def test_what_a_bundle_holds_before_anything_is_mounted() -> None:
    workspace = Workspace(cwd="/", project=(), interpreter=(), writable=())
    plan = make_plan(Spec(runtime="runc", start=Start.SPAWN), ThisHost(), workspace)
    entries = [*layout(plan.steps)]
    assert {Directory("rootfs"), Directory("scratch/tmp", 0o1777), Link("rootfs/bin", "usr/bin")} <= {
        *entries
    }
    assert Directory("scratch/run/lock", 0o1777) in entries  # in the private /run
    assert Directory("rootfs/srv") in entries  # carries mounts
    assert [entry.mode for entry in entries if isinstance(entry, Directory) and entry.owner == (7, 8)] == [
        0o711
    ]
    paths = [entry.path for entry in entries]
    assert all(path.rpartition("/")[0] in {"", *paths[:n]} for n, path in enumerate(paths))  # parents first

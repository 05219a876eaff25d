"""Where a root's own links must not lead the mounts of a sandbox that is built in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pytest_isolate.errors import ImageError
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.tree import MOST_LINKS
from pytest_isolate.sandbox import steps
from pytest_isolate.sandbox.images.manifest import Config, own_platform
from pytest_isolate.sandbox.images.store import Image
from pytest_isolate.sandbox.lending import Workspace
from pytest_isolate.sandbox.plan import Plan, make_plan
from pytest_isolate.spec import Bind, PathRootfs, Spec


def plan_of(root: Path, base: str, *, binds: tuple[Bind, ...] = (), **configuration: Any) -> Plan:
    config = Config(diff_ids=(), platform=own_platform(), **configuration)
    image = Image("x", "", (str(root),), config)
    workspace = Workspace(cwd="/", project=(base,), interpreter=(), writable=(f"{base}/base",))
    return make_plan(Spec(rootfs=PathRootfs("x"), binds=binds), Host(), workspace, image)


@pytest.mark.parametrize("target", ["/old/etc", "/../../old/etc", "elsewhere"])
def test_no_target_goes_through_a_link(tmp_path: Path, target: str) -> None:
    """The writable directory of tmp_path too: mkdir(2) as root would follow the link out of the root."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "tmp").symlink_to(target)
    top = "/" + tmp_path.parts[1]
    if top != "/tmp":
        (root / top.strip("/")).symlink_to(target)
    base = tmp_path / "base"
    base.mkdir()
    plan = plan_of(root, str(tmp_path), binds=(Bind(source="/etc", target="/tmp/x"),))
    binds = [step for step in plan.steps if isinstance(step, steps.MountBind)]
    assert str(base) in [step.source for step in binds]
    for step in binds:
        parts = step.target.strip("/").split("/")
        below = [root.joinpath(*parts[: n + 1]) for n in range(len(parts))]
        assert not any(map(os.path.islink, below)), step


def test_more_links_than_the_kernel_follows(tmp_path: Path) -> None:
    """What is left of a chain would be followed from the place where the reading stopped."""
    root = tmp_path / "root"
    root.mkdir()
    top = tmp_path.parts[1]
    (root / top).symlink_to("/l1")
    for number in range(1, MOST_LINKS + 1):
        (root / f"l{number}").symlink_to(f"/l{number + 1}")
    with pytest.raises(ImageError, match="more than 40 links"):
        plan_of(root, str(tmp_path))


@pytest.mark.parametrize("target", ["/proc/self/root/old", "proc/1/cwd", "/kernel/self", "/sys/x"])
def test_no_target_is_the_kernels(tmp_path: Path, target: str) -> None:
    """/proc is mounted before what is lent: its links go where no link of an image can."""
    root = tmp_path / "root"
    (root / "kernel").mkdir(parents=True)
    if "kernel" in target:
        (root / "proc").symlink_to("kernel")
    (root / tmp_path.parts[1]).symlink_to(target)
    with pytest.raises(ImageError, match="which is the kernel's"):
        plan_of(root, str(tmp_path))


def test_a_user_may_hide_a_file_of_proc(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "/usr", binds=(Bind(source="/etc/hostname", target="/proc/cpuinfo"),))
    assert "/proc/cpuinfo" in [step.target for step in plan.steps if isinstance(step, steps.MountBind)]


@pytest.mark.parametrize("working_dir", ["/proc/self/fd/9", "proc/self/root/x", "//proc/1", "/a/../proc/1"])
def test_an_image_does_not_work_in_proc(tmp_path: Path, working_dir: str) -> None:
    """Of the descriptors that a forked child has some may be directories of the host."""
    with pytest.raises(ImageError, match="which is the kernel's"):
        plan_of(tmp_path, "/usr", working_dir=working_dir)


@pytest.mark.parametrize("user", ["9" * 5000, "a:" + "9" * 5000, "4294967295"])
def test_a_user_whom_nobody_can_be(tmp_path: Path, user: str) -> None:
    """int() refuses thousands of digits with a ValueError."""
    with pytest.raises(ImageError, match="do not know"):
        plan_of(tmp_path, "/usr", user=user)


@pytest.mark.parametrize("place", ["proc", "run", "tmp"])
def test_a_file_where_a_directory_is_needed(tmp_path: Path, place: str) -> None:
    """An error of the root: no machine lacks anything, and --isolate-missing has no say."""
    (tmp_path / "file").touch()
    (tmp_path / place).symlink_to("file")
    with pytest.raises(ImageError, match="file at '/file'"):
        plan_of(tmp_path, "/usr")


def test_the_interpreter_of_the_host_is_not_led_into_the_image(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "/usr", env=(("PYTHONHOME", "/opt/python"), ("PYTHONPATH", "/app")))
    environ = dict(plan.environ)
    assert "PYTHONHOME" not in environ
    assert environ["PYTHONPATH"] == "/app"


def test_the_hosts_root_has_no_name_that_a_root_could_know() -> None:
    assert len(steps.OLD.removeprefix("/old-")) == 16

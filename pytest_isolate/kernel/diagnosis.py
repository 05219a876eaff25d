"""From a step that failed and its errno to what this machine lacks, and to a command that cures it.

The kernel says EPERM to a dozen different causes. What is read here (sysctls, /proc/self/status, marks of
containers) only explains a failure that was met; it never decides whether something works.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from pytest_isolate.errors import UnsupportedError
from pytest_isolate.kernel.acts import Act, act_of
from pytest_isolate.kernel.cgroups.base import Problem
from pytest_isolate.kernel.cgroups.cures import delegated_scope
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.namespaces import Namespace
from pytest_isolate.kernel.overlay import LOWER_TYPES
from pytest_isolate.kernel.process import Capability, effective_capabilities
from pytest_isolate.kernel.subids import find_subordinate_ids
from pytest_isolate.kernel.surroundings import (
    Container,
    find_container,
    kernel_release,
    mount_of,
    read_text,
    root_mount,
    seccomp_filters,
    sysctl,
)

__all__ = ["diagnose", "explain_failure"]


SELINUX_ENFORCE = "/sys/fs/selinux/enforce"
REFUSALS = (errno.EPERM, errno.EACCES)
LACKS = (*REFUSALS, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP)
ENOUGH_NAMESPACES = 15000  # what Linux itself sets on a machine of 4 GiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    step: str
    act: Act
    errno: int
    host: Host

    @property
    def source(self) -> str:
        """The host path that the step is about, "" if there is none."""
        found = re.match(r"mount an overlay of (.+?) on /|bind (.+?) to /", self.step)
        return (found[1] or found[2]) if found else ""

    @property
    def refused(self) -> bool:
        return self.errno in REFUSALS


def explain_failure(step: str, errno: int, host: Host) -> UnsupportedError:
    """The error for a test whose sandbox could not be built: ``step``, as it is printed, gave ``errno``."""
    failure = Failure(step=step, act=act_of(step), errno=errno, host=host)
    problem = diagnose(step, errno, host)
    cure = problem.cure or "run: pytest-isolate doctor"
    return UnsupportedError(_feature(failure), problem.reason, cure)


def diagnose(step: str, errno: int, host: Host) -> Problem:
    """Why, and what cures it as far as that is known."""
    failure = Failure(step=step, act=act_of(step), errno=errno, host=host)
    for rule in (_no_real_linux, _exhausted, BY_ACT.get(failure.act), _refused):
        if rule is not None and (problem := rule(failure)) is not None:
            return problem
    return Problem(f"{step}: {os.strerror(errno)}")


def _feature(failure: Failure) -> str:
    if failure.act is Act.NAMESPACES and not failure.host.privileged:
        return "user namespace"
    return f"{failure.act.value} of {failure.source}" if failure.source else failure.act.value


# -- whatever the step ----------------------------------------------------------------------------------


def _no_real_linux(failure: Failure) -> Problem | None:
    if failure.errno not in LACKS:
        return None
    version = read_text(f"{failure.host.proc}/version")
    # gVisor's release is 4.19.0-gvisor; before it was 4.4.0, with this date on every build.
    if "gvisor" in version.lower() or "Sun Jan 10 15:06:54 PST 2016" in version:
        reason = f"gVisor does not offer it ({os.strerror(failure.errno)})"
        return Problem(reason, "use a container runtime that shares the host's kernel, such as runc or crun")
    # WSL 1 calls itself Microsoft, WSL 2 is a real Linux that ends in microsoft-standard-WSL2.
    if "Microsoft" in version and "WSL2" not in version:
        return Problem("WSL 1 has no namespaces", "run in Windows: wsl --set-version <distribution> 2")
    return None


def _exhausted(failure: Failure) -> Problem | None:
    match failure.errno:
        case errno.ENOSPC if failure.act in (Act.NAMESPACES, Act.ID_MAPS, Act.CGROUP_NAMESPACE):
            return _too_many_namespaces(failure.host)
        case errno.ENOSPC if failure.act is Act.CGROUP:
            return None
        case errno.ENOSPC:
            return Problem(
                "the scratch tmpfs is full, or the limit of mounts is reached (sysctl fs.mount-max)",
                "raise tmp_size",
            )
        case errno.EAGAIN:
            return Problem(
                "the limit of processes is reached (ulimit -u, or pids.max of the cgroup)",
                "run: ulimit -u unlimited",
            )
        case errno.ENOMEM:
            return Problem("the kernel has no memory for it", "free memory, or raise the cgroup's limit")
        case errno.EMFILE | errno.ENFILE:
            return Problem("too many files are open", "run: ulimit -n 65536")
        case _:
            return None


def _too_many_namespaces(host: Host) -> Problem:
    for namespace in Namespace:
        name = f"user.max_{namespace.value}_namespaces"
        if sysctl(host, name) == 0:
            return Problem(f"{name} is 0", f"run: sudo sysctl -w {name}={ENOUGH_NAMESPACES}")
    return Problem(
        "a limit of namespaces is reached (sysctl user.max_*_namespaces), or they nest 32 deep",
        "run: sysctl -a --pattern 'user.max_.*_namespaces'",
    )


def _refused(failure: Failure) -> Problem | None:
    """EPERM and EACCES that no step explains by itself."""
    host = failure.host
    seccomp = seccomp_filters(host)
    if failure.errno == errno.ENOSYS and not seccomp:
        return Problem(
            f"Linux {kernel_release(host)} does not know the system call", "use Linux 5.15 or newer"
        )
    if not failure.refused and failure.errno != errno.ENOSYS:
        return None
    container = find_container()
    if not host.privileged and sysctl(host, "kernel.unprivileged_userns_clone") == 0:
        name = "kernel.unprivileged_userns_clone"
        return Problem(f"{name} is 0", f"run: sudo sysctl -w {name}=1")
    # Docker answers clone3 with ENOSYS, so that libc falls back to clone (moby#42681).
    if seccomp and container is not None and (failure.errno == errno.ENOSYS or not _is_apparmor(failure)):
        return Problem(f"the seccomp filter of {container.name} refuses it", container.cure)
    if _is_apparmor(failure):
        name = "kernel.apparmor_restrict_unprivileged_userns"
        return Problem(
            f"{name} is 1: AppArmor takes all rights from user namespaces of uid {host.uid}",
            f"run: sudo sysctl -w {name}=0",
        )
    return _confined(failure, container, seccomp)


def _is_apparmor(failure: Failure) -> bool:
    """Ubuntu since 23.10 lets the user namespace come to be, and refuses all that is done in it."""
    restricted = sysctl(failure.host, "kernel.apparmor_restrict_unprivileged_userns") == 1
    in_container_before = failure.act is Act.NAMESPACES and find_container() is not None
    return restricted and not failure.host.privileged and failure.refused and not in_container_before


def _confined(failure: Failure, container: Container | None, seccomp: bool) -> Problem:
    host, why = failure.host, os.strerror(failure.errno)
    profile = read_text(f"{host.proc}/self/attr/current").strip("\0\n ")
    # Without AppArmor the file holds nothing, or a SELinux label with colons.
    apparmor = profile not in ("", "unconfined") and ":" not in profile
    if container is not None:
        who = f"by the AppArmor profile {profile}" if apparmor else f"probably by {container.name}"
        return Problem(f"it is refused ({why}), {who}", container.cure)
    if failure.act is Act.NAMESPACES and root_mount(host) is None:
        return Problem(
            "this process is in a chroot, where Linux makes no user namespace",
            "run pytest outside the chroot",
        )
    if seccomp:
        return Problem(
            f"a seccomp filter on this process refuses it ({why})",
            "run pytest outside the service, snap or flatpak (systemd: RestrictNamespaces=no)",
        )
    if apparmor:
        return Problem(f"the AppArmor profile {profile} refuses it", "run: sudo aa-status")
    if failure.errno == errno.EACCES and read_text(SELINUX_ENFORCE).strip() == "1":
        return Problem("SELinux refuses it", "run: sudo ausearch -m avc -ts recent")
    cure = "" if host.privileged else "run pytest as root"
    return Problem(f"it is refused to uid {host.uid} ({why})", cure)


# -- by what the step does ------------------------------------------------------------------------------


def _namespaces(failure: Failure) -> Problem | None:
    if failure.errno != errno.EINVAL:
        return None
    return Problem(
        "this kernel is built without one of the seven namespaces",
        "run: zgrep _NS= /proc/config.gz /boot/config-*",
    )


def _id_maps(failure: Failure) -> Problem | None:
    host = failure.host
    if "newuidmap" in failure.step:
        found = find_subordinate_ids(host)  # the program itself says why
        return found if isinstance(found, Problem) else Problem("newuidmap or newgidmap failed, this once")
    if not failure.refused:
        return None
    # CAP_SETFCAP since Linux 5.12, where uid 0 is among the mapped (user_namespaces(7)).
    wanted = [Capability.SETFCAP] if host.uid == 0 or host.privileged else []
    wanted += [Capability.SETUID, Capability.SETGID] if host.privileged else []
    held = effective_capabilities(host.proc)
    missing = [capability.name for capability in wanted if not held >> capability & 1]
    if not missing:
        return None
    cure = "run pytest as root with all capabilities"
    if find_container() is not None:
        cure = f"run the container with {' '.join(f'--cap-add={name}' for name in missing)}"
    missing = [f"CAP_{name}" for name in missing]
    return Problem(f"writing its id maps takes {' and '.join(missing)}", cure)


def _pivot(failure: Failure) -> Problem | None:
    if failure.errno == errno.ENOENT:
        return Problem("the directory /tmp is missing", "run: mkdir -m 1777 /tmp")
    if failure.errno != errno.EINVAL:
        return None
    root = root_mount(failure.host)
    if root is None:
        return Problem(
            "this process is in a chroot whose root is no mount point",
            "before the chroot, run: mount --bind DIR DIR",
        )
    if root.fstype == "rootfs":
        return Problem(
            "/ is an initramfs, which pivot_root(2) cannot leave", "boot a root file system of its own"
        )
    return None


def _overlay(failure: Failure) -> Problem | None:
    host, source = failure.host, failure.source
    match failure.errno:
        case errno.ENODEV:
            return Problem("this kernel has no overlay file system", "run: sudo modprobe overlay")
        case errno.EPERM if not host.privileged and host.kernel < (5, 11):
            return Problem(
                f"Linux {kernel_release(host)} mounts it for root only",
                "use Linux 5.11 or newer, or run pytest as root",
            )
        case errno.EINVAL:
            return _unfit_layer(host, source)
        case _:
            return _unreachable(failure)


def _overlay_marks(failure: Failure) -> Problem | None:
    host = failure.host
    if failure.errno not in (errno.EIO, errno.EOPNOTSUPP) or host.privileged or host.kernel >= (6, 6):
        return None
    return Problem(
        f"tmpfs of Linux {kernel_release(host)} has no user.* xattrs: no test can replace a host directory",
        "use Linux 6.6 or newer, or run pytest as root",
    )


def _unfit_layer(host: Host, source: str) -> Problem:
    mount = mount_of(host, source)
    fstype = mount.fstype if mount is not None else "unknown"
    if fstype == "overlay":
        return Problem(
            f"{source} already lies in nested overlays, and Linux stacks two at most",
            "run pytest one container or sandbox further out, or put its root on a volume",
        )
    if fstype not in LOWER_TYPES:
        return Problem(
            f"{source} is on {fstype}, which overlayfs takes no layer from",
            "move it to ext4, xfs, btrfs or tmpfs",
        )
    inner = [m.path for m in host.mounts if m.path.startswith(source.rstrip("/") + "/")]
    if inner and not host.privileged:
        return Problem(
            f"without privileges no overlay covers {inner[0]}, mounted below {source}", "run pytest as root"
        )
    return Problem(f"overlayfs refuses {source} ({fstype}) as a layer", "run: sudo dmesg | grep overlayfs")


def _unreachable(failure: Failure) -> Problem | None:
    source, host = failure.source, failure.host
    if failure.errno in (errno.ENOENT, errno.ENOTDIR) and source:
        return Problem(f"{source} is not there", "check rootfs, binds and the working directory")
    if failure.errno == errno.EACCES and source and not os.access(source, os.R_OK | os.X_OK):
        return Problem(f"uid {host.uid} may not enter {source}", f"run: sudo chmod a+rx {source}")
    return None


def _masked(failure: Failure) -> Problem | None:
    """mount_too_revealing() in fs/namespace.c: no fresh one where the old one is partly covered."""
    tree = "/proc" if failure.act is Act.PROC else "/sys"
    covers = [m.path for m in failure.host.mounts if m.path.startswith(f"{tree}/") and m.path not in HARMLESS]
    if failure.errno != errno.EPERM or not covers:
        return None
    container = find_container()
    cure = container.cure if container is not None else f"run: sudo umount {covers[0]}"
    return Problem(f"{covers[0]} is covered, so Linux refuses a whole {tree} to user namespaces", cure)


#: Mounted on directories that are always empty: they hide nothing.
HARMLESS = ("/proc/sys/fs/binfmt_misc", "/sys/fs/cgroup")


def _dev(failure: Failure) -> Problem | None:
    if failure.errno != errno.ENODEV:
        return None
    return Problem(
        "this kernel lacks devpts or POSIX message queues", "use a kernel with CONFIG_POSIX_MQUEUE=y"
    )


def _low_ports(failure: Failure) -> Problem | None:
    if failure.errno not in (errno.EROFS, *REFUSALS):
        return None
    container = find_container()
    cure = container.cure if container is not None else "run: sudo mount -o remount,rw /proc/sys"
    return Problem("/proc/sys is read-only", cure)


def _cgroup(failure: Failure) -> Problem | None:
    why = os.strerror(failure.errno)
    return Problem(f"the test's process may not join it ({why})", delegated_scope())


BY_ACT: dict[Act, Callable[[Failure], Problem | None]] = {
    Act.NAMESPACES: _namespaces,
    Act.ID_MAPS: _id_maps,
    Act.SCRATCH: _pivot,
    Act.PIVOT: _pivot,
    Act.OVERLAY: _overlay,
    Act.OVERLAY_MARKS: _overlay_marks,
    Act.BIND: _unreachable,
    Act.PROC: _masked,
    Act.SYS: _masked,
    Act.DEV: _dev,
    Act.PORTS: _low_ports,
    Act.CGROUP: _cgroup,
}

"""What kind of place this process is in. It explains a failure that was met, and never foresees one."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.mounts import MountPoint

__all__ = [
    "Container",
    "find_container",
    "has_terminal",
    "kernel_release",
    "mount_of",
    "read_text",
    "root_mount",
    "seccomp_filters",
    "sysctl",
]

DOCKER_MARK = "/.dockerenv"
PODMAN_MARK = "/run/.containerenv"


@dataclass(frozen=True, slots=True)
class Container:
    """A container engine, and what lets it run sandboxes inside: one line."""

    name: str
    cure: str


def find_container() -> Container | None:
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return Container(
            "Kubernetes",
            "run the pod with hostUsers: false, procMount: Unmasked and seccompProfile.type: Unconfined, "
            "or with privileged: true",
        )
    if os.path.exists(PODMAN_MARK):
        return Container(
            "Podman", "run podman with --security-opt seccomp=unconfined --security-opt unmask=ALL"
        )
    if os.path.exists(DOCKER_MARK):
        return Container(
            "Docker",
            "run docker with --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
            "--security-opt systempaths=unconfined, or with --privileged",
        )
    return None


def sysctl(host: Host, name: str) -> int | None:
    """proc_sys(5): None where this kernel has no such switch."""
    text = read_text(f"{host.proc}/sys/{name.replace('.', '/')}").strip()
    return int(text) if text.lstrip("-").isdigit() else None


def seccomp_filters(host: Host) -> bool:
    """Whether a seccomp filter is in force (proc_pid_status(5))."""
    return "Seccomp:\t2" in read_text(f"{host.proc}/self/status")


def root_mount(host: Host) -> MountPoint | None:
    return next((mount for mount in host.mounts if mount.path == "/"), None)


def mount_of(host: Host, path: str) -> MountPoint | None:
    around = [m for m in host.mounts if m.path == "/" or f"{path}/".startswith(f"{m.path}/")]
    return max(around, key=lambda mount: len(mount.path), default=None)


def kernel_release(host: Host) -> str:
    return ".".join(map(str, host.kernel))


def read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def has_terminal() -> bool:
    """Whether somebody can sit there: a test that only claims to be debugged keeps its timeout."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True

"""What to tell a person whose cgroups cannot be used, by what kind of machine this is."""

from __future__ import annotations

import os

__all__ = ["delegate_controllers", "delegated_scope", "start_alone"]

_SYSTEMD = "/run/systemd/system"  # sd_booted(3)
_DOCKER = "/.dockerenv"
_PODMAN = "/run/.containerenv"


def delegated_scope() -> str:
    """How to get a cgroup that pytest may write to, and has for itself."""
    if os.path.exists(_PODMAN):
        return "run podman with --cgroups=split --security-opt unmask=/sys/fs/cgroup"
    if os.path.exists(_DOCKER):
        # Docker 28.0 (moby#48828); before it only a privileged container has them writable.
        return (
            "run docker with --cgroupns=private --security-opt writable-cgroups=true, "
            "or with --cgroupns=private --privileged before Docker 28"
        )
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "run the pod with securityContext.privileged: true"
    if os.path.exists(_SYSTEMD):
        return f"start pytest with: {_systemd_run()}"
    if "microsoft-standard" in os.uname().release:  # WSL 2, whose systemd is a choice
        return "put systemd=true below [boot] into /etc/wsl.conf, then run in Windows: wsl --shutdown"
    if os.geteuid() == 0:
        return "make the cgroup file system writable: mount -o remount,rw /sys/fs/cgroup"
    return "run pytest as root, or have root delegate a cgroup to this user (cgroups(7), cgroup delegation)"


def start_alone() -> str:
    """How to start pytest as the only process of its cgroup, so that it may hand controllers down."""
    if os.path.exists(_PODMAN) or os.path.exists(_DOCKER):
        return "start pytest as the container's command, without a shell, so that it is alone there"
    return f"start pytest itself, not a shell or make, with: {_systemd_run()}"


def delegate_controllers() -> str:
    """How to get more controllers; a systemd user manager has only memory and pids by default."""
    if os.path.exists(_SYSTEMD) and os.geteuid() != 0:
        return (
            "have root put [Service] Delegate=cpu io memory pids into "
            "/etc/systemd/system/user@.service.d/delegate.conf, then systemctl daemon-reload and log in again"
        )
    return delegated_scope()


def _systemd_run() -> str:
    user = "" if os.geteuid() == 0 else "--user "
    return f"systemd-run {user}--scope -p Delegate=yes pytest …"

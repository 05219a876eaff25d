"""The child's way in: from a fresh fork of pytest to a process of the sandbox."""

from __future__ import annotations

import math
import mmap
import os
import resource
import time
from dataclasses import dataclass
from typing import Any

from pytest_isolate.kernel import start_environment
from pytest_isolate.kernel.cgroups.base import CgroupEntry
from pytest_isolate.kernel.namespaces import Namespace
from pytest_isolate.kernel.process import mask
from pytest_isolate.kernel.seccomp import filter_buffer
from pytest_isolate.sandbox.confinement import enter_tmp, request_of
from pytest_isolate.sandbox.guest import Environ
from pytest_isolate.sandbox.homes import as_bytes
from pytest_isolate.sandbox.plan import Plan
from pytest_isolate.spec import Environment, EnvMode, Limits
from pytest_isolate.strict import UMASK
from pytest_isolate.syscalls._native import ffi, lib

__all__ = [
    "EntryReport",
    "NamespaceFds",
    "enter",
    "entry_files",
    "entry_request",
    "rlimits",
    "set_environment",
    "settle_in",
]

PAGE_BYTES = mmap.PAGESIZE

STEP_NAMES = {
    lib.ENTER_CGROUP: "join the cgroup",
    lib.ENTER_USER_NAMESPACE: "enter the user namespace",
    lib.ENTER_NAMESPACES: "enter the namespaces",
    lib.ENTER_PID_NAMESPACE: "enter the pid namespace",
    lib.ENTER_CLONE: "clone the test's process into the sandbox",
    lib.ENTER_CGROUP_NAMESPACE: "enter a cgroup namespace",
    lib.ENTER_CAPABILITIES: "drop capabilities",
    lib.ENTER_NO_NEW_PRIVS: "set no_new_privs",
    lib.ENTER_CONFINEMENT: "confine itself",
    lib.ENTER_SECCOMP: "install the filter of system calls (seccomp)",
}

#: What ``env="clean"`` starts from; PATH, HOME and what pytest needs are taken over.
CLEAN = {"LANG": "C.UTF-8", "TZ": "UTC"}
TAKEN_OVER = ("HOME", "LOGNAME", "PATH", "PYTHONPATH", "SHELL", "TERM", "TMPDIR", "USER", "VIRTUAL_ENV")
TAKEN_OVER_PREFIXES = ("PYTEST_", "COV_CORE_", "COVERAGE_")


#: Of ``struct enter_plan``, in its order.
FIELDS = {
    Namespace.USER: "user_fd",
    Namespace.PID: "pid_fd",
    Namespace.MOUNT: "mnt_fd",
    Namespace.NET: "net_fd",
    Namespace.IPC: "ipc_fd",
    Namespace.UTS: "uts_fd",
}


@dataclass(slots=True)
class NamespaceFds:
    """Descriptors of a sandbox's namespaces, by namespace."""

    fds: dict[Namespace, int]
    watch: int | None = None  #: takes the listener of the watch

    def in_order(self) -> list[int]:
        watch = [] if self.watch is None else [self.watch]
        return [*(self.fds[namespace] for namespace in FIELDS if namespace in self.fds), *watch]

    def close(self) -> None:
        for fd in self.in_order():
            os.close(fd)
        self.fds, self.watch = {}, None


class EntryReport:
    """On a page that parent and child share: the process that enters is not the one that was forked."""

    def __init__(self, page: mmap.mmap | None = None, slot: int = 0) -> None:
        """``slot`` of the results on a page; without one, on a page of its own."""
        self._page = page if page is not None else mmap.mmap(-1, PAGE_BYTES)
        self.pointer = ffi.cast("struct enter_result *", ffi.from_buffer(self._page)) + slot
        self.pointer.pid = self.pointer.step = self.pointer.error = self.pointer.watch = 0

    @property
    def pid(self) -> int:
        """Of the process that runs the test, as pytest sees it; 0 if none came to be."""
        return int(self.pointer.pid)

    @property
    def failure(self) -> tuple[str, int] | None:
        """(step, errno) if entering failed. Never raises, whatever is on the page."""
        step = int(self.pointer.step)
        return (STEP_NAMES.get(step, f"step {step}"), int(self.pointer.error)) if step else None

    @property
    def is_watched(self) -> bool:
        """Whether the kernel tells of attempts."""
        return int(self.pointer.watch) == 1

    @property
    def watch_error(self) -> int:
        """errno of what keeps the kernel from telling, or 0."""
        return max(0, -int(self.pointer.watch))

    def drop(self) -> None:
        """In a child, which could write there what pytest believes."""
        self.pointer = ffi.NULL
        self._page.close()


def entry_request(plan: Plan) -> Any:
    """``struct enter_plan`` without a cgroup; 0 for a namespace that is to come, -1 for none."""
    request = ffi.new("struct enter_plan *")
    for namespace, name in FIELDS.items():
        setattr(request, name, 0 if namespace in plan.namespaces else -1)
    request.user_first = plan.user_first
    request.cgroup_namespace = Namespace.CGROUP in plan.namespaces
    request.cgroup_fd = -1
    request.die_with_parent = Namespace.PID not in plan.namespaces
    request.drop_capabilities = plan.capabilities is not None
    request.keep_capabilities = mask(plan.capabilities or frozenset())
    if plan.confinement is not None:
        request.confinement = request_of(plan.confinement)
    if plan.filtered:
        request.filter, request.filter_count = filter_buffer()
    request.watch_fd = 0 if plan.watched else -1
    request.watched = plan.watched
    request.homes = as_bytes(plan.homes)
    return request


def entry_files(entry: CgroupEntry | None) -> list[int]:
    """Descriptors of what it takes to enter a cgroup, for the caller to close."""
    if entry is None:
        return []
    opened = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in entry.tasks]
    if entry.directory is not None:
        opened.append(os.open(entry.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    return opened


def enter(plan: Plan, namespaces: NamespaceFds, entry: CgroupEntry | None, report: EntryReport) -> None:
    """Go from a freshly forked child into the sandbox; returns in another process, or exits."""
    request = entry_request(plan)
    for namespace, fd in namespaces.fds.items():
        setattr(request, FIELDS[namespace], fd)
    request.watch_fd = -1 if namespaces.watch is None else namespaces.watch
    opened = entry_files(entry)
    if entry is not None and entry.directory is not None:
        request.cgroup_fd = opened[-1]
    elif entry is not None:
        request.tasks_count = len(opened)
        request.tasks_fds[0 : len(opened)] = opened
    if lib.isolate_enter(request, report.pointer) != 0:
        os._exit(lib.ENTRY_FAILED)
    namespaces.close()
    for fd in opened:
        os.close(fd)


def settle_in(plan: Plan) -> None:
    """What a process sets for itself: limits, directory, environment. The umask stays the caller's, unless
    the mode is strict."""
    if not plan.contained:  # else the runtime does, for the test alone
        set_rlimits(plan.limits)
        os.chdir(plan.cwd)
    if plan.confinement is not None:
        enter_tmp(plan.confinement)
    set_environment(plan.spec.env, plan.environ)
    if plan.spec.env.mode is EnvMode.CLEAN:
        start_environment.forget()
    if plan.spec.strict:
        os.umask(UMASK)
        time.tzset()  # a copy of pytest has read the caller's TZ long ago
    lib.isolate_watch_settle()  # before it may execute another program


def rlimits(limits: Limits) -> dict[str, tuple[int, int]]:
    """Soft and hard, by name (getrlimit(2))."""
    found = {}
    if limits.files is not None:
        found["RLIMIT_NOFILE"] = (limits.files, limits.files)
    if limits.cpu_time_s is not None:
        # Of each process; the parent watches the sum. One second later, so that the parent's word is first.
        whole = math.ceil(limits.cpu_time_s) + 1
        found["RLIMIT_CPU"] = (whole, whole + 1)
    return found


def set_rlimits(limits: Limits) -> None:
    for name, values in rlimits(limits).items():
        resource.setrlimit(getattr(resource, name), values)


def set_environment(env: Environment, of_root: Environ = ()) -> None:
    if env.mode is EnvMode.CLEAN:
        for name in list(os.environ):
            if name not in TAKEN_OVER and not name.startswith(TAKEN_OVER_PREFIXES):
                del os.environ[name]
        os.environ.update(CLEAN)
    for name, value in (*of_root, *env.changes):
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

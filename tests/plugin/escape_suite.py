"""Ways out of a sandbox. Each test tries one, and passes if it finds the way closed; ``test_escapes.py`` runs them
isolated, and looks whether anything outside has changed. What is outside is said in ``outside.json``.

What they try would be harmless if it worked: a call with arguments that the kernel refuses once it has let
it in, a signal to a process made for it, a word in a file made for it.
"""

# Written as people write tests.
# mypy: ignore-errors
# ruff: noqa: PT011, PT012, PT017, SIM105, PIE800

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

OUTSIDE = json.loads(Path(__file__).with_name("outside.json").read_text())
DOTS = "../" * 60
HERE = Path(__file__).parent
IS_ROOT = OUTSIDE["uid"] == 0

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    "x86_64": {
        **{"keyctl": 250, "request_key": 249, "init_module": 175, "delete_module": 176, "finit_module": 313},
        **{"bpf": 321, "perf_event_open": 298, "kexec_load": 246, "kexec_file_load": 320, "userfaultfd": 323},
        **{"open_by_handle_at": 304, "io_uring_setup": 425, "reboot": 169, "syslog": 103, "swapon": 167},
        **{"iopl": 172, "acct": 163, "quotactl": 179, "clock_settime": 227, "settimeofday": 164},
        **{"pivot_root": 155, "ptrace": 101, "process_vm_readv": 310, "pidfd_open": 434, "pidfd_getfd": 438},
        **{"fanotify_init": 300, "lookup_dcookie": 212, "mount_setattr": 442, "open_tree": 428},
    },
    "aarch64": {
        **{"keyctl": 219, "request_key": 218, "init_module": 105, "delete_module": 106, "finit_module": 273},
        **{"bpf": 280, "perf_event_open": 241, "kexec_load": 104, "kexec_file_load": 294, "userfaultfd": 282},
        **{"open_by_handle_at": 265, "io_uring_setup": 425, "reboot": 142, "syslog": 116, "swapon": 224},
        **{"acct": 89, "quotactl": 60, "clock_settime": 112, "settimeofday": 170},
        **{"pivot_root": 41, "ptrace": 117, "process_vm_readv": 270, "pidfd_open": 434, "pidfd_getfd": 438},
        **{"fanotify_init": 262, "lookup_dcookie": 18, "mount_setattr": 442, "open_tree": 428},
    },
}[platform.machine()]
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWUTS, CLONE_NEWNET = 0x20000, 0x10000000, 0x4000000, 0x40000000
CLONE_NEWCGROUP = 0x2000000


def call(name, *args):
    """0 or more, or minus errno."""
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = libc.syscall(ctypes.c_long(NUMBERS[name]), *words)
    return result if result >= 0 else -ctypes.get_errno()


def do(result):
    """What a function of libc gives: 0, or minus errno."""
    return result if result >= 0 else -ctypes.get_errno()


def mount(source, target, fstype, flags=0, data=None):
    texts = [text.encode() if text is not None else None for text in (source, target, fstype)]
    return do(libc.mount(*texts, ctypes.c_ulong(flags), data.encode() if data is not None else None))


def refused(result, *allowed):
    assert -result in (allowed or (errno.EPERM,)), os.strerror(abs(result))


def in_fork(body):
    """Run it in a child, which may change its root and namespaces; its AssertionError is the test's."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = "died"
        try:
            body()
            text = ""
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, text.encode())
            os._exit(0)
    os.close(writer)
    with open(reader) as said:
        text = said.read()
    assert os.waitpid(pid, 0)[1] == 0
    assert text == ""


def nested(flags=CLONE_NEWNS):
    """Become almighty in a user namespace of one's own, which every test may."""
    uid, gid = os.getuid(), os.getgid()
    assert libc.unshare(CLONE_NEWUSER | flags) == 0, os.strerror(ctypes.get_errno())
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def cannot_open(path, mode="r"):
    with pytest.raises(OSError), open(path, mode):
        pass


def is_masked(path):
    """Whether it is the null device in the file's place."""
    return os.path.exists(path) and os.stat(path).st_rdev == os.makedev(1, 3)


def mounts():
    """(place, options, type)"""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        yield before.split()[4], before.split()[5], after.split()[0]


# ---- files ------------------------------------------------------------------------------------------


def test_write_through_the_overlay():
    """Would change a file of the project on the host."""
    victim = Path(OUTSIDE["file"])
    victim.write_text("escaped")
    victim.chmod(0o777)
    assert victim.read_text() == "escaped"  # here; the host's is compared afterwards


def test_remove_and_rename_through_the_overlay():
    """Would delete and move files of the project on the host."""
    Path(OUTSIDE["file"]).with_name("second").unlink()
    os.rename(Path(OUTSIDE["file"]).with_name("third"), Path(OUTSIDE["file"]).with_name("fourth"))


def test_the_root_of_init():
    """Would reach the host's files by the root directory of process 1."""
    cannot_open(f"/proc/1/root{OUTSIDE['hidden']}")
    with pytest.raises(OSError):
        os.listdir("/proc/1/cwd")


def test_dots_lead_no_further_than_the_root():
    """Would reach a file of the host that is not shown here."""
    for start in ("", "/", "/proc/self/cwd/", "/dev/shm/", f"{HERE}/"):
        cannot_open(f"{start}{DOTS}{OUTSIDE['hidden']}")


def climb_from(directory_fd):
    """The root of whoever opened it, if nothing stops the climber (chroot(2))."""
    os.fchdir(directory_fd)
    for _ in range(60):
        os.chdir("..")
    os.chroot(".")


def test_chroot_and_walk_out():
    """Would leave the root by the old trick: a directory held open across chroot(2)."""

    def body():
        before = os.stat("/")
        os.mkdir("/tmp/jail")
        held = os.open("/", os.O_RDONLY)
        try:
            os.chroot("/tmp/jail")
        except PermissionError:
            return
        climb_from(held)
        assert os.path.samestat(os.stat("/"), before)
        cannot_open(OUTSIDE["hidden"])

    in_fork(body)


def test_chroot_in_a_user_namespace_of_ones_own():
    """As before, with every capability."""

    def body():
        nested()
        before = os.stat("/")
        os.mkdir("/tmp/jail")
        held = os.open("/", os.O_RDONLY)
        os.chroot("/tmp/jail")
        climb_from(held)
        assert os.path.samestat(os.stat("/"), before)
        cannot_open(OUTSIDE["hidden"])

    in_fork(body)


def test_no_descriptor_is_a_directory():
    """Would walk out by a directory of the host that pytest had open (openat(2))."""
    for name in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:
            continue  # that of listdir itself
        assert not stat.S_ISDIR(status.st_mode), os.readlink(f"/proc/self/fd/{name}")
        assert not stat.S_ISBLK(status.st_mode)


def test_no_descriptor_is_a_namespace():
    """Would enter the host's namespaces by setns(2)."""
    for name in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        assert not link.startswith(
            ("mnt:", "net:", "pid:", "user:", "anon_inode:[pidfd]", "anon_inode:[eventpoll]")
        )
        refused(do(libc.setns(int(name), 0)), errno.EINVAL, errno.EBADF)


def test_make_the_disk_by_its_number():
    """Would read and write the host's disk."""
    for body in (lambda: None, nested):

        def attempt(body=body):
            body()
            with pytest.raises(PermissionError):
                os.mknod("/tmp/disk", 0o600 | stat.S_IFBLK, OUTSIDE["disk"])

        in_fork(attempt)


def test_no_disk_or_memory_among_the_devices():
    """Would read and write the host's disk or memory."""
    for directory, _, names in os.walk("/dev"):
        for name in names:
            assert not stat.S_ISBLK(os.lstat(os.path.join(directory, name)).st_mode)
    assert not {"mem", "kmem", "port", "kmsg", "kvm", "fuse", "vsock"} & {*os.listdir("/dev")}


def test_the_mode_of_a_device():
    """Would make the host's /dev/null useless to everybody."""
    for name in ("null", "zero", "tty"):
        for attempt in (lambda path: os.chmod(path, 0o666), lambda path: os.chown(path, 0, 0), os.unlink):
            with pytest.raises(OSError):
                attempt(f"/dev/{name}")
    with open("/dev/null", "w") as null:
        null.write("as ever")


def test_open_a_file_by_its_handle():
    """Would open any file of a file system that is seen in part ("Shocker")."""
    handle = struct.pack("=Ii8s", 8, 1, struct.pack("=II", 2, 0))
    refused(call("open_by_handle_at", os.open("/", os.O_RDONLY), handle, 0))


def test_overwrite_the_interpreter():
    """Would plant code in the host's Python, as CVE-2019-5736 did in runc."""
    fd = os.open("/proc/self/exe", os.O_RDONLY)
    try:
        with open(f"/proc/self/fd/{fd}", "r+b") as exe:  # while it runs, and in a layer of its own
            exe.write(exe.read(4))
    except OSError:
        pass
    real = os.path.realpath(sys.executable)
    subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    try:
        os.utime(real, (0, 0))
    except OSError:
        pass


def test_links_for_pytest_to_follow(tmp_path):
    """Would have whoever clears or copies tmp_path outside write through a link."""
    (tmp_path / "link").symlink_to(OUTSIDE["hidden"])
    (tmp_path / "directory").symlink_to(os.path.dirname(OUTSIDE["hidden"]))


@pytest.mark.isolated(artifacts=["out/*.txt", "linked/*.txt"])
def test_artifacts_that_are_links():
    """Would have pytest copy a file of the host, or write where a link leads."""
    os.mkdir(HERE / "out")
    (HERE / "out" / "stolen.txt").symlink_to(OUTSIDE["hidden"])
    (HERE / "linked").symlink_to(os.path.dirname(OUTSIDE["hidden"]))


def test_core_dumps():
    """Would leave a file on the host, or start its handler with a path of the test's."""

    def body():
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if os.fork() == 0:
            os.abort()
        os.wait()

    in_fork(body)
    cannot_open("/proc/sys/kernel/core_pattern", "r+")


# ---- /proc, /sys and mounts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("kernel/core_pattern", "kernel/modprobe", "kernel/hostname", "kernel/pid_max", "vm/drop_caches"),
        *("net/ipv4/ip_forward", "fs/binfmt_misc/register"),
    ],
)
def test_sysctl(name):
    """Would change the host's kernel; core_pattern and modprobe name programs that run there as root."""
    cannot_open(f"/proc/sys/{name}", "r+")


@pytest.mark.parametrize(
    "path", ["/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/kcore", "/proc/kmsg"]
)
def test_files_of_the_whole_machine(path):
    """Would restart it, move its interrupts, read its memory and its log."""
    if not is_masked(path):
        cannot_open(path, "r+")
    if path in ("/proc/kcore", "/proc/kmsg"):
        try:
            with open(path, "rb", buffering=0) as file:
                os.set_blocking(file.fileno(), False)
                assert not file.read(16)
        except OSError:
            pass


def test_keys_and_timers_are_masked():
    """Would tell which keys the user has, and what the whole machine waits for."""
    for name in ("keys", "timer_list"):
        path = Path("/proc", name)
        assert not path.exists() or path.read_bytes() == b""
    for path in ("/proc/acpi", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"):
        assert not os.path.exists(path) or os.listdir(path) == []


def test_mount_without_more_rights():
    """Would cover or uncover any file."""
    refused(mount("tmpfs", "/mnt", "tmpfs"))
    refused(do(libc.umount2(b"/proc", MNT_DETACH)))
    refused(mount("none", "/", None, MS_REMOUNT))


def test_umount_the_masks():
    """Would show what is below the masks, and the tmpfs below the root."""

    def body():
        nested()
        for place, _, _ in list(mounts()):
            refused(do(libc.umount2(place.encode(), 0)), errno.EPERM, errno.EINVAL, errno.EBUSY, errno.ENOENT)
            if place.startswith(("/proc", "/sys")) or place == "/":
                refused(do(libc.umount2(place.encode(), MNT_DETACH)), errno.EPERM, errno.EINVAL)

    in_fork(body)


def test_look_below_the_masks():
    """Would show /proc without its masks at another place."""

    def body():
        nested()
        refused(mount("/proc", "/mnt", None, MS_BIND), errno.EPERM, errno.EINVAL)
        refused(mount("/", "/mnt", None, MS_BIND), errno.EPERM, errno.EINVAL)
        refused(call("open_tree", -100, b"/proc", 1), errno.EPERM, errno.EINVAL)

    in_fork(body)


def test_a_proc_and_a_sys_of_ones_own():
    """Would be writable, and without masks."""

    def body():
        nested(CLONE_NEWNS | CLONE_NEWNET)
        refused(mount("proc", "/mnt", "proc"))
        refused(mount("sysfs", "/mnt", "sysfs"))

    in_fork(body)


def test_make_read_only_mounts_writable():
    """Would open /proc/sys and /sys for writing."""

    def body():
        nested()
        for place, options, _ in list(mounts()):
            if "ro" in options.split(","):
                refused(
                    mount("none", place, None, MS_REMOUNT | MS_BIND), errno.EPERM, errno.EINVAL, errno.EACCES
                )
                attributes = struct.pack("=4Q", 0, 1, 0, 0)  # clear MOUNT_ATTR_RDONLY
                refused(
                    call("mount_setattr", -100, place.encode(), 0, attributes, 32), errno.EPERM, errno.EINVAL
                )

    in_fork(body)


def test_pivot_root_back():
    """Would uncover what the sandbox's root was mounted on."""

    def body():
        nested()
        assert mount("none", "/", None, MS_REC | MS_PRIVATE) == 0
        assert mount("/", "/mnt", None, MS_BIND | MS_REC) == 0
        os.chdir("/mnt")
        if call("pivot_root", b".", b".") == 0:
            libc.umount2(b".", MNT_DETACH)
        os.chdir("/")
        for start in ("", "/", "/mnt"):
            cannot_open(f"{start}{DOTS}{OUTSIDE['hidden']}")
        assert not [name for name in os.listdir("/") if name.startswith("old-")]

    in_fork(body)


def test_mount_the_hosts_disk():
    """Would show all of the host's files."""

    def body():
        nested()
        for fstype in ("ext4", "xfs", "btrfs", "devtmpfs"):
            result = mount("/dev/root", "/mnt", fstype)
            refused(result, errno.EPERM, errno.ENODEV, errno.ENOENT)

    in_fork(body)


def test_debug_file_systems():
    """Would show and change the kernel's inside."""

    def body():
        nested()
        for fstype in ("debugfs", "tracefs", "securityfs", "configfs", "pstore", "efivarfs", "binfmt_misc"):
            result = mount("none", "/mnt", fstype)
            if result == 0 and fstype == "binfmt_misc":  # one of this user namespace's own, since Linux 6.7
                continue
            # Without EFI, efivarfs says so before it asks for rights: seen on Linux 6.12.
            refused(result, errno.EPERM, errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP)

    in_fork(body)


# ---- cgroups and limits -----------------------------------------------------------------------------


def cgroup_files(*names):
    for place, _, fstype in mounts():
        if fstype in ("cgroup", "cgroup2"):
            for directory, _, files in os.walk(place):
                yield from (os.path.join(directory, name) for name in names if name in files)


def test_release_agent():
    """Would name a program that the host runs as root when a cgroup is empty."""
    for path in cgroup_files("release_agent", "notify_on_release"):
        cannot_open(path, "r+")

    def body():
        nested()
        refused(do(libc.unshare(CLONE_NEWCGROUP)), errno.ENOSPC)
        for controller in ("memory", "pids", "rdma", "none,name=escape"):
            refused(
                mount("cgroup", "/mnt", "cgroup", data=controller), errno.EPERM, errno.EINVAL, errno.ENODEV
            )

    in_fork(body)


def test_leave_the_cgroup():
    """Would get rid of every limit."""
    for path in cgroup_files("cgroup.procs", "tasks"):
        cannot_open(path, "r+")


def test_raise_its_own_limits():
    """Would get rid of the limits of memory, processes and processors."""
    for path in cgroup_files(
        "memory.max", "pids.max", "cpu.max", "memory.limit_in_bytes", "cpu.cfs_quota_us"
    ):
        cannot_open(path, "r+")


def test_cgroup2_of_ones_own():
    """Would show its own cgroup's files, for its owner to write."""

    def body():
        nested()
        refused(do(libc.unshare(CLONE_NEWCGROUP)), errno.ENOSPC)
        refused(mount("cgroup2", "/mnt", "cgroup2"))

    in_fork(body)


@pytest.mark.isolated(files=64)
def test_raise_a_resource_limit():
    """Would have more descriptors open than the mark allows."""
    with pytest.raises(ValueError, match="maximum limit"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (65, 65))

    def body():
        nested()
        with pytest.raises(ValueError, match="maximum limit"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (65, 65))

    in_fork(body)


@pytest.mark.skipif(not OUTSIDE["has_pids"], reason="no limit of processes without a cgroup")
@pytest.mark.isolated(**({"pids": 20} if OUTSIDE["has_pids"] else {}))
def test_fork_without_end():
    """Would leave no process to anybody else."""
    children = []
    with pytest.raises(BlockingIOError):
        for _ in range(40):
            if (pid := os.fork()) == 0:
                time.sleep(60)
                os._exit(0)
            children.append(pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.isolated(tmp_size="4M")
def test_fill_the_disk():
    """Would fill the host's disk or memory."""
    for place in ("/tmp", "/var/tmp", "/dev/shm", "/run"):
        if os.access(place, os.W_OK):
            with (
                pytest.raises(OSError, match="No space left"),
                open(f"{place}/much", "wb", buffering=0) as file,
            ):
                for _ in range(10):
                    file.write(bytes(2**20))
            os.unlink(f"{place}/much")


def test_priority():
    """Would run before everybody else."""
    with pytest.raises(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    with pytest.raises(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


# ---- processes --------------------------------------------------------------------------------------


def test_signal_a_process_outside():
    """Would end a process of the host."""
    for pid in (OUTSIDE["pid"], OUTSIDE["pytest"]):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with pytest.raises(ProcessLookupError):
            os.killpg(pid, signal.SIGTERM)
    assert os.getppid() == 0


def test_signal_everybody():
    """Would end all that the user may signal on the host."""
    ours = os.fork()
    if ours == 0:
        time.sleep(60)
    os.kill(-1, signal.SIGTERM)
    assert os.waitpid(ours, 0)[1] == signal.SIGTERM


def test_signal_the_process_group():
    """Would end pytest, and what was started with it."""
    came = []
    signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    os.kill(0, signal.SIGTERM)
    assert came


def test_end_init():
    """Would let go whatever lives on in the sandbox."""
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP):
        try:
            os.kill(1, number)
        except PermissionError:
            continue
    time.sleep(0.05)
    assert "State:\tZ" not in Path("/proc/1/status").read_text()


def test_trace_init():
    """Would make system calls from init, which no filter refuses."""
    PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
    for request in (PTRACE_ATTACH, PTRACE_SEIZE):
        refused(call("ptrace", request, 1, 0, 0))


def test_trace_a_process_outside():
    """Would run code in pytest."""
    refused(call("ptrace", 16, OUTSIDE["pytest"], 0, 0), errno.ESRCH)
    cannot_open(f"/proc/{OUTSIDE['pytest']}/mem", "r+b")
    assert not os.path.exists(f"/proc/{OUTSIDE['pid']}/cmdline")


def test_memory_and_descriptors_of_init():
    """Would read the memory, or take descriptors, of a process that has seen the host."""
    cannot_open("/proc/1/mem", "rb")
    cannot_open("/proc/1/environ")
    try:
        assert os.listdir("/proc/1/fd") == []
    except PermissionError:
        pass
    buffer = ctypes.create_string_buffer(8)
    here = struct.pack("=2Q", ctypes.addressof(buffer), 8)
    refused(call("process_vm_readv", 1, here, 1, here, 1, 0))
    pidfd = call("pidfd_open", 1, 0)
    assert pidfd >= 0
    refused(call("pidfd_getfd", pidfd, 0, 0))


def test_namespaces_of_init():
    """Would enter namespaces with more rights in them."""
    for name in ("user", "mnt", "net", "pid", "ipc", "uts"):
        try:
            fd = os.open(f"/proc/1/ns/{name}", os.O_RDONLY)
        except PermissionError:
            continue
        refused(do(libc.setns(fd, 0)), errno.EPERM, errno.EINVAL)


def test_parent_of_a_user_namespace():
    """Would reach the host's user namespace by the ioctls of ours (ioctl_ns(2))."""
    NS_GET_USERNS, NS_GET_PARENT = 0xB701, 0xB702
    for name in ("user", "pid"):
        with open(f"/proc/self/ns/{name}") as namespace, pytest.raises(PermissionError):
            fcntl.ioctl(namespace, NS_GET_PARENT)
    if IS_ROOT:  # whose mounts belong to the host's
        with open("/proc/self/ns/mnt") as namespace, pytest.raises(PermissionError):
            fcntl.ioctl(namespace, NS_GET_USERNS)


# ---- the terminal, and pytest's own channel ---------------------------------------------------------


def test_type_into_the_terminal():
    """Would have the user's shell run a command when pytest has ended (TIOCSTI)."""
    master, slave = os.openpty()
    for fd in (slave, master, 0, 1, 2):
        for request in (0x5412, 0x541C, 0x5412 | 1 << 40):
            libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p]
            refused(do(libc.ioctl(fd, request, b"x")))


def test_take_the_terminal():
    """Would take the keyboard, and Ctrl-C, from pytest."""
    with pytest.raises(OSError):
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    for fd in (0, 1, 2):
        with pytest.raises(OSError):
            os.tcsetpgrp(fd, os.getpid())


def channel():
    """The test's connection to pytest."""
    from pytest_isolate.runner.isolation import current_isolation

    return current_isolation()._channel.fileno()


def test_garbage_for_pytest():
    """Would have pytest fill its memory, or believe something. Ends this test as one that broke the channel."""
    os.write(channel(), b"\xff" * 64)
    time.sleep(30)


def test_forge_the_evidence():
    """Would have the record say that something else was enforced. Ends this test as one that broke the channel."""
    told = json.dumps(["Entered", {"namespaces": {}, "seccomp": 77}, time.monotonic()]).encode()
    os.write(channel(), struct.pack("!I", len(told)) + told)
    time.sleep(30)


def test_forge_an_order_to_pytest():
    """Would have pytest take what only pytest says. Ends this test as one that broke the channel."""
    told = json.dumps(["Begin"]).encode()
    os.write(channel(), struct.pack("!I", len(told)) + told)
    time.sleep(30)


def test_sockets_lead_to_pytest_alone():
    """Would talk to the supervisor, or be another test to pytest."""
    connected = []
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with sock:
            if sock.family == socket.AF_UNIX:
                connected.append((int(name), sock.type))
    assert connected == [(channel(), socket.SOCK_STREAM)]


# ---- networks and IPC -------------------------------------------------------------------------------


def test_the_hosts_loopback():
    """Would reach a server of the host."""
    for address in ("127.0.0.1", "::ffff:127.0.0.1"):
        with pytest.raises(OSError):
            socket.create_connection((address, OUTSIDE["port"]), timeout=2).close()


def test_abstract_sockets_of_the_host():
    """Would reach a server of the host without a file."""
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ConnectionRefusedError):
        sock.connect("\0" + OUTSIDE["abstract"])


def test_sockets_of_the_host_that_are_files():
    """Would reach a server of the host, such as an agent of keys, by its file."""
    assert stat.S_ISSOCK(os.stat(OUTSIDE["socket"]).st_mode)
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(OSError):
        sock.connect(OUTSIDE["socket"])


def test_virtual_sockets():
    """Would reach the hypervisor (AF_VSOCK), past every network namespace."""
    with pytest.raises(OSError) as refusal:
        socket.socket(40, socket.SOCK_STREAM).close()
    assert refusal.value.errno == errno.EAFNOSUPPORT


def test_raw_packets():
    """Would read and forge what is on the host's wires."""
    for family, kind in ((socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_INET, socket.SOCK_RAW)):
        with pytest.raises(PermissionError):
            socket.socket(family, kind, 1).close()

    def body():
        nested(CLONE_NEWNET)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)):
            assert [name for _, name in socket.if_nameindex()] == ["lo"]

    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    in_fork(body)


def test_interfaces():
    """Would add a way to the host's network, or change the host's."""
    SIOCSIFFLAGS = 0x8914
    with socket.socket() as sock, pytest.raises(PermissionError):
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", 0))
    message = struct.pack("=IHHII", 32, 16, 5, 1, 0) + struct.pack("=BxHiII", 0, 0, 0, 0, 0)  # RTM_NEWLINK
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.send(message)
        assert struct.unpack_from("=i", sock.recv(4096), 16)[0] < 0


def test_the_kernels_log_of_audits():
    """Would change what the host writes down (NETLINK_AUDIT)."""
    message = struct.pack("=IHHII", 16, 1000, 5, 1, 0)  # AUDIT_GET
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9) as sock:
            sock.settimeout(2)
            sock.send(message)
            assert struct.unpack_from("=i", sock.recv(4096), 16)[0] < 0
    except (ConnectionRefusedError, PermissionError) as refusal:
        assert refusal.errno in (errno.ECONNREFUSED, errno.EPERM)
    except OSError as refusal:
        assert refusal.errno == errno.EPROTONOSUPPORT  # a kernel without


def test_shared_memory_of_the_host():
    """Would read and write memory of a process outside."""
    assert not os.path.exists(f"/dev/shm/{OUTSIDE['shm']}")
    libc.shmat.restype = ctypes.c_long
    refused(do(libc.shmget(OUTSIDE["key"], 0, 0)), errno.ENOENT)
    refused(do(libc.shmat(OUTSIDE["segment"], None, 0)), errno.EINVAL)


def test_message_queues_of_the_host():
    """Would read the messages of a process outside."""
    refused(do(libc.mq_open(f"/{OUTSIDE['shm']}".encode(), os.O_RDONLY)), errno.ENOENT)
    assert os.listdir("/dev/mqueue") == []


def test_host_name():
    """Would rename the host."""
    with pytest.raises(PermissionError):
        socket.sethostname("escaped")

    def body():
        nested(CLONE_NEWUTS)
        socket.sethostname("escaped")  # in a namespace of its own

    in_fork(body)


# ---- system calls -----------------------------------------------------------------------------------


def test_keys():
    """Would read the user's keys: of Kerberos, of encrypted file systems (keyrings(7))."""
    KEYCTL_READ, KEYCTL_DESCRIBE, SESSION, USER = 11, 6, -3, -4
    for ring in (SESSION, USER):
        refused(call("keyctl", KEYCTL_READ, ring, ctypes.create_string_buffer(64), 64))
        refused(call("keyctl", KEYCTL_DESCRIBE, ring, None, 0))
    refused(call("request_key", b"user", OUTSIDE["shm"].encode(), None, SESSION))


def test_modules():
    """Would load code into the kernel, or remove some."""
    refused(call("init_module", b"", 0, b""))
    refused(call("finit_module", 0, b"", 0))
    refused(call("delete_module", b"no_such_module", os.O_NONBLOCK))


def test_another_kernel():
    """Would have the machine start another kernel."""
    refused(call("kexec_load", 0, 0, None, 0))
    refused(call("kexec_file_load", -1, -1, 0, None, 0))
    refused(call("reboot", 0, 0, 0, None))


def test_programs_in_the_kernel():
    """Would run code in the kernel (bpf(2)), or measure the whole machine."""
    refused(call("bpf", 0, ctypes.create_string_buffer(128), 128))
    refused(call("perf_event_open", ctypes.create_string_buffer(128), 0, -1, -1, 0))
    refused(call("lookup_dcookie", 0, None, 0))


def test_faults_of_the_kernel():
    """Would hold up the kernel in the middle of its work (userfaultfd(2))."""
    refused(call("userfaultfd", 0))


def test_io_uring():
    """Would make calls that no filter sees."""
    refused(call("io_uring_setup", 1, ctypes.create_string_buffer(128)), errno.ENOSYS)


def test_the_clock():
    """Would set the host's clock."""
    now = struct.pack("=qq", *divmod(time.time_ns(), 10**9))
    refused(call("clock_settime", 0, now))
    refused(call("settimeofday", None, struct.pack("=ii", 0, 0)))
    with pytest.raises(PermissionError):
        time.clock_settime(time.CLOCK_REALTIME, time.time())


def test_the_whole_machine():
    """Would change what all processes share: swap, accounting, quotas, the log of the kernel."""
    refused(call("swapon", b"/nonexistent", 0))
    refused(call("acct", b"/nonexistent"))
    refused(call("quotactl", 0, None, 0, None))
    refused(call("syslog", 10, None, 0))
    if "iopl" in NUMBERS:
        refused(call("iopl", 0))


def test_watch_a_whole_file_system():
    """Would see, and hold up, every access to the host's files (fanotify(7))."""
    FAN_CLASS_CONTENT = 4
    refused(call("fanotify_init", FAN_CLASS_CONTENT, 0))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="there is one way to call the kernel")
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        # mov eax, 288 (keyctl); mov ebx, 0; int 0x80; ret
        pytest.param(b"\x53\xb8\x20\x01\x00\x00\x31\xdb\xcd\x80\x5b\xc3", errno.EPERM, id="int 0x80"),
        # mov eax, 0x40000000 | 39 (getpid of x32); syscall; ret
        pytest.param(b"\xb8\x27\x00\x00\x40\x0f\x05\xc3", errno.ENOSYS, id="x32"),
    ],
)
def test_other_doors_to_the_kernel(code, expected):
    """Would make refused calls by the numbers of 32-bit programs."""
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CFUNCTYPE(ctypes.c_int)(address)() == -expected


# ---- rights -----------------------------------------------------------------------------------------


def test_set_user_id_programs():
    """Would become another user by a program of the host, or by one of the test's."""
    assert "NoNewPrivs:\t1" in Path("/proc/self/status").read_text()
    program = Path("/tmp/become")
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    os.chmod(program, 0o6755)

    def body():
        if IS_ROOT:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        said = subprocess.run([program, "-u"], capture_output=True, text=True, check=True).stdout
        assert int(said) == os.getuid()

    in_fork(body)


def test_file_capabilities():
    """Would gain capabilities by executing a file that has them."""
    program = Path("/tmp/capable")
    program.write_bytes(Path("/bin/cat").read_bytes())
    os.chmod(program, 0o755)
    try:
        os.setxattr(
            program, "security.capability", struct.pack("<5I", 0x02000001, 0xFFFFFFFF, 0, 0xFFFFFFFF, 0)
        )
    except OSError:
        pass
    before = Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0]
    try:
        said = subprocess.run(
            [program, "/proc/self/status"], capture_output=True, text=True, check=True
        ).stdout
    except OSError:
        return  # it is not even executed
    assert int(said.split("CapEff:")[1].split()[0], 16) & ~int(before, 16) == 0


def test_no_capability_reaches_the_host():
    """Would regain what was dropped."""
    status = Path("/proc/self/status").read_text()
    rights = {
        line.split(":")[0]: int(line.split()[1], 16) for line in status.splitlines() if line.startswith("Cap")
    }
    dangerous = sum(1 << cap for cap in (12, 13, 16, 17, 19, 21, 22, 24, 25, 27, 34, 38, 39, 40))
    for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
        assert not rights[name] & dangerous, name
    CAP_SYS_ADMIN, PR_CAP_AMBIENT, RAISE = 21, 47, 2
    assert libc.prctl(PR_CAP_AMBIENT, RAISE, CAP_SYS_ADMIN, 0, 0) == -1


def test_turn_the_filter_off():
    """Would undo the filter of system calls."""
    PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
    refused(do(libc.prctl(PR_SET_SECCOMP, 0, 0, 0, 0)), errno.EINVAL)
    refused(do(libc.prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0)), errno.EINVAL)
    assert "Seccomp:\t2" in Path("/proc/self/status").read_text()


def test_oom_score_of_others():
    """Would have the kernel end others first when memory is short."""
    with pytest.raises(PermissionError):
        Path("/proc/self/oom_score_adj").write_text("-1000")

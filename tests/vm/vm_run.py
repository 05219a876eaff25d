#!/usr/bin/env python3
"""Run a command in a throw-away VM: Debian kernel, pure cgroup v2, this machine's / underneath.

The VM's root is an overlay: the host's / read-only over 9p, a tmpfs on top, so nothing written
inside reaches the host.  /tmp, /run, /dev and /dev/shm start empty (but for --dir).  There is no
network but loopback, and no stdin.  stdout, stderr and the exit code are the command's own;
124: timed out, 125: the VM failed.

As root (default) the command sits in the root cgroup, every controller enabled for its children.
With --user it is uid 1000, in a cgroup delegated to it, like `systemd-run --user --scope -p
Delegate=yes`; with --leaf too it sits one level below, so that the delegated cgroup itself holds
no process and has its controllers already enabled for children.
"""

from __future__ import annotations

import argparse
import contextlib
import lzma
import os
import platform
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pytest-isolate-vm"
TIMED_OUT, VM_FAILED = 124, 125
COVERED = ("/tmp", "/run", "/dev")  # a fresh tmpfs in the VM
BOOT_MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
# Kept of a kernel package: the image, and the modules other than bulky hardware drivers.
KEEP = re.compile(
    r"boot/vmlinuz-|lib/modules/[^/]+/"
    r"(modules\.|kernel/(arch|block|crypto|fs|lib|mm|net|security"
    r"|drivers/(block|char|md|virtio|vhost|net/[^/]+$)))"
)
TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "setpriv": "util-linux",
}
KERNEL_PACKAGE = "linux-image-amd64"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
USER = 1000
NOT_CHOWNED = ("node_modules", "venv", ".venv", ".git", ".tox", ".nox")
KERNEL_ARGUMENTS = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check random.trust_cpu=on"

# Runs as PID 1, first in the initramfs, then (stage2) in the assembled root.
INIT = r"""#!/bin/busybox sh
B=/run/vm
if [ "$1" != stage2 ]; then
    /bin/busybox mkdir -p /proc /sys /dev /lower /up /new /hold
    /bin/busybox --install -s /bin; export PATH=/bin
    . /job.conf
    mount -t devtmpfs dev /dev
    for m in $(cat /boot-modules); do insmod /$m; done
    P=trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000
    mount -t 9p -o $P root /lower
    mount -t tmpfs -o size=90%,mode=755 up /up; mkdir /up/u /up/w
    O=lowerdir=/lower,upperdir=/up/u,workdir=/up/w
    mount -t overlay -o $O,redirect_dir=on,metacopy=on root /new
    umount /lower /up
    i=0; eval "set -- $KEEP_VISIBLE"
    for d; do i=$((i+1)); mkdir /hold/$i; mount --bind "/new$d" /hold/$i; done
    mount -t tmpfs -o mode=755,nosuid,nodev run /new/run
    mount -t tmpfs -o mode=1777,nosuid,nodev tmp /new/tmp
    mount --move /dev /new/dev
    mkdir -p $(for d in pts shm mqueue net; do echo /new/dev/$d; done)
    mkdir -p /new$B/modules /new/lib/modules
    mount -t devpts -o mode=620,gid=5,ptmxmode=666 devpts /new/dev/pts
    mount -t tmpfs -o mode=1777,nosuid,nodev shm /new/dev/shm
    i=0; for d; do i=$((i+1)); mkdir -p "/new$d"; mount --move /hold/$i "/new$d"; done
    # No mount below /usr: it could not be a lowerdir in a user namespace then.
    mount -t 9p -o $P modules /new$B/modules
    ln -s $B/modules/$(uname -r) /new/lib/modules/ 2> /dev/null
    cp /bin/busybox /init /job.conf /job.sh /new$B/
    exec switch_root /new $B/busybox sh $B/init stage2
fi
$B/busybox mount -t proc -o nosuid,nodev,noexec proc /proc  # first: --install reads /proc/self/exe
$B/busybox mkdir $B/bin; $B/busybox --install -s $B/bin
export PATH=$B/bin:/usr/sbin:/usr/bin
. $B/job.conf
mount -t sysfs -o nosuid,nodev,noexec sys /sys
mount -t mqueue mqueue /dev/mqueue
C=/sys/fs/cgroup
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,memory_recursiveprot cgroup2 $C
enable() { for c in $(cat $1/cgroup.controllers); do echo +$c > $1/cgroup.subtree_control; done; }
enable $C
for l in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do ln -s /proc/self/${l#*:} /dev/${l%%:*}; done
[ -x /sbin/modprobe ] || ln -s $B/busybox /sbin/modprobe  # the kernel loads modules on demand
modprobe -a tun fuse; chmod 666 /dev/net/tun /dev/fuse    # but these own a device node
hostname vm; ip link set lo up
mount --make-rshared /  # as systemd does
ulimit -Hn 524288
mkfifo $B/out $B/err; S=
if [ -n "$AS_USER" ]; then
    U=$AS_USER:$AS_USER
    own() { chown $U $1 $1/cgroup.procs $1/cgroup.threads $1/cgroup.subtree_control; }
    S=$C/delegated; mkdir $S; own $S
    [ -z "$LEAF" ] || { enable $S; S=$S/session; mkdir $S; own $S; }
    grep -q "^[^:]*:[^:]*:$AS_USER:" /etc/passwd || echo "vm:x:$U::/tmp/home:/bin/sh" >> /etc/passwd
    mkdir -p /tmp/home /run/user/$AS_USER; chmod 700 /run/user/$AS_USER
    chown $U /tmp/home /run/user/$AS_USER $B/out $B/err
    eval "$OPEN_UP"
fi
until [ -e /dev/vport0p3 ]; do sleep 0.05; done
cat $B/out > /dev/vport0p1 & p1=$!
cat $B/err > /dev/vport0p2 & p2=$!
exec 3> /dev/vport0p3
echo start >&3
( exec 3>&-; [ -z "$S" ] || echo 0 > $S/cgroup.procs; . $B/job.sh ) < /dev/null > $B/out 2> $B/err &
wait $!; rc=$?
( sleep 3; kill $p1 $p2 ) 2> /dev/null &  # a daemon left behind may hold the pipes open
wait $p1 $p2
echo $rc >&3
sleep 1000
"""


class Options(argparse.Namespace):
    """The command line, typed."""

    install: bool
    list_kernels: bool
    user: bool
    leaf: bool
    memory: str
    cpus: str
    timeout: float
    dir: list[str]
    kernel: str
    verbose: bool
    command: list[str]


def say(text: str) -> None:
    sys.stderr.write(f"vm_run: {text}\n")


def die(text: str) -> NoReturn:
    say(text)
    raise SystemExit(VM_FAILED)


# --- what a VM needs: tools of this machine, and kernel packages in the cache ---


@dataclass(frozen=True)
class KernelPackage:
    """A kernel package in the cache; `version` is (6, 12, 95, ...), to tell the newer one."""

    deb: Path
    version: tuple[int, ...]

    @property
    def series(self) -> str:
        return "{}.{}".format(*self.version)


def kernels() -> list[KernelPackage]:
    """Return the newest package of each series in the cache, oldest series first."""
    debs = CACHE.glob("linux-image-[0-9]*.deb")
    found = [KernelPackage(d, tuple(map(int, re.findall(r"\d+", d.name)))) for d in debs]
    newest = {k.series: k for k in sorted(found, key=lambda k: k.version)}
    return sorted(newest.values(), key=lambda k: k.version)


def find_kernel(series: str) -> KernelPackage:
    for kernel in reversed(kernels()):
        if series in ("", kernel.series):
            return kernel
    die(f"no kernel {series} in {CACHE}; to get what can be had: {sys.argv[0]} --install")


def missing_packages() -> list[str]:
    return [package for tool, package in TOOLS.items() if not is_there(tool)]


def is_there(tool: str) -> bool:
    """Tell whether a tool is installed; in an initramfs only a busybox without libraries runs."""
    path = shutil.which(tool)
    if path is None or tool != "busybox":
        return path is not None
    with Path(path).open("rb") as file:
        return b"/ld-linux" not in file.read(4096)  # the ELF interpreter, right after the headers


def install() -> None:
    """Install the tools that are missing (as root), and download the kernels (as anybody)."""
    if missing := missing_packages():
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", "--quiet", *command], check=True, env=env)
    CACHE.mkdir(parents=True, exist_ok=True)
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    download_kernel(codename)
    try:
        download_kernel(f"{codename}-backports")
    except subprocess.CalledProcessError:
        say(f"{codename}-backports cannot be reached: doing without a newer kernel")


def download_kernel(suite: str) -> None:
    """Put the kernel package of a Debian suite into the cache.

    With lists and settings of its own: neither root nor a change of this machine's apt is needed.
    """
    with tempfile.TemporaryDirectory(prefix="vm-apt-") as tmp:
        settings = private_apt(Path(tmp), suite)
        run_apt("apt-get", *settings, "--quiet", "update")
        shown = run_apt("apt-cache", *settings, "show", "--no-all-versions", KERNEL_PACKAGE)
        depends = re.search(r"^Depends: (linux-image-[^ ,]+)", shown, re.MULTILINE)
        if not depends:
            die(f"{KERNEL_PACKAGE} of {suite} depends on no kernel")
        run_apt("apt-get", *settings, "--quiet", "download", depends[1])  # nothing, if it is there
        say(f"{suite}: {depends[1]}")


def private_apt(tmp: Path, suite: str) -> list[str]:
    """Options that make apt use one suite of this machine's mirror, and files in `tmp` only."""
    sources = tmp / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n")
    for name in ("lists/partial", "cache/archives/partial"):
        (tmp / name).mkdir(parents=True)
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": tmp / "lists",
        "Dir::Cache": tmp / "cache",
        "Dir::State::status": "/dev/null",  # a kernel that is installed here is no matter
        "APT::Sandbox::User": "root",  # "_apt" could not write to our directories
        "APT::Update::Error-Mode": "any",  # by default a failed download is only a warning
    }
    return [f"-o{name}={value}" for name, value in settings.items()]


def mirror() -> str:
    """Where this machine gets its Debian packages."""
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    targets = run_apt("apt-get", "indextargets", "--format", "$(CODENAME) $(SITE)")
    for line in targets.splitlines():
        name, _, site = line.partition(" ")
        if name == codename:
            return site
    die(f"apt has no source for {codename}: run `apt-get update`, then try again")


def run_apt(*command: str) -> str:
    """Run it in the cache (where `download` puts files) and return stdout."""
    return subprocess.run(command, cwd=CACHE, check=True, stdout=subprocess.PIPE, text=True).stdout


# --- unpacking a kernel package ---


def cpio(members: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Pack (path, mode, content) into a newc archive, the format of an initramfs."""
    out = bytearray()
    for ino, (path, mode, data) in enumerate([*members, ("TRAILER!!!", 0, b"")], 1):
        name = path.encode() + b"\0"
        fields = (ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def uncompressed(image: bytes) -> bytes:
    """Return the ELF kernel inside an xz bzImage (spares seconds of emulated unpacking).

    The image itself, if there is none.
    """
    at = -1
    while (at := image.find(b"\xfd7zXZ\0", at + 1)) >= 0:
        try:
            elf = lzma.LZMADecompressor().decompress(image[at:])
        except lzma.LZMAError:
            continue
        if elf.startswith(b"\x7fELF"):
            return elf
    return image


def kept_files(deb: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (path, content) of what a VM needs of a kernel package, decompressed."""
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as dpkg,
        tarfile.open(fileobj=dpkg.stdout, mode="r|") as tar,
    ):
        for member in tar:
            name = member.name.removeprefix("./").removeprefix("usr/")
            if not KEEP.match(name) or (content := tar.extractfile(member)) is None:
                continue
            data = content.read()
            if name.startswith("boot/"):
                yield "kernel", uncompressed(data)
            elif name.endswith(".xz"):
                yield name.removesuffix(".xz"), lzma.decompress(data)
            else:
                yield name, data


def boot_order(modules: Path) -> list[str]:
    """Return the paths of the modules that the initramfs loads, each after those it needs."""
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    order: dict[str, None] = {}

    def add(path: str) -> None:
        for other in needs[path]:
            add(other)
        order[path] = None

    for name in BOOT_MODULES:
        for path in needs:
            if Path(path).stem.replace("-", "_") == name:  # no file: built in
                add(path)
    return list(order)


def initramfs(modules: Path) -> bytes:
    """Build the part of the initramfs that every job shares."""
    busybox = shutil.which("busybox")
    if busybox is None:
        die("busybox is gone")
    order = boot_order(modules)
    names = "\n".join(Path(path).name for path in order)
    return cpio(
        [
            ("bin", 0o40755, b""),
            ("bin/busybox", 0o100755, Path(busybox).read_bytes()),
            ("boot-modules", 0o100644, names.encode()),
            *((Path(path).name, 0o100644, (modules / path).read_bytes()) for path in order),
        ]
    )


def unpack(deb: Path) -> Path:
    """Unpack a kernel package in the cache, unless that is done; return the directory."""
    dest = CACHE / deb.stem
    if dest.exists():
        return dest
    say(f"unpacking {deb.name} (once)")
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".unpack-") as scratch:
        tmp = Path(scratch, "kernel")
        for name, data in kept_files(deb):
            path = tmp / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        modules = next((tmp / "lib/modules").iterdir())
        subprocess.run(["busybox", "depmod", "-b", tmp, modules.name], check=True)
        (tmp / "initramfs").write_bytes(initramfs(modules))
        with contextlib.suppress(OSError):  # another process was faster
            tmp.rename(dest)
    return dest


# --- what to run in the VM ---


def opened_up(dirs: Sequence[str], search_path: str) -> str:
    """Return commands that let the user reach `dirs` and all of PATH, and own the former."""
    wanted = [
        Path(p)
        for d in (*dirs, *search_path.split(":"))
        for p in (os.path.abspath(d), os.path.realpath(d))  # keeps symlinks
    ]
    closed = {
        str(above)
        for path in wanted
        for above in (path, *path.parents)
        if above.is_dir() and not above.stat().st_mode & 1
    }
    skip = " -o ".join(f"-name {name}" for name in NOT_CHOWNED)
    lines = [f"chmod a+rx {shlex.quote(d)}" for d in sorted(closed)]
    lines += [  # 3 ms a file: not for trees only read
        f"find {shlex.quote(d)} '(' {skip} ')' -prune -o -exec chown -h {USER}:{USER} {{}} +"
        for d in dirs
        if d != "/"
    ]
    return "\n".join(lines)


def job(options: Options) -> bytes:
    """Build the files that say what to run, as a second part of the initramfs."""
    not_here = ("TMPDIR", "XDG_RUNTIME_DIR", "OLDPWD", "_")  # they name what the VM does not have
    env = {name: value for name, value in os.environ.items() if name not in not_here}
    dirs = [os.path.abspath(d) for d in options.dir or ["."]]  # keeps symlinks
    argv = ["/usr/bin/env", "-i"]
    if options.user:
        argv[:0] = ["/usr/bin/setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        env |= {"HOME": "/tmp/home", "XDG_RUNTIME_DIR": f"/run/user/{USER}"}
        env |= {"USER": "vm", "LOGNAME": "vm"}
    conf = {
        "AS_USER": str(USER) if options.user else "",
        "LEAF": "1" if options.leaf else "",
        "OPEN_UP": opened_up(dirs, env.get("PATH", "")) if options.user else "",
        "KEEP_VISIBLE": shlex.join(
            d for d in dirs if d.startswith(tuple(f"{covered}/" for covered in COVERED))
        ),
    }
    assignments = "".join(f"{name}={shlex.quote(value)}\n" for name, value in conf.items())
    command = shlex.join([*argv, *(f"{k}={v}" for k, v in env.items()), *options.command])
    return cpio(
        [
            ("init", 0o100755, INIT.encode()),
            ("job.conf", 0o100644, assignments.encode()),
            ("job.sh", 0o100644, f"cd {shlex.quote(dirs[0])} && exec {command}\n".encode()),
        ]
    )


# --- the VM ---


def has_kvm() -> bool:
    """Tell whether KVM works: /dev/kvm may be there (PVM does that) and run no stock kernel."""
    cpu = Path("/proc/cpuinfo").read_text()
    return os.access("/dev/kvm", os.W_OK) and bool(re.search(r"^flags.*\b(vmx|svm)\b", cpu, re.MULTILINE))


def qemu_command(options: Options, kernel: Path, files: Path, fds: Sequence[int]) -> list[str]:
    accel = "-accel kvm -cpu host" if has_kvm() else "-accel tcg,thread=multi -cpu max"
    command = [
        *("setpriv", "--pdeathsig", "KILL", "--"),  # no VM outlives us
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-no-reboot", "-M", "q35", *accel.split(), "-m", options.memory, "-smp", options.cpus),
        *("-kernel", f"{kernel}/kernel", "-initrd", f"{files}/initrd"),
        *("-append", KERNEL_ARGUMENTS, "-serial", f"file:{files}/console"),
        *("-device", "virtio-serial"),
    ]
    for tag, path in ("root", "/"), ("modules", f"{kernel}/lib/modules"):
        share = f"local,path={path},mount_tag={tag},security_model=none"
        command += ["-virtfs", f"{share},readonly=on,multidevs=remap"]
    for n, fd in enumerate(fds, 1):
        command += ["-chardev", f"socket,id=c{n},fd={fd}"]
        command += ["-device", f"virtserialport,nr={n},chardev=c{n}"]
    return command


def pump(sock: socket.socket, fd: int) -> None:
    try:
        while data := sock.recv(1 << 16):
            while data:
                data = data[os.write(fd, data) :]
    except BrokenPipeError:  # nobody reads our output any more
        os.kill(os.getpid(), signal.SIGTERM)


def exit_code(control: socket.socket, options: Options, started: float) -> int:
    """Read "start" and the exit code from the VM's control port."""
    said, times = b"", []
    while said.count(b"\n") < 2:
        control.settimeout(max(0.01, started + options.timeout - time.monotonic()))
        try:
            data = control.recv(100)
        except TimeoutError:
            say(f"timed out after {options.timeout:g} s")
            return TIMED_OUT
        if not data:
            say("the VM ended before the command did")
            return VM_FAILED
        said += data
        times.append(time.monotonic() - started)
    if options.verbose:
        say(f"command started at {times[0]:.2f} s, ended at {times[-1]:.2f} s")
    return int(said.split()[1])


def run_vm(options: Options, kernel: Path, files: Path) -> int:
    started = time.monotonic()
    ours, theirs = zip(*(socket.socketpair() for _ in range(3)), strict=True)
    fds = [s.fileno() for s in theirs]
    with (files / "qemu.log").open("wb") as log:
        vm = subprocess.Popen(
            qemu_command(options, kernel, files, fds),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=fds,
        )
    for s in theirs:
        s.close()
    pumps = [
        threading.Thread(target=pump, args=(s, fd), daemon=True)
        for s, fd in zip(ours[:2], (1, 2), strict=True)
    ]
    try:
        for p in pumps:
            p.start()
        return exit_code(ours[2], options, started)
    finally:
        vm.kill()
        vm.wait()
        for p in pumps:
            p.join()


def run(options: Options) -> int:
    """Boot, run the command, and return its exit code."""
    if missing := missing_packages():
        die(f"{', '.join(missing)} missing; to get what is needed: {sys.argv[0]} --install")
    kernel = unpack(find_kernel(options.kernel).deb)
    for number in signal.SIGTERM, signal.SIGINT:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="vm-") as tmp:
        files = Path(tmp)
        (files / "initrd").write_bytes((kernel / "initramfs").read_bytes() + job(options))
        code = run_vm(options, kernel, files)
        if options.verbose or code == VM_FAILED:
            for name in ("qemu.log", "console"):
                if (files / name).exists():
                    sys.stderr.write((files / name).read_text(errors="replace"))
    return code


def parse() -> tuple[argparse.ArgumentParser, Options]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--install", action="store_true", help="get the tools and kernels that a VM needs")
    add(
        "--list",
        dest="list_kernels",
        action="store_true",
        help="print the kernel series that are there (6.1, 6.12)",
    )
    add("--user", action="store_true", help=f"run as uid {USER} in a delegated cgroup")
    add("--leaf", action="store_true", help="with --user: one level below the delegated cgroup")
    add("--memory", default="2G", help="of the VM (default %(default)s)")
    add("--cpus", default="2", help="of the VM (default %(default)s)")
    add("--timeout", type=float, default=600, help="seconds, boot included (default %(default)g)")
    add(
        "--dir",
        action="append",
        help="directory to be in, visible at the same path and, with --user, owned by the user; "
        "repeatable, the first is entered (default: the current one)",
    )
    add("--kernel", default="", metavar="SERIES", help="such as 6.1 (default: the newest)")
    add("--verbose", action="store_true", help="report timings, and the console")
    add("command", nargs=argparse.REMAINDER, help="what to run, with its own options")
    options = parser.parse_args(namespace=Options())
    options.command = options.command[options.command[:1] == ["--"] :]
    return parser, options


def main() -> int:
    parser, options = parse()
    if options.install:
        install()
    if options.list_kernels:
        sys.stdout.writelines(f"{kernel.series}\n" for kernel in kernels())
    if options.command:
        return run(options)
    if not (options.install or options.list_kernels):
        parser.error("a command is required")
    return 0


if __name__ == "__main__":
    sys.exit(main())

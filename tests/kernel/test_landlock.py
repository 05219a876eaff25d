"""Confining a process of this machine, with what every ABI up to its own can do."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from errno import EACCES, ENOSYS, EPERM, EXDEV
from functools import partial
from pathlib import Path

import pytest

from pytest_isolate.kernel.landlock import landlock_abi, make_ruleset
from pytest_isolate.sandbox.confinement import Confinement, request_of
from pytest_isolate.syscalls._native import ffi, lib

pytestmark = [pytest.mark.vm, pytest.mark.needs("landlock", "seccomp filter")]

OF_RUNNING_KERNEL = max(landlock_abi(), 0)
ABIS = [pytest.param(abi, id=f"abi {abi}") for abi in range(1, OF_RUNNING_KERNEL + 1)]
PR_SET_NO_NEW_PRIVS = 38
SYS_IO_URING_SETUP = 425  # on every architecture
FILES, NETWORK, SIGNALS = 1, 2, 4
libc = ctypes.CDLL(None, use_errno=True)


def errno_of(call: Callable[[], object]) -> int:
    """0 if it is not refused."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def in_child(body: Callable[[], None]) -> None:
    """What cannot be undone happens in another process; it failed if that did."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            body()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def confine(abi: int, writable: Path, *, closes_network: bool = True) -> None:
    ruleset = make_ruleset(abi, closes_network=closes_network) if abi else None
    confinement = Confinement(
        ruleset=ruleset, writable=(str(writable), "/dev/null"), closes_network=closes_network, tmp=""
    )
    assert lib.isolate_confine(request_of(confinement)) == 0, os.strerror(ffi.errno)


@pytest.mark.parametrize("abi", ABIS)
def test_files_outside_cannot_be_changed(abi: int, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for directory in (inside, inside / "a", inside / "b", outside):
        directory.mkdir()
    (outside / "file").write_text("kept")
    (outside / "empty").mkdir()

    def body() -> None:
        confine(abi, inside)
        assert (outside / "file").read_text() == "kept"
        assert errno_of(lambda: (outside / "file").write_text("changed")) == EACCES
        assert errno_of((outside / "file").unlink) == EACCES
        assert errno_of((outside / "empty").rmdir) == EACCES
        assert errno_of((outside / "new").mkdir) == EACCES
        assert errno_of(lambda: (outside / "new").symlink_to("file")) == EACCES
        assert errno_of(lambda: os.mkfifo(outside / "new")) == EACCES
        assert errno_of(lambda: (outside / "file").rename(outside / "other")) == EACCES
        if abi >= 3:
            assert errno_of(lambda: os.truncate(outside / "file", 0)) == EACCES
        (inside / "a" / "file").write_text("new")
        moved = errno_of(lambda: (inside / "a" / "file").rename(inside / "b" / "file"))
        assert moved == (0 if abi >= 2 else EXDEV)
        assert errno_of(lambda: os.link(outside / "file", inside / "file")) in (EXDEV, EACCES)
        Path("/dev/null").write_text("nothing")

    in_child(body)
    assert [*sorted(path.name for path in outside.iterdir())] == ["empty", "file"]
    assert (outside / "file").read_text() == "kept"


@pytest.mark.parametrize("abi", ABIS)
def test_what_is_refused_is_found_out(abi: int, tmp_path: Path) -> None:
    def body() -> None:
        assert lib.isolate_confined() == 0
        confine(abi, tmp_path)
        assert lib.isolate_confined() == FILES | NETWORK | (SIGNALS if abi >= 6 else 0)

    in_child(body)


def test_the_filter_alone_closes_the_network(tmp_path: Path) -> None:
    families = ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG")

    def body() -> None:
        confine(0, tmp_path)
        assert lib.isolate_confined() == NETWORK
        for family in families:
            make = partial(socket.socket, getattr(socket, family), socket.SOCK_DGRAM)
            assert errno_of(make) == EACCES, family
        with socket.socket(socket.AF_UNIX) as mine:
            mine.bind("")
        left, right = socket.socketpair()
        left.close()
        right.close()
        (tmp_path / "file").write_text("files are as they were")

    in_child(body)


def test_io_uring_is_no_way_around_the_filter(tmp_path: Path) -> None:
    """Its sockets pass by every filter."""

    def body() -> None:
        parameters = ctypes.create_string_buffer(120)
        before = libc.syscall(SYS_IO_URING_SETUP, 1, parameters)
        if before < 0 and ctypes.get_errno() not in (EPERM, ENOSYS):
            raise AssertionError(os.strerror(ctypes.get_errno()))
        confine(0, tmp_path)
        assert libc.syscall(SYS_IO_URING_SETUP, 1, parameters) == -1
        assert ctypes.get_errno() == EPERM

    in_child(body)


def test_programs_inherit_it(tmp_path: Path) -> None:
    script = "import socket\ntry: socket.socket()\nexcept PermissionError: print('refused')"

    def body() -> None:
        confine(OF_RUNNING_KERNEL, tmp_path)
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert ran.stdout == "refused\n"

    in_child(body)


@pytest.mark.skipif(OF_RUNNING_KERNEL < 6, reason="scopes came with ABI 6 of Landlock, Linux 6.12")
def test_signals_and_abstract_sockets_stay_inside(tmp_path: Path) -> None:
    name = f"\0isolate-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(name)
        outside.listen()

        def body() -> None:
            with socket.socket(socket.AF_UNIX) as before:
                before.connect(name)
            confine(OF_RUNNING_KERNEL, tmp_path)
            assert errno_of(lambda: os.kill(os.getppid(), 0)) == EPERM
            os.kill(os.getpid(), 0)
            with socket.socket(socket.AF_UNIX) as after:
                assert errno_of(lambda: after.connect(name)) == EPERM

        in_child(body)


@pytest.mark.skipif(OF_RUNNING_KERNEL < 4, reason="TCP came with ABI 4 of Landlock, Linux 6.7")
def test_a_socket_that_was_open_before_reaches_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:

        def body() -> None:
            with socket.socket() as inherited:
                confine(OF_RUNNING_KERNEL, tmp_path)
                assert errno_of(lambda: inherited.connect(outside.getsockname())) == EACCES

        in_child(body)


def test_with_the_network_of_the_host_sockets_are_open(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:

        def body() -> None:
            confine(OF_RUNNING_KERNEL, tmp_path, closes_network=False)
            with socket.create_connection(outside.getsockname(), timeout=10):
                pass

        in_child(body)

"""What a test sees from inside, and what of it is seen outside: the promises of README, one by one."""

from __future__ import annotations

import os
import pathlib
import socket
from collections.abc import Callable

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]


@pytest.mark.vm
def test_process_is_alone_and_not_the_init(run: Runner) -> None:
    inner = run(
        """
        import os, signal

        def test_pid():
            assert os.getpid() == 2
            assert sorted(p for p in os.listdir("/proc") if p.isdigit()) == ["1", "2"]

        def test_signals_work():
            # A process that is PID 1 itself ignores them (pid_namespaces(7)).
            seen = []
            signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            signal.pause()
            assert seen

        def test_init_cannot_be_read():
            try:
                os.listdir("/proc/1/root/")
            except PermissionError:
                return
            raise AssertionError("the init's root is open")
        """
    )
    assert inner.outcomes == {"passed": 3}


@pytest.mark.vm
def test_network_is_loopback_only_and_up(run: Runner) -> None:
    inner = run(
        """
        import socket, time

        def test_lo():
            assert [name for _, name in socket.if_nameindex()] == ["lo"]
            with socket.create_server(("127.0.0.1", 0)) as server:
                with socket.create_connection(server.getsockname()):
                    pass

        def test_outside_fails_at_once():
            started = time.monotonic()
            try:
                socket.create_connection(("192.0.2.1", 80), timeout=20)
            except OSError as error:
                assert not isinstance(error, TimeoutError)
            else:
                raise AssertionError("connected")
            assert time.monotonic() - started < 5
        """
    )
    assert inner.outcomes == {"passed": 2}


def test_host_network_can_be_asked_for(run: Runner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        inner = run(
            f"""
            import pytest, socket

            @pytest.mark.isolated(network="host")
            def test_reaches_the_host():
                socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), timeout=20).close()

            def test_does_not():
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), timeout=20)
            """
        )
    assert inner.outcomes == {"passed": 2}
    assert "net" not in inner.record("test_reaches_the_host")["enforced"]["namespaces"]
    assert "net" in inner.record("test_does_not")["enforced"]["namespaces"]


@pytest.mark.vm
def test_writes_are_thrown_away(run: Runner, pytester: pytest.Pytester) -> None:
    home = pytester.mkdir("home")
    pytester.makefile(".txt", kept="before")
    inner = run(
        f"""
        import os, pathlib, shutil

        PLACES = [pathlib.Path(place) for place in (os.getcwd(), {str(home)!r}, "/tmp", "/var/tmp", "/dev/shm")]

        def test_writes():
            for place in PLACES:
                (place / "decoy").write_text("x")
                assert (place / "decoy").read_text() == "x"
            pathlib.Path("kept.txt").write_text("after")

        def test_sees_nothing_of_it():
            assert not any((place / "decoy").exists() for place in PLACES)
            assert pathlib.Path("kept.txt").read_text() == "before"

        def test_changes():
            os.unlink("kept.txt")
            assert not os.path.exists("kept.txt")

        def test_etc():
            try:
                pathlib.Path("/etc/decoy").write_text("x")
            except OSError:  # without privileges it is read-only where the caller has no right to write
                assert os.getuid() != 0
        """
    )
    assert inner.outcomes == {"passed": 4}
    assert pathlib.Path(pytester.path, "kept.txt").read_text() == "before"
    for place in (pytester.path, home, "/tmp", "/var/tmp", "/dev/shm", "/etc"):
        assert not pathlib.Path(place, "decoy").exists()


@pytest.mark.vm
def test_tmp_path_is_kept(run: Runner, pytester: pytest.Pytester) -> None:
    inner = run(
        """
        def test_keeps(tmp_path, tmp_path_factory):
            (tmp_path / "result").write_text("kept")
            assert tmp_path.is_relative_to(tmp_path_factory.getbasetemp())
        """,
        "-o",
        "tmp_path_retention_policy=all",
    )
    assert inner.outcomes == {"passed": 1}
    (found,) = pathlib.Path(pytester.path).glob("runpytest-0/test_keeps0/result")
    assert found.read_text() == "kept"
    assert found.stat().st_uid == os.getuid()


@pytest.mark.vm
def test_identity(run: Runner) -> None:
    inner = run(
        f"""
        import os, pytest, socket

        def test_user_is_the_caller():
            assert (os.getuid(), os.getgid()) == ({os.getuid()}, {os.getgid()})

        @pytest.mark.isolated(user="root")
        def test_fake_root():
            assert (os.getuid(), os.getgid()) == (0, 0)

        @pytest.mark.isolated(hostname="box")
        def test_hostname():
            assert socket.gethostname() == "box"

        def test_default_hostname():
            assert socket.gethostname() == "isolated" != {socket.gethostname()!r}
        """
    )
    assert inner.outcomes == {"passed": 4}


@pytest.mark.vm
def test_ipc_is_private(run: Runner) -> None:
    inner = run(
        """
        import ctypes, os
        from multiprocessing import shared_memory

        KEY = 0x6973

        def shmget(flags):
            return ctypes.CDLL(None).shmget(KEY, 64, flags)

        def test_makes():
            assert shmget(0o1600) >= 0
            shared_memory.SharedMemory(name="isolate-decoy", create=True, size=64).close()
            open("/dev/mqueue/decoy", "w").close()

        def test_sees_nothing():
            assert shmget(0o600) == -1
            assert os.listdir("/dev/mqueue") == []
            assert not os.path.exists("/dev/shm/isolate-decoy")
        """
    )
    assert inner.outcomes["passed"] == 2
    assert not os.path.exists("/dev/shm/isolate-decoy")


@pytest.mark.vm
def test_no_capability_reaches_the_host(run: Runner) -> None:
    inner = run(
        """
        import os, pytest

        @pytest.mark.parametrize("path", [
            "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/sys/vm/swappiness", "/sys/kernel/uevent_seqnum",
        ])
        def test_host_wide_files_are_closed(path):
            with pytest.raises(OSError):
                os.close(os.open(path, os.O_WRONLY))  # opened, and nothing is written

        def test_no_device_nodes():
            with pytest.raises(PermissionError):
                os.mknod("/tmp/null", 0o20666, os.makedev(1, 3))

        def test_no_new_privs():
            status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
            assert status["NoNewPrivs"].strip() == "1"
            assert not int(status["CapEff"], 16) >> 21 & 1, "CAP_SYS_ADMIN"

        def test_devices():
            assert sorted(os.listdir("/dev")) == sorted(
                "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
            )
            master, slave = os.openpty()
            os.write(slave, b"x")
            assert os.read(master, 1) == b"x"
        """
    )
    assert inner.outcomes == {"passed": 7}


@pytest.mark.vm
def test_daemons_die_with_the_test(run: Runner) -> None:
    inner = run(
        """
        import os, time

        def test_leaves_a_daemon(tmp_path):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    while True:
                        (tmp_path / "alive").write_text(str(time.time()))
                        time.sleep(0.01)
                os._exit(0)
            os.wait()
            while not (tmp_path / "alive").exists():
                time.sleep(0.01)

        def test_it_is_gone(tmp_path_factory):
            alive = tmp_path_factory.getbasetemp() / "test_leaves_a_daemon0" / "alive"
            before = alive.read_text()
            time.sleep(0.2)
            assert alive.read_text() == before
        """,
        "-o",
        "tmp_path_retention_policy=all",
    )
    assert inner.outcomes == {"passed": 2}
    assert inner.record("test_leaves_a_daemon")["leaked_processes"] in (1, None)


def test_environment(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECOY", "secret")
    inner = run(
        """
        import os, pytest

        def test_inherited():
            assert os.environ["DECOY"] == "secret"

        @pytest.mark.isolated(env="clean")
        def test_clean():
            assert "DECOY" not in os.environ
            assert os.environ["TZ"] == "UTC" and os.environ["LANG"] == "C.UTF-8" and os.environ["PATH"]

        @pytest.mark.isolated(env={"DECOY": None, "EXTRA": "1"})
        def test_changed():
            assert "DECOY" not in os.environ and os.environ["EXTRA"] == "1"
        """
    )
    assert inner.outcomes == {"passed": 3}


@pytest.mark.vm
def test_binds(run: Runner, pytester: pytest.Pytester) -> None:
    shared = pytester.mkdir("shared")
    (shared / "given").write_text("x")
    inner = run(
        f"""
        import pathlib, pytest

        @pytest.mark.isolated(binds={{{str(shared)!r}: "/tmp/rw", {str(shared / "given")!r}: "/tmp/file:ro"}})
        def test_binds():
            assert pathlib.Path("/tmp/file").read_text() == "x"
            pathlib.Path("/tmp/rw/made").write_text("y")
            with pytest.raises(OSError, match="Read-only"):
                pathlib.Path("/tmp/file").write_text("z")
        """
    )
    assert inner.outcomes == {"passed": 1}
    assert (shared / "made").read_text() == "y"


def test_readonly_root(run: Runner) -> None:
    inner = run(
        """
        import errno, pathlib, pytest

        @pytest.mark.isolated(readonly=True)
        def test_readonly(tmp_path):
            with pytest.raises(OSError) as caught:
                pathlib.Path("decoy").write_text("x")
            assert caught.value.errno == errno.EROFS
            (tmp_path / "works").write_text("x")
            pathlib.Path("/tmp/works").write_text("x")
        """
    )
    assert inner.outcomes == {"passed": 1}


@pytest.mark.vm
def test_directory_as_root(run: Runner, pytester: pytest.Pytester) -> None:
    root = pytester.mkdir("root")
    (root / "only-here").write_text("x")
    (root / "etc").mkdir()
    (root / "etc" / "hostname").write_text("y")
    inner = run(
        f"""
        import os, pathlib, pytest, socket, sqlite3

        @pytest.mark.isolated(rootfs={str(root)!r})
        def test_inside(tmp_path):
            assert pathlib.Path("/only-here").read_text() == "x"
            assert not os.path.exists("/etc/passwd")
            assert "home" not in os.listdir("/")
            pathlib.Path("/only-here").write_text("changed")
            pathlib.Path("/new").write_text("made")
            (tmp_path / "kept").write_text("x")
            assert pathlib.Path(__file__).exists()
            with pytest.raises(OSError):
                pathlib.Path(__file__).write_text("the project is read-only")
            assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
            import html.parser, wave  # modules that nobody has imported yet
            os.chroot if os.getuid() else os.chroot("/tmp")
        """
    )
    assert inner.outcomes == {"passed": 1}, inner.out
    assert sorted(os.listdir(root)) == ["etc", "only-here"]
    assert (root / "only-here").read_text() == "x"
    assert inner.record("test_inside")["enforced"]["root"] == "overlay"


@pytest.mark.vm
def test_evidence_is_read_back(run: Runner) -> None:
    inner = run("def test_it(): pass")
    enforced = inner.record("test_it")["enforced"]
    assert set(enforced["namespaces"]) == {"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"}
    for name, inode in enforced["namespaces"].items():
        assert inode != os.stat(f"/proc/self/ns/{name}").st_ino
    assert enforced["no_new_privs"] is True
    assert enforced["missing"] == []

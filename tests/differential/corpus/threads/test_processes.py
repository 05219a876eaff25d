"""Processes, threads, signals and sockets of a test's own."""

import concurrent.futures
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest


def square(x):
    return x * x


def test_pool():
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method):
    context = multiprocessing.get_context(method)
    with context.Pool(1) as pool:
        assert pool.map(square, [3]) == [9]


def test_threads():
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]


def test_fork():
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_signals():
    got = []
    before = signal.signal(signal.SIGALRM, lambda *_: got.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(0.05)
    signal.signal(signal.SIGALRM, before)
    assert got == [1]
    with pytest.raises(ZeroDivisionError):
        signal.signal(signal.SIGTERM, lambda *_: 1 / 0)
        os.kill(os.getpid(), signal.SIGTERM)


def test_signal_of_child():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    child.terminate()
    assert child.wait() == -signal.SIGTERM


def test_server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].sendall(b"x"))
        thread.start()
        with socket.create_connection(server.getsockname()) as client:
            assert client.recv(1) == b"x"
        thread.join()


def test_udp_and_unix(tmp_path):
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
        one.bind(("::1", 0))
        one.sendto(b"x", one.getsockname())
        assert one.recv(1) == b"x"


def test_user():
    import getpass
    import pwd

    print(getpass.getuser(), os.getuid(), os.getgid(), pwd.getpwuid(os.getuid()).pw_dir)
    assert 0


def test_session():
    assert os.getpid() != 1
    assert os.path.exists(f"/proc/{os.getpid()}/stat")
    assert os.path.samefile(f"/proc/{os.getpid()}/cwd", os.getcwd())


def test_names():
    assert socket.gethostbyname("localhost") == "127.0.0.1"
    assert socket.getservbyname("http") == 80


def test_pty():
    import pty

    master, slave = pty.openpty()
    os.write(slave, b"x")
    assert os.read(master, 1) == b"x"
    assert os.ttyname(slave).startswith("/dev/pts/")


def test_permissions(tmp_path):
    (tmp_path / "f").touch(mode=0o600)
    os.chmod(tmp_path / "f", 0o640)
    assert os.stat(tmp_path / "f").st_mode & 0o777 == 0o640
    os.symlink("f", tmp_path / "l")
    os.mkfifo(tmp_path / "p")
    assert os.stat(tmp_path / "f").st_uid == os.getuid()

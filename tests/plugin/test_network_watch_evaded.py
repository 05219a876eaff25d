"""The watch of the network against tests that mean to stop or to evade it."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable

import pytest

from .conftest import Run
from .test_network_watch import OUTSIDE, build, found

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]

#: Closes a socket that lingers (socket(7)) while its connect(2) is looked at: who holds the last copy of it waits for
#: an hour when closing that.
LINGER = r"""
    #define _GNU_SOURCE
    #include <arpa/inet.h>
    #include <fcntl.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stdlib.h>
    #include <sys/socket.h>
    #include <time.h>
    #include <unistd.h>
    static struct sockaddr_in outside = {.sin_family = AF_INET};
    static int fd, opens;
    static volatile int go, closed, connected;
    static void nothing(int number) { (void)number; }
    static void *connects(void *unused) {
        go = 1;
        if (opens)
            openat(fd, "x", O_RDONLY);
        else
            connect(fd, (void *)&outside, sizeof outside);
        connected = 1;
        return unused;
    }
    static void *closes(void *spins) {
        while (!go) {
        }
        for (volatile long i = 0; i < (long)spins; i++) {
        }
        close(fd);
        closed = 1;
        return NULL;
    }
    int main(int argc, char **argv) {
        static char bytes[65536];
        opens = argc > 1;
        struct sigaction action = {.sa_handler = nothing};
        struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        socklen_t size = sizeof here;
        int small = 2048, server = socket(AF_INET, SOCK_STREAM, 0);
        time_t end = time(NULL) + 3;
        sigaction(SIGUSR1, &action, NULL);
        outside.sin_port = htons(80);
        inet_pton(AF_INET, "192.0.2.1", &outside.sin_addr);
        setsockopt(server, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        bind(server, (void *)&here, size);
        listen(server, 4096);
        getsockname(server, (void *)&here, &size);
        while (time(NULL) < end) {
            struct linger lingers = {1, 3600};
            pthread_t closer, connector;
            fd = socket(AF_INET, SOCK_STREAM, 0);
            if (connect(fd, (void *)&here, sizeof here) < 0)
                return 1;
            int peer = accept(server, NULL, NULL);
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &lingers, sizeof lingers);
            fcntl(fd, F_SETFL, O_NONBLOCK);
            while (send(fd, bytes, sizeof bytes, 0) > 0) {
            }
            fcntl(fd, F_SETFL, 0);
            go = closed = connected = 0;
            pthread_create(&closer, NULL, closes, (void *)(long)(rand() % 20000));
            pthread_create(&connector, NULL, connects, NULL);
            while (!closed || !connected) { /* or they wait themselves */
                usleep(50);
                if (!closed)
                    pthread_kill(closer, SIGUSR1);
                if (!connected)
                    pthread_kill(connector, SIGUSR1);
            }
            pthread_join(closer, NULL);
            pthread_join(connector, NULL);
            close(peer);
        }
        return 0;
    }
"""


@pytest.mark.parametrize(
    ("more", "argument", "told"),
    [([], "", {f"connected to {OUTSIDE}:80 (tcp)"}), (["--isolate-strict"], "opens", set())],
    ids=["connect", "open"],
)
def test_a_socket_that_lingers(
    run: Runner, pytester: pytest.Pytester, more: list[str], argument: str, told: set[str]
) -> None:
    program = build(pytester.path, LINGER)
    inner = run(
        f"""
        import subprocess, pytest

        @pytest.mark.isolated(timeout=20)
        def test_it(): subprocess.run(["{program}", *"{argument}".split()], check=True)

        def test_after(): pass
        """,
        *more,
    )
    assert inner.outcomes == {"passed": 2}
    assert inner.record("test_it")["enforced"]["network_watch"] == "kernel"
    assert {v["what"] for v in inner.record("test_it")["violations"]} == told


THREADS = r"""
    #define _GNU_SOURCE
    #include <arpa/inet.h>
    #include <pthread.h>
    #include <sched.h>
    #include <stdlib.h>
    #include <sys/socket.h>
    #include <unistd.h>
    static int to_leader[2], to_thread[2], of_leader;
    static void wait_for(int *pipe) {
        char byte;
        if (read(pipe[0], &byte, 1) != 1)
            exit(1);
    }
    static void tell(int *pipe) {
        if (write(pipe[1], "x", 1) != 1)
            exit(1);
    }
    static void dial(int fd, int port) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
        inet_pton(AF_INET, "192.0.2.1", &a.sin_addr);
        connect(fd, (void *)&a, sizeof a);
    }
    static void *thread(void *unused) {
        unshare(CLONE_FILES);
        tell(to_leader);
        wait_for(to_thread);
        dial(of_leader, 90); /* no descriptor of this thread's */
        for (int i = 0; i < 20; i++)
            dup(0);
        dial(socket(AF_INET, SOCK_STREAM, 0), 91); /* and none of the leader's */
        dial(-1, 92);
        dial(0, 93); /* no socket */
        tell(to_leader);
        usleep(100000); /* now the leader has ended */
        dial(socket(AF_INET, SOCK_STREAM, 0), 94);
        exit(0);
        return unused;
    }
    int main(void) {
        pthread_t id;
        pipe(to_leader);
        pipe(to_thread);
        pthread_create(&id, NULL, thread, NULL);
        wait_for(to_leader);
        of_leader = socket(AF_INET, SOCK_STREAM, 0);
        tell(to_thread);
        wait_for(to_leader);
        pthread_exit(NULL);
    }
"""


def test_descriptors_of_a_thread(run: Runner, pytester: pytest.Pytester) -> None:
    program = build(pytester.path, THREADS)
    inner = run(
        f"""
        import subprocess
        def test_it(): subprocess.run(["{program}"], stdin=subprocess.DEVNULL, check=True)
        """
    )
    assert inner.outcomes == {"passed": 1}
    seen = found(inner, "test_it")
    assert sorted(seen) == [f"connected to {OUTSIDE}:91 (tcp)", f"connected to {OUTSIDE}:94 (tcp)"]
    assert {each["where"].partition(": ")[2] for each in seen.values()} == {str(program)}


def test_a_process_that_nobody_may_read(run: Runner) -> None:
    """As root pytest may, and sees all of it."""
    inner = run(
        f"""
        import ctypes, socket, struct
        C = ctypes.CDLL(None)

        def test_it():
            assert C.prctl(4, 0, 0, 0, 0) == 0  # PR_SET_DUMPABLE
            socket.socket().connect_ex(("{OUTSIDE}", 1))
            address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 2) + socket.inet_aton("{OUTSIDE}")
            assert C.connect(socket.socket().fileno(), address + bytes(8), 16) == -1
        """
    )
    assert inner.outcomes == {"passed": 1}
    record = inner.record("test_it")
    assert record["network_attempts"] == 2
    (of_python,) = (each for each in record["violations"] if each["where"] == "test_it.py:6 (test_it)")
    assert of_python["what"] == f"connected to {OUTSIDE}:1 (tcp)"
    (of_c,) = (each for each in record["violations"] if each is not of_python)
    assert of_c["what"] in (f"connected to {OUTSIDE}:2 (tcp)", "connected to an unknown address")


#: Beside the inner tests: the supervisor hangs as if a test had made it, and pytest has little patience.
STOP = """
    import os, signal
    from pathlib import Path
    from pytest_isolate.kernel import supervisor
    from pytest_isolate.sandbox import launch

    ANSWER_S, supervisor.ANSWER_S, launch.ANSWER_S = supervisor.ANSWER_S, 1.0, 1.0
    supervisor.DESTROY_S = launch.DESTROY_S = 0.5

    def pytest_isolate_sandbox_ready(item):
        if item.name != "test_stops":
            return
        for children in Path("/proc/self/task").glob("*/children"):
            for pid in children.read_text().split():
                if Path(f"/proc/{pid}/comm").read_text().strip() == "isolate-superv":
                    os.kill(int(pid), signal.SIGSTOP)

    def pytest_runtest_logfinish():  # of the first
        supervisor.ANSWER_S = launch.ANSWER_S = ANSWER_S
"""


def test_a_supervisor_that_hangs(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(textwrap.dedent(STOP))
    begun = time.monotonic()
    inner = run(
        f"""
        import socket, time, pytest

        @pytest.mark.isolated(timeout=2)
        def test_stops():
            time.sleep(1)  # by then it hangs
            socket.socket().connect_ex(("{OUTSIDE}", 1))

        def test_next(): pass
        def test_last(): pass
        """
    )
    assert time.monotonic() - begun < 20
    record = inner.record("test_stops")
    inner.result.stdout.fnmatch_lines(["timeout 2.0 s: the test was killed*"])
    assert record["enforced"]["network_watch"] == "python"  # nobody has seen all of it
    assert inner.record("test_last")["outcome"] == "passed"

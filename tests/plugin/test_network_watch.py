"""Attempts to leave the sandbox's network: named, counted, and told from what stays inside."""

from __future__ import annotations

import fnmatch
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]
#: Addresses of nobody (RFC 5737, RFC 3849).
OUTSIDE, OUTSIDE_6 = "192.0.2.1", "2001:db8::1"

C_PROGRAM = r"""
    #define _GNU_SOURCE
    #include <arpa/inet.h>
    #include <pthread.h>
    #include <sys/socket.h>
    static struct sockaddr_in at(int port) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
        inet_pton(AF_INET, "192.0.2.1", &a.sin_addr);
        return a;
    }
    static void *in_thread(void *unused) {
        struct sockaddr_in a = at(81);
        connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&a, sizeof a);
        return unused;
    }
    int main(void) {
        struct sockaddr_in a = at(80), b = at(82), c = at(83);
        struct iovec part = {"x", 1};
        struct mmsghdr both[2] = {{.msg_hdr = {&b, sizeof b, &part, 1}}, {.msg_hdr = {&c, sizeof c, &part, 1}}};
        pthread_t thread;
        int udp = socket(AF_INET, SOCK_DGRAM, 0);
        connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&a, sizeof a);
        pthread_create(&thread, NULL, in_thread, NULL);
        pthread_join(thread, NULL);
        sendmmsg(udp, both, 2, 0);
        sendto(udp, "x", 1, 0, (void *)&a, sizeof a);
        return 0;
    }
"""


def build(directory: Path, source: str) -> Path:
    program = directory / "program"
    (directory / "program.c").write_text(source)
    compiler = shlex.split(os.environ.get("CC") or "cc")
    subprocess.run([*compiler, "program.c", "-pthread", "-o", program], cwd=directory, check=True)
    return program


@pytest.fixture
def c_program(pytester: pytest.Pytester) -> Path:
    return build(pytester.path, C_PROGRAM)


def found(run: Run, name: str) -> dict[str, dict[str, Any]]:
    return {violation["what"]: violation for violation in run.record(name)["violations"]}


def test_python(run: Runner) -> None:
    inner = run(
        f"""
        import asyncio, contextlib, socket, pytest

        def test_raises():
            with pytest.raises(OSError, match="unreachable"):
                socket.create_connection(("{OUTSIDE}", 443))

        def test_swallowed():
            assert socket.socket().connect_ex(("{OUTSIDE}", 443)) != 0
            udp, udp6 = (socket.socket(f, socket.SOCK_DGRAM) for f in (socket.AF_INET, socket.AF_INET6))
            with contextlib.suppress(OSError):
                udp.sendto(b"x", ("{OUTSIDE}", 9))
            with contextlib.suppress(OSError):
                udp.sendmsg([b"x"], [], 0, ("{OUTSIDE}", 10))
            with contextlib.suppress(OSError):
                udp6.sendto(b"x", ("{OUTSIDE_6}", 11))
            socket.socket(socket.AF_INET6).connect_ex(("::ffff:{OUTSIDE}", 12))

        def test_asyncio():
            async def dial():
                with contextlib.suppress(OSError):
                    await asyncio.open_connection("{OUTSIDE}", 80)
            asyncio.run(dial())
        """
    )
    assert inner.outcomes == {"passed": 3}
    (raised,) = inner.record("test_raises")["violations"]
    assert raised == {
        "kind": "network",
        "what": f"connected to {OUTSIDE}:443 (tcp)",
        "where": "test_it.py:5 (test_raises)",
        "cure": 'network="host"',
        "count": 1,
        "known": False,
    }
    swallowed = found(inner, "test_swallowed")
    assert {what: each["where"].partition(" ")[0] for what, each in swallowed.items()} == {
        f"connected to {OUTSIDE}:443 (tcp)": "test_it.py:8",
        f"sent to {OUTSIDE}:9 (udp)": "test_it.py:11",
        f"sent to {OUTSIDE}:10 (udp)": "test_it.py:13",
        f"sent to [{OUTSIDE_6}]:11 (udp)": "test_it.py:15",
        f"connected to [::ffff:{OUTSIDE}]:12 (tcp)": "test_it.py:16",
    }
    assert found(inner, "test_asyncio")[f"connected to {OUTSIDE}:80 (tcp)"]["where"] == "test_it.py:21 (dial)"
    assert [r["network_attempts"] for r in inner.records] == [1, 5, 1]
    assert {r["enforced"]["network_watch"] for r in inner.records} == {"kernel"}


def test_c_and_subprocesses(run: Runner, c_program: Path) -> None:
    inner = run(
        f"""
        import ctypes, os, socket, struct, subprocess, sys

        def test_c():
            subprocess.run(["./{c_program.name}", "an argument"], cwd="{c_program.parent}", check=True)

        def test_python():
            subprocess.run([sys.executable, "-c", "import socket\\nsocket.socket().connect(('{OUTSIDE}', 1))"])

        def test_in_the_process():
            address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 80) + socket.inet_aton("{OUTSIDE}")
            assert ctypes.CDLL(None).connect(socket.socket().fileno(), address + bytes(8), 16) == -1

        def test_fork():
            if (pid := os.fork()) == 0:
                socket.socket().connect_ex(("{OUTSIDE}", 2))
                os._exit(0)
            os.waitpid(pid, 0)
        """
    )
    assert inner.outcomes == {"passed": 4}
    of_c = found(inner, "test_c")
    assert sorted(of_c) == [
        f"connected to {OUTSIDE}:80 (tcp)",
        f"connected to {OUTSIDE}:81 (tcp)",
        f"sent to {OUTSIDE}:80 (udp)",
        f"sent to {OUTSIDE}:82 (udp)",
        f"sent to {OUTSIDE}:83 (udp)",
    ]
    (where,) = {violation["where"] for violation in of_c.values()}  # threads are their process's
    pid, _, command = where.partition(": ")
    assert command == f"./{c_program.name} an argument"
    assert 1 < int(pid.removeprefix("pid ")) < 100  # as the sandbox counts
    (of_python,) = inner.record("test_python")["violations"]
    assert f": {sys.executable} -c import socket socket.socket()" in of_python["where"]
    (of_process,) = inner.record("test_in_the_process")["violations"]
    assert (of_process["what"], of_process["where"]) == (
        f"connected to {OUTSIDE}:80 (tcp)",
        "the test's own process",
    )
    (of_fork,) = inner.record("test_fork")["violations"]
    assert of_fork["where"] == "test_it.py:15 (test_fork)"


#: The calls of a 32-bit program: they take addresses below 4 GiB, and need no libraries for that.
OF_32_BITS = r"""
    #define _GNU_SOURCE
    #include <arpa/inet.h>
    #include <fcntl.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/socket.h>
    static char *low;
    static uint32_t put(const void *data, size_t size) {
        char *at = low;
        memcpy(at, data, size);
        low += (size + 7) / 8 * 8;
        return (uint32_t)(uintptr_t)at;
    }
    static uint32_t text(const char *home, const char *name) {
        char path[4096];
        strcat(strcpy(path, home), name);
        return put(path, strlen(path) + 1);
    }
    static uint32_t to(int port) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
        inet_pton(AF_INET, "192.0.2.1", &a.sin_addr);
        return put(&a, sizeof a);
    }
    static uint32_t message(int port) {
        uint32_t part[2] = {put("x", 1), 1}, header[8] = {to(port), 16, put(part, sizeof part), 1};
        return put(header, sizeof header);
    }
    static long call(long number, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint64_t f) {
        long result;
        const uint64_t rest = (uint64_t)0xabcd << 32; /* none of the kernel's business */
        register uint64_t last __asm__("r12") = f | rest;
        __asm__ volatile("xchg %%rbp, %%r12; int $0x80; xchg %%rbp, %%r12"
                         : "=a"(result), "+r"(last)
                         : "a"(number), "b"(a | rest), "c"(b | rest), "d"(c | rest), "S"(d | rest), "D"(e | rest)
                         : "memory", "cc", "r8", "r9", "r10", "r11");
        return result;
    }
    static void socketcall(int number, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f) {
        uint32_t args[6] = {a, b, c, d, e, f};
        call(102, number, put(args, sizeof args), 0, 0, 0, 0);
    }
    int main(void) {
        const char *home = getenv("HOME");
        uint64_t how[3] = {O_RDONLY};
        int udp = socket(AF_INET, SOCK_DGRAM, 0);
        low = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
        call(362, socket(AF_INET, SOCK_STREAM, 0), to(80), 16, 0, 0, 0);
        socketcall(3, socket(AF_INET, SOCK_STREAM, 0), to(81), 16, 0, 0, 0);
        call(369, udp, put("x", 1), 1, 0, to(82), 16);
        socketcall(11, udp, put("x", 1), 1, 0, to(83), 16);
        call(370, udp, message(84), 0, 0, 0, 0);
        socketcall(16, udp, message(85), 0, 0, 0, 0);
        uint32_t both[2][8];
        for (int i = 0; i < 2; i++)
            memcpy(both[i], (void *)(uintptr_t)message(86 + i), sizeof both[i]);
        call(345, udp, put(both, sizeof both), 2, 0, 0, 0);
        socketcall(9, udp, put("x", 1), 1, 0, 0, 0);
        call(362, udp, 0, 16, 0, 0, 0);
        socketcall(16, udp, 1, 0, 0, 0, 0);
        call(102, 3, 0, 0, 0, 0, 0);
        call(5, text(home, "/.netrc"), O_RDONLY, 0, 0, 0, 0);
        call(295, -100, text(home, "/.pypirc"), O_RDONLY, 0, 0, 0);
        call(437, -100, text(home, "/.pgpass"), put(how, sizeof how), sizeof how, 0, 0);
        return 0;
    }
"""
RUNS_32_BITS = """
    int main(void) {
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20));
        return result <= 0;
    }
"""


@pytest.mark.vm
@pytest.mark.skipif(platform.machine() != "x86_64", reason="32-bit ARM programs do not run in a sandbox")
def test_32_bit_programs(run: Runner, pytester: pytest.Pytester, tmp_path: Path) -> None:
    if subprocess.run([build(tmp_path, RUNS_32_BITS)], check=False).returncode != 0:
        pytest.skip("this kernel runs no 32-bit programs (CONFIG_IA32_EMULATION)")
    program = build(pytester.path, OF_32_BITS)
    inner = run(
        f"""
        import subprocess

        def test_it():
            subprocess.run([{str(program)!r}], check=True)
        """,
        "--isolate-strict",
    )
    record = inner.record("test_it")
    assert sorted(violation["what"] for violation in record["violations"]) == [
        *(f"connected to {OUTSIDE}:{port} (tcp)" for port in (80, 81)),
        *(f"sent to {OUTSIDE}:{port} (udp)" for port in (82, 83, 84, 85, 86, 87)),
        *(f"tried to read ~/{name}" for name in (".netrc", ".pgpass", ".pypirc")),
    ]
    assert record["network_attempts"] == 8


NAMES = """
    import socket, subprocess, pytest

    def look_up():
        with pytest.raises(socket.gaierror) as caught:
            socket.getaddrinfo("www.example.com", 80)
        return caught.value.args[0]

    def test_python():
        assert look_up() == socket.EAI_AGAIN

    def test_getent():
        assert subprocess.run(["getent", "hosts", "www.example.com"]).returncode == 2

    def test_both():
        look_up(); look_up()
        subprocess.run(["getent", "ahosts", "www.example.com"])

    def test_known():
        socket.getaddrinfo("localhost", 80)
        socket.getaddrinfo("192.0.2.1", 80)
"""


AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="without privileges no file is bound over another's")


@pytest.mark.parametrize(
    "server",
    [
        pytest.param("", id="machine's"),
        pytest.param(OUTSIDE, marks=AS_ROOT),
        pytest.param("127.0.0.53", marks=AS_ROOT),
        pytest.param(OUTSIDE_6, marks=AS_ROOT),
    ],
)
def test_names(run: Runner, tmp_path: Path, server: str) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(f"nameserver {server}\noptions timeout:60\nsearch corp.example\n")
    args = [f"--isolate-binds={resolver}:/etc/resolv.conf:ro"] if server else []
    inner = run(NAMES, *args)
    assert inner.outcomes == {"passed": 4}
    what = "looked up www.example.com"
    of_python = found(inner, "test_python")[what]
    assert of_python["where"] == "test_it.py:5 (look_up)"
    assert of_python["cure"] == 'hosts={"www.example.com": "127.0.0.1"}'
    (of_getent,) = (v for what_, v in found(inner, "test_getent").items() if what_ == what)
    assert of_getent["where"].endswith(": getent hosts www.example.com")
    both = [v for v in inner.record("test_both")["violations"] if v["what"] == what]
    assert sorted((v["count"], v["where"].startswith("pid")) for v in both) == [(1, True), (2, False)]
    assert inner.record("test_known")["network_attempts"] == 0
    assert all(record["wall_s"] < 30 for record in inner.records)  # no resolver waits for an answer
    plain = run(NAMES, *args, "--isolate-watch=off")
    assert plain.outcomes == {"passed": 4}  # the same errors, by whatever way


#: As c-ares of node and Go's resolver ask: the name is in what nobody looks at.
ASKS_CONNECTED = """
    import socket, subprocess, sys, time

    QUERY = bytes.fromhex("1234010000010000000000000377777707") + b"example" + bytes.fromhex("03636f6d0000010001")

    def ask(kind, server="127.0.0.53", timeout_s=0.2):
        with socket.socket(socket.AF_INET, kind) as client:
            client.settimeout(timeout_s)
            try:
                client.connect((server, 53))
                client.send(QUERY)
                return client.recv(512)
            except OSError:
                return b""
"""


def test_a_query_of_python_itself(run: Runner) -> None:
    inner = run(
        ASKS_CONNECTED
        + f"""
    def test_it():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            try:
                client.sendto(QUERY, ("{OUTSIDE}", 53))
            except OSError:
                pass
        """
    )
    (looked_up,) = inner.record("test_it")["violations"]
    assert (looked_up["what"], looked_up["where"]) == ("looked up www.example.com", "test_it.py:18 (test_it)")


@pytest.mark.skipif(os.geteuid() != 0, reason="binds port 53")
def test_a_name_server_of_the_test(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    inner = run(
        """
        import socket, threading

        def serve(server):
            while True:
                query, client = server.recvfrom(512)
                server.sendto(query[:2] + bytes([0x81, 0x83]) + query[4:], client)  # no such name

        def test_it():
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind(("127.0.0.1", 53))
            threading.Thread(target=serve, args=(server,), daemon=True).start()
            try:
                socket.getaddrinfo("www.example.com", 80)
            except socket.gaierror as error:
                assert error.args[0] == socket.EAI_NONAME
        """,
        f"--isolate-binds={tmp_path}/resolv.conf:/etc/resolv.conf:ro",
    )
    assert inner.outcomes == {"passed": 1}
    assert inner.record("test_it")["network_attempts"] == 0


def test_a_name_server_of_the_machine(run: Runner) -> None:
    """At an address that is the sandbox's own, where nobody listens."""
    inner = run(
        ASKS_CONNECTED
        + """
    def test_udp(): ask(socket.SOCK_DGRAM)
    def test_tcp(): ask(socket.SOCK_STREAM)
    def test_localhost(): ask(socket.SOCK_DGRAM, "127.0.0.1")
    def test_blocking():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.53", 53))

    def test_sorted():
        socket.getaddrinfo("localhost", 53, type=socket.SOCK_STREAM)
        """
    )
    assert inner.outcomes == {"passed": 5}
    assert {
        record["nodeid"].partition("::")[2]: [v["what"] for v in record["violations"]]
        for record in inner.records
    } == {
        "test_udp": ["connected to 127.0.0.53:53 (udp)"],
        "test_tcp": ["connected to 127.0.0.53:53 (tcp)"],
        "test_localhost": ["connected to 127.0.0.1:53 (udp)"],
        "test_blocking": ["connected to 127.0.0.53:53 (udp)"],
        "test_sorted": [],
    }


LATE_SERVER = """
    import os, socket, sys, time
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.01)
    is_stream = sys.argv[1] == "STREAM"
    server = socket.socket(type=socket.SOCK_STREAM if is_stream else socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    if is_stream:
        server.listen()
    while True:
        peer = server.accept()[0] if is_stream else server
        query, client = peer.recvfrom(512)
        peer.sendto(query, client) if client else peer.sendall(query)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="binds port 53")
@pytest.mark.parametrize("kind", ["DGRAM", "STREAM"])
def test_who_waits_for_a_name_server_of_the_test(run: Runner, pytester: pytest.Pytester, kind: str) -> None:
    """What was asked before it was there counts no more."""
    pytester.makepyfile(server=LATE_SERVER)
    inner = run(
        ASKS_CONNECTED
        + f"""
    def test_it(tmp_path):
        server = subprocess.Popen([sys.executable, "server.py", "{kind}", tmp_path / "tried"])
        assert ask(socket.SOCK_{kind}, "127.0.0.1") == b""
        (tmp_path / "tried").touch()
        while ask(socket.SOCK_{kind}, "127.0.0.1") != QUERY:
            time.sleep(0.01)
        assert ask(socket.SOCK_{kind}, "127.0.0.1", timeout_s=10) == QUERY
        server.kill()
        server.wait()
        """
    )
    assert inner.outcomes == {"passed": 1}
    assert inner.record("test_it")["violations"] == []
    assert inner.record("test_it")["network_attempts"] == 0


def test_raw_sockets(run: Runner) -> None:
    """What goes past TCP and UDP is refused, and told; other sockets cost nothing."""
    inner = run(
        """
        import ctypes, os, socket, subprocess, sys, pytest

        OPENS = "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)"

        def refused(*kind):
            with pytest.raises(PermissionError):
                socket.socket(*kind)

        def test_python():
            refused(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            refused(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
            refused(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
            refused(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)

        def test_c():
            assert ctypes.CDLL(None).socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) == -1

        def test_subprocess():
            subprocess.run([sys.executable, "-c", OPENS], stderr=subprocess.DEVNULL)

        def test_others():
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
                    socket.socket(family, kind).close()
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).close()
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE).close()
            socket.if_nameindex()
        """
    )
    assert inner.outcomes == {"passed": 4}
    assert {what: each["where"] for what, each in found(inner, "test_python").items()} == {
        "tried to open a raw socket (icmp)": "test_it.py:7 (refused)",
        "tried to open a raw socket": "test_it.py:7 (refused)",
        "tried to open a packet socket": "test_it.py:7 (refused)",
    }
    (of_c,) = inner.record("test_c")["violations"]
    assert (of_c["what"], of_c["where"]) == ("tried to open a raw socket (udp)", "the test's own process")
    (of_program,) = inner.record("test_subprocess")["violations"]
    assert of_program["what"] == "tried to open a raw socket (icmp)"
    assert of_program["where"].startswith("pid ")
    assert of_program["cure"] == 'allow=["network"]'
    assert inner.record("test_others")["violations"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="user=host-root is root's")
def test_a_raw_socket_that_is_had(run: Runner) -> None:
    inner = run(
        """
        import socket
        def test_it(): socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
        """,
        "--isolate-user=host-root",
    )
    assert inner.outcomes == {"passed": 1}
    assert inner.record("test_it")["violations"] == []


def test_what_stays_inside(run: Runner) -> None:
    inner = run(
        """
        import asyncio, multiprocessing, socket

        def test_tcp():
            for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                with socket.create_server((host, 0), family=family) as server:
                    socket.create_connection(server.getsockname()[:2]).close()
            assert socket.socket().connect_ex(("127.0.0.1", 5432)) != 0
            assert socket.socket().connect_ex(("0.0.0.0", 5432)) != 0

        def test_udp():
            here, there = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
            there.bind(("127.8.8.8", 0))
            here.sendto(b"x", there.getsockname())
            here.sendmsg([b"y"], [], 0, there.getsockname())
            assert (there.recv(9), there.recv(9)) == (b"x", b"y")

        def test_unix():
            path = "/tmp/docker.sock"  # its own
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path)
                server.listen()
                socket.socket(socket.AF_UNIX).connect(path)
            a, b = socket.socketpair()
            a.sendmsg([b"x"])
            socket.socket(socket.AF_UNIX).connect_ex("/run/nobody.sock")

        def test_libraries():
            async def nothing(): await asyncio.sleep(0)
            asyncio.run(nothing())
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(abs, [-1]) == [1]
                pool.close()
                pool.join()
        """
    )
    assert inner.outcomes == {"passed": 4}
    assert [[v for v in r["violations"] if v["kind"] in ("network", "secrets")] for r in inner.records] == [
        []
    ] * 4
    assert [r["network_attempts"] for r in inner.records] == [0] * 4


def test_sockets_of_agents(run: Runner) -> None:
    inner = run(
        """
        import socket

        def test_it():
            assert socket.socket(socket.AF_UNIX).connect_ex("/var/run/docker.sock") != 0
        """
    )
    assert found(inner, "test_it")["connected to /var/run/docker.sock"] == {
        "kind": "secrets",
        "what": "connected to /var/run/docker.sock",
        "where": "test_it.py:4 (test_it)",
        "cure": 'ports=["/var/run/docker.sock"], allow=["secrets"]',
        "count": 1,
        "known": False,
    }
    assert inner.record("test_it")["network_attempts"] == 0


SEVERAL = f"""
    import socket, pytest

    @pytest.mark.parametrize("port", range(1, 7))
    def test_port(port):
        for _ in range(port):
            socket.socket().connect_ex(("{OUTSIDE}", port))

    def test_none(): pass
"""


@pytest.mark.parametrize(
    "args",
    [[], ["--isolate-jobs=2"], ["--isolate-start=spawn"], ["--isolate-scope=module"], ["-p", "xdist", "-n2"]],
    ids=["held", "jobs", "spawn", "module", "xdist"],
)
def test_each_is_the_right_tests(run: Runner, args: list[str]) -> None:
    inner = run(SEVERAL, *args)
    assert inner.outcomes == {"passed": 7}
    for port in range(1, 7):
        (violation,) = inner.record(f"test_port[{port}]")["violations"]
        assert violation["what"] == f"connected to {OUTSIDE}:{port} (tcp)"
        assert violation["where"] == "test_it.py:6 (test_port)"
        assert violation["count"] == inner.record(f"test_port[{port}]")["network_attempts"] == port
    assert inner.record("test_none")["violations"] == []


def test_a_test_that_fails_or_dies(run: Runner) -> None:
    inner = run(
        f"""
        import os, signal, socket, time, pytest

        def leave(): socket.socket().connect_ex(("{OUTSIDE}", 1))

        def test_violates(): leave()
        def test_dies(): leave(); os.kill(os.getpid(), signal.SIGKILL)
        @pytest.mark.isolated(timeout=3)
        def test_hangs(): leave(); time.sleep(100)
        """,
        "--isolate-watch=fail",
    )
    assert inner.outcomes == {"failed": 3}
    inner.result.stdout.fnmatch_lines(
        ["not hermetic: a violation", f"network: connected to {OUTSIDE}:1 (tcp)*"]
    )
    for record in inner.records:
        assert [violation["what"] for violation in record["violations"]] == [
            f"connected to {OUTSIDE}:1 (tcp)"
        ]
        assert record["network_attempts"] == 1


def test_thousands(run: Runner) -> None:
    inner = run(
        f"""
        import socket, subprocess, sys

        def test_same():
            for _ in range(2000): socket.socket().connect_ex(("{OUTSIDE}", 1))

        def test_distinct():
            code = "import socket\\nfor n in range(1, 2001): socket.socket().connect_ex(('{OUTSIDE}', n))"
            subprocess.run([sys.executable, "-c", code], check=True)
        """
    )
    assert inner.outcomes == {"passed": 2}
    (same,) = inner.record("test_same")["violations"]
    assert same["count"] == inner.record("test_same")["network_attempts"] == 2000
    distinct = inner.record("test_distinct")
    assert distinct["network_attempts"] == 2000
    assert 10 < len(distinct["violations"]) <= 100


@pytest.mark.parametrize("arg", ["--isolate-watch=off", "--isolate-network=host"])
def test_nobody_looks(run: Runner, arg: str) -> None:
    inner = run("def test_it(): pass", arg)
    record = inner.record("test_it")
    assert record["network_attempts"] is None
    assert record["enforced"]["network_watch"] is None


#: Runs a command below a seccomp filter: with a listener, as a container engine may have one, or one that
#: refuses all other listeners, as kernels before 5.0 do, or to read the memory of others, as docker's did.
FILTERED = r"""
    #include <errno.h>
    #include <linux/filter.h>
    #include <linux/seccomp.h>
    #include <stddef.h>
    #include <string.h>
    #include <sys/prctl.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    int main(int argc, char **argv) {
        int is_busy = strcmp(argv[1], "busy") == 0;
        struct sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 3),
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
            BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, SECCOMP_FILTER_FLAG_NEW_LISTENER, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, is_busy ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | ENOSYS),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_filter unreadable[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = {sizeof code / sizeof *code, code};
        if (strcmp(argv[1], "unreadable") == 0)
            program = (struct sock_fprog){sizeof unreadable / sizeof *unreadable, unreadable};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        long got = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, is_busy ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0,
                           &program);
        if (got < 0 || (is_busy && dup2((int)got, 99) < 0))
            return 99;
        return execv(argv[2], argv + 2);
    }
"""


@pytest.mark.parametrize("why", ["busy", "refused", "unreadable"])
def test_where_the_kernel_does_not_tell(pytester: pytest.Pytester, why: str) -> None:
    """There is one listener for a tree of processes; old kernels have none; and who cannot read addresses is no
    witness."""
    program = build(pytester.path, FILTERED)
    pytester.makepyfile(
        test_it=f"""
        import contextlib, os, socket, subprocess, sys

        def test_it(monkeypatch):
            socket.socket().connect_ex(("{OUTSIDE}", 1))
            with contextlib.suppress(OSError):
                socket.getaddrinfo("www.example.com", 80)
            socket.getaddrinfo("localhost", 80)
            with socket.create_server(("127.0.0.1", 0)) as server:
                socket.create_connection(server.getsockname()).close()
            if (pid := os.fork()) == 0:
                socket.socket(socket.AF_INET6).connect_ex(("{OUTSIDE_6}", 2))
                os._exit(0)
            os.waitpid(pid, 0)
            socket.socket(socket.AF_UNIX).connect_ex("/var/run/docker.sock")
            subprocess.run([sys.executable, "-c", "import socket; socket.socket().connect_ex(('{OUTSIDE}', 3))"])
        """
    )
    command = [sys.executable, "-m", "pytest", "--isolate-all", "--isolate-json=out.json"]
    result = pytester.run(program, why, *command)
    result.assert_outcomes(passed=1)
    (record,) = map(json.loads, (pytester.path / "out.json").read_text().splitlines())
    assert record["enforced"]["network_watch"] == "python"
    assert record["network_attempts"] == 3
    assert {violation["what"]: violation["where"] for violation in record["violations"]} == {
        f"connected to {OUTSIDE}:1 (tcp)": "test_it.py:4 (test_it)",
        "looked up www.example.com": "test_it.py:6 (test_it)",
        f"connected to [{OUTSIDE_6}]:2 (tcp)": "test_it.py:11 (test_it)",
        "connected to /var/run/docker.sock": "test_it.py:14 (test_it)",
    }


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("busy", "what pytest runs in has system calls told to itself; run pytest outside of it"),
        (
            "refused",
            "the kernel tells of no system calls (Function not implemented); use Linux 5.6 or newer*",
        ),
        ("unreadable", "pytest may not read the memory of its tests; let * process_vm_readv*"),
    ],
)
def test_strict_takes_no_other_word(pytester: pytest.Pytester, why: str, said: str) -> None:
    """What a subprocess does would be no violation."""
    program = build(pytester.path, FILTERED)
    code = f"import socket; socket.socket().connect_ex(('{OUTSIDE}', 3))"
    pytester.makepyfile(
        test_it=f"import subprocess, sys\ndef test_it(): subprocess.run([sys.executable, '-c', {code!r}])"
    )
    pytester.makeini("[pytest]\nisolate_json = out.json\n")
    command = [str(program), why, sys.executable, "-m"]
    result = pytester.run(*command, "pytest", "-p", "no:cacheprovider", "--isolate-strict")
    assert result.ret == 1
    flat = " ".join(result.stdout.str().split())
    assert fnmatch.fnmatch(flat, f"* watch by the kernel is not available: {said} *")
    verdict = "strict: not signed off: not all was enforced on 1 test (--isolate-missing=degrade allows it)"
    result.stdout.fnmatch_lines(["1 escape:", "*degraded: watch by the kernel", verdict])
    checked = pytester.run(*command, "pytest_isolate.cli", "verify", "out.json", "--allow-failed")
    assert checked.ret == 1
    checked.stdout.fnmatch_lines(
        ["test_it.py::test_it: degraded: watch by the kernel is not *", "not verified"]
    )

    degrade = ["--isolate-strict", "--isolate-missing=degrade"]
    asked = pytester.run(*command, "pytest", "-p", "no:cacheprovider", *degrade)
    assert asked.ret == 0
    asked.stdout.fnmatch_lines(["1 degraded: *", "strict: signed off"])
    checked = pytester.run(*command, "pytest_isolate.cli", "verify", "out.json")
    assert checked.ret == 1
    checked = pytester.run(*command, "pytest_isolate.cli", "verify", "out.json", "--allow-degraded")
    assert checked.ret == 0

"""Fixtures are set up and torn down as often and in the order that plain pytest does, whatever the sandbox's scope."""

from __future__ import annotations

import pathlib
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import pytest

pytestmark = pytest.mark.needs("user namespace")

#: What every inner module begins with: events go to a file that is bound into the sandboxes.
HEADER = """
import os, pathlib, pytest, unittest

def log(text):
    with open(os.environ["EVENTS"], "a") as file:
        file.write(f"{text}\\n")

def fixture(name, **kwargs):
    def make(request):
        log(f"up {name} {getattr(request, 'param', '')}".strip())
        yield getattr(request, "param", name)
        log(f"down {name}")
    make.__name__ = name
    return pytest.fixture(name=name, **kwargs)(make)
"""

CASES = {
    "parametrized": """
        s = fixture("s", scope="session", params=[1, 2])
        m = fixture("m", scope="module", params=["a", "b"])
        f = fixture("f", params=["x", "y"])

        @pytest.fixture(scope="module")
        def on_s(s):
            log(f"up on_s({s})"); yield s; log(f"down on_s({s})")

        def test_session(s): log(f"run {s}")
        def test_both(m, on_s): log(f"run {m} {on_s}")
        def test_all(f, m, s): log(f"run {f} {m} {s}")
        class TestIn:
            c = fixture("c", scope="class", params=[True, False])
            def test_c(self, c, m): log(f"run {c} {m}")
            def test_d(self, c): log(f"run {c}")
        def test_none(): log("run")
    """,
    "indirect": """
        s = fixture("s", scope="session")
        m = fixture("m", scope="module")

        @pytest.fixture(scope="session")
        def on_s(s):
            log(f"up on_s({s})"); yield s; log(f"down on_s({s})")

        @pytest.mark.parametrize("s", [1, 2], indirect=True)
        def test_indirect(s, on_s): log(f"run {s} {on_s}")

        @pytest.mark.parametrize("s", [1, 2], indirect=True, scope="function")
        def test_function_wide(s, on_s): log(f"run {s} {on_s}")

        @pytest.mark.parametrize(("m", "direct"), [(1, 2), (3, 4)], indirect=["m"])
        def test_mixed(m, direct): log(f"run {m} {direct}")

        @pytest.mark.parametrize("wide", [1, 2], scope="module")
        class TestWide:
            def test_one(self, wide): log(f"run {wide}")
            def test_two(self, wide, m): log(f"run {wide}")
    """,
    "getfixturevalue": """
        s = fixture("s", scope="session", params=[1, 2])

        @pytest.fixture(scope="module")
        def m(request):
            value = request.getfixturevalue("s")
            log(f"up m({value})")
            request.addfinalizer(lambda: log(f"final m({value})"))
            return value

        @pytest.fixture
        def f(request, s):
            request.addfinalizer(lambda: log("final f"))
            return request.getfixturevalue("s")

        def test_a(f): log(f"run {f}")
        def test_b(s, m): log(f"run {s} {m}")
    """,
    "override": """
        @pytest.fixture(scope="session")
        def a(): log("up session a"); yield ["session"]; log("down session a")

        @pytest.fixture(scope="module")
        def helper(a): log(f"up helper {a}"); yield; log("down helper")

        class TestOver:
            @pytest.fixture
            def a(self, a): log("up function a"); yield [*a, "function"]; log("down function a")
            def test_one(self, a): log(f"run {a}"); assert a == ["session", "function"]
            def test_two(self, a): log(f"run {a}")

        class TestClassWide:
            @pytest.fixture(scope="class")
            def a(self, a): log("up class a"); yield [*a, "class"]; log("down class a")
            def test_one(self, a): log(f"run {a}"); assert a == ["session", "class"]
            def test_two(self, a): log(f"run {a}")

        class TestThrough:
            @pytest.fixture
            def a(self, between): log("up outer a"); yield [*between, "outer"]; log("down outer a")
            @pytest.fixture
            def between(self, a): log("up between"); yield [*a, "between"]; log("down between")
            def test_one(self, a): log(f"run {a}"); assert a == ["session", "between", "outer"]
            def test_two(self, a): log(f"run {a}")

        def test_last(a, helper): log(f"run {a}")
    """,
    "xunit": """
        def setup_module(module): log("setup_module")
        def teardown_module(module): log("teardown_module")
        def setup_function(function): log("setup_function")
        def teardown_function(function): log("teardown_function")

        class TestX:
            @classmethod
            def setup_class(cls): log("setup_class"); cls.made = []
            @classmethod
            def teardown_class(cls): log("teardown_class")
            def setup_method(self): log("setup_method")
            def teardown_method(self): log("teardown_method")
            def test_a(self): log("run a"); assert self.made == []
            def test_b(self): log("run b")

        def test_c(): log("run c")
    """,
    "unittest": """
        def setUpModule():
            log("setUpModule"); unittest.addModuleCleanup(log, "module cleanup")
        def tearDownModule(): log("tearDownModule")

        class TestU(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                log("setUpClass"); cls.shared = 1; cls.addClassCleanup(log, "class cleanup")
            @classmethod
            def tearDownClass(cls): log("tearDownClass")
            def setUp(self): log("setUp"); self.addCleanup(log, "cleanup")
            def tearDown(self): log("tearDown")
            def test_a(self): log("run a"); self.assertEqual(self.shared, 1)
            def test_b(self): log("run b"); self.fail("no")

        @unittest.skip("whole class")
        class TestSkipped(unittest.TestCase):
            @classmethod
            def setUpClass(cls): log("never")
            def test_a(self): log("never")

        class TestSkipping(unittest.TestCase):
            @classmethod
            def setUpClass(cls): log("skipping"); raise unittest.SkipTest("in setUpClass")
            def test_a(self): log("never")
            def test_b(self): log("never")

        class TestBroken(unittest.TestCase):
            @classmethod
            def setUpClass(cls): log("breaking"); raise RuntimeError("setUpClass is broken")
            def test_a(self): log("never")
            def test_b(self): log("never")
    """,
    "failing": """
        @pytest.fixture(scope="session")
        def skipping(): log("skipping"); pytest.skip("no server here")

        @pytest.fixture(scope="module")
        def failing(): log("failing"); pytest.fail("cannot start")

        @pytest.fixture(scope="module", params=[1, 2])
        def changing(request):
            log(f"up changing {request.param}"); yield; log("down changing")
            raise RuntimeError(f"changing {request.param} is broken")

        class TestSetup:
            @classmethod
            def setup_class(cls): log("setup_class"); raise RuntimeError("setup_class is broken")
            @classmethod
            def teardown_class(cls): log("never")
            def test_a(self): log("never")
            def test_b(self): log("never")

        def test_skip_1(skipping): log("never")
        def test_skip_2(skipping): log("never")
        def test_fail_1(failing): log("never")
        def test_fail_2(failing, skipping): log("never")
        def test_change_1(changing): log("run")
        def test_change_2(changing): log("run")
        def test_unknown(no_such_fixture): log("never")
    """,
    "breaking": """
        @pytest.fixture(scope="session")
        def s(): log("up s"); yield; log("down s"); raise RuntimeError("s is broken")
        @pytest.fixture(scope="module")
        def m(): log("up m"); yield; log("down m"); raise RuntimeError("m is broken")
        @pytest.fixture
        def f(): log("up f"); yield; log("down f"); raise RuntimeError("f is broken")

        class TestBreak:
            @classmethod
            def teardown_class(cls): log("teardown_class"); raise RuntimeError("class is broken")
            def test_a(self, s): log("run a")
            def test_b(self, m): log("run b")
        def test_c(f): log("run c")
        def test_d(f): log("run d"); assert 0
    """,
    "skip marks": """
        s = fixture("s", scope="session", autouse=True)
        m = fixture("m", scope="module")

        @pytest.mark.skip(reason="not today")
        def test_skip(m): log("never")
        @pytest.mark.skipif("True", reason="nor so")
        def test_skipif(m): log("never")
        @pytest.mark.xfail(run=False, reason="known")
        def test_not_run(m): log("never")
        def test_first(): log("run")
        def test_second(m): log("run")
    """,
    "autouse": """
        s = fixture("s", scope="session", autouse=True)
        p = fixture("p", scope="package", autouse=True)
        m = fixture("m", scope="module", autouse=True)
        f = fixture("f", autouse=True)

        class TestAuto:
            c = fixture("c", scope="class", autouse=True)
            def test_a(self): log("run a")
            def test_b(self): log("run b")

        def test_d(): log("run d")
        @pytest.mark.usefixtures("s")
        def test_e(): log("run e")
    """,
    "finally": """
        import contextlib

        @contextlib.contextmanager
        def server():
            log("start")
            try:
                yield 1
            finally:
                log("stop")

        @pytest.fixture(scope="session")
        def s():
            with server() as running:
                yield running

        def test_a(s): log("run a")
        def test_b(s): log("run b")
    """,
    "inherited": """
        import socket, tempfile, threading

        @pytest.fixture(scope="session")
        def pair():
            ours, theirs = socket.socketpair()
            yield ours, theirs
            ours.close(); theirs.close()

        @pytest.fixture(scope="session")
        def lock():
            lock = threading.RLock()
            with lock:
                yield lock

        @pytest.fixture(scope="module")
        def file():
            with tempfile.TemporaryFile() as file:
                file.write(b"hello"); file.flush()
                yield file

        def test_socket(pair): log("run"); pair[0].send(b"x"); assert pair[1].recv(1) == b"x"
        def test_lock(lock):
            assert lock.acquire(blocking=False)
            lock.release()
        def test_file(file): assert os.pread(file.fileno(), 5, 0) == b"hello"
    """,
    "doctest": '''
        s = fixture("s", scope="session", autouse=True)
        m = fixture("m", scope="module", autouse=True)

        def documented():
            """
            >>> log("run doctest")
            """

        def test_a(): log("run a")
    ''',
}


#: Where a sandbox of that scope cannot keep to the order: a fixture of its own lives no longer than the sandbox,
#: and a new one begins when a parametrized fixture outside changes; fixtures outside are set up before the first
#: test of the sandbox, though only the second needs them.
OTHER_ORDER = {
    ("parametrized", "module"),
    ("getfixturevalue", "module"),
    ("failing", "module"),
    ("indirect", "class"),
    ("breaking", "class"),
}


@dataclass(frozen=True)
class Told:
    """What a run did and said."""

    events: list[str]
    outcomes: dict[str, int]
    summary: list[str]  #: one line per test
    out: str


@pytest.fixture
def tell(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    monkeypatch.setenv("EVENTS", str(pytester.path / "events"))

    def tell(*args: str) -> Told:
        events = pathlib.Path(pytester.path, "events")
        events.write_text("")
        result = pytester.runpytest_subprocess(
            "-p",
            "no:cacheprovider",
            "-rA",
            "--isolate-top=0",
            f"--isolate-binds={events}:{events}:rw",
            *args,
            timeout=120,
        )
        summary = re.compile(r"(?:PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS|RERUN) ")
        # A report that was sent has the text of an unknown fixture in its summary line, as under xdist; and two
        # teardown errors are a group in plain pytest only.
        lines = [
            re.sub(r" - (?:file /|(?:exceptiongroup\.)?ExceptionGroup|RuntimeError).*", "", line)
            for line in result.outlines
            if summary.match(line)
        ]
        return Told(events.read_text().splitlines(), result.parseoutcomes(), lines, result.stdout.str())

    return tell


Tell = Callable[..., Told]


@pytest.mark.parametrize("case", CASES)
def test_as_in_plain_pytest(case: str, pytester: pytest.Pytester, tell: Tell) -> None:
    pytester.makepyfile(test_it=HEADER + textwrap.dedent(CASES[case]))
    pytester.makeini("[pytest]\naddopts = --doctest-modules\n")
    plain = tell()
    assert plain.events
    for scope in ("function", "class", "module"):
        isolated = tell("--isolate-all", f"--isolate-scope={scope}")
        assert isolated.summary == plain.summary, scope
        assert isolated.outcomes == plain.outcomes, scope
        assert (isolated.events == plain.events) is ((case, scope) not in OTHER_ORDER), scope


def test_each_of_many_errors_is_reported_once(pytester: pytest.Pytester, tell: Tell) -> None:
    pytester.makepyfile(test_it=HEADER + textwrap.dedent(CASES["breaking"]))
    out = tell("--isolate-all", "--tb=short").out
    for name, times in {"s": 1, "m": 1, "f": 2, "class": 1}.items():
        assert len(re.findall(rf"^[E |]+RuntimeError: {name} is broken", out, re.MULTILINE)) == times


def test_everything_is_fresh_on_demand(pytester: pytest.Pytester, tell: Tell) -> None:
    pytester.makepyfile(
        test_it=HEADER
        + textwrap.dedent(
            """
            s = fixture("s", scope="session")
            m = fixture("m", scope="module")

            def setup_module(): log("setup_module")
            def teardown_module(): log("teardown_module")

            def test_a(m, s): log("run a")
            @pytest.mark.isolated(fixtures="fresh")
            def test_b(m, s): log("run b")
            @pytest.mark.isolated(fixtures="fresh", scope="module")
            def test_c(m): log("run c")
            @pytest.mark.isolated(fixtures="fresh", scope="module")
            def test_d(m, s): log("run d")
            def test_e(m): log("run e")
            """
        )
    )
    told = tell()
    assert told.outcomes == {"passed": 5}
    assert told.events == [
        *("up s", "setup_module", "up m", "run a"),  # plain pytest's, and kept for test_e
        *("up s", "setup_module", "up m", "run b", "down m", "teardown_module", "down s"),
        *("setup_module", "up m", "run c", "up s", "run d", "down m", "teardown_module", "down s"),
        *("run e", "down m", "teardown_module", "down s"),
    ]


def test_fixtures_that_are_named_are_fresh_and_what_depends_on_them(
    pytester: pytest.Pytester, tell: Tell
) -> None:
    pytester.makeini("[pytest]\nisolate_fresh_fixtures = my_*\n")
    pytester.makepyfile(
        test_it=HEADER
        + textwrap.dedent(
            """
            my_loop = fixture("my_loop", scope="session")
            other = fixture("other", scope="session")

            @pytest.fixture(scope="session")
            def client(my_loop): log("up client"); yield; log("down client")

            def test_plain(client, other): log("run plain")
            @pytest.mark.isolated
            def test_a(client, other): log("run a")
            @pytest.mark.isolated
            def test_b(request, other): request.getfixturevalue("client"); log("run b")
            """
        )
    )
    told = tell()
    assert told.outcomes == {"passed": 3}
    child = ["up my_loop", "up client", "run {}", "down client", "down my_loop"]
    assert told.events == [
        *("up my_loop", "up client", "up other", "run plain"),
        *(line.format("a") for line in child),
        *(line.format("b") for line in child),
        *("down other", "down client", "down my_loop"),
    ]


def test_dynamic_fixture_of_a_wider_scope_is_the_childs_if_it_is_first(
    pytester: pytest.Pytester, tell: Tell
) -> None:
    source = """
        s = fixture("s", scope="session")
        def test_a(request): log("run " + request.getfixturevalue("s"))
        def test_b(s): log("run b")
        def test_c(request): log("run " + request.getfixturevalue("s"))
    """
    pytester.makepyfile(test_it=HEADER + textwrap.dedent(source))
    told = tell("--isolate-all")
    assert told.outcomes == {"passed": 3}
    assert told.events == ["up s", "run s", "down s", "up s", "run b", "run s", "down s"]


@pytest.mark.parametrize(
    "args", [["--setup-show"], ["--setup-show", "-s"], ["--setup-only"], ["--setup-plan"]], ids=str
)
@pytest.mark.parametrize("case", ["parametrized", "override", "unittest", "skip marks"])
def test_setup_show(case: str, args: list[str], pytester: pytest.Pytester, tell: Tell) -> None:
    pytester.makepyfile(test_it=HEADER + textwrap.dedent(CASES[case]))

    def shown(told: Told) -> list[str]:
        # The letter of a result comes when the test is over, and so after its teardown.
        lines = [line.rstrip(" .sFE") for line in told.out.splitlines()]
        return [line for line in lines if re.match(r" *(?:SETUP|TEARDOWN) | {8}test_it\.py::", line)]

    plain = shown(tell(*args))
    assert plain
    assert shown(tell("--isolate-all", *args)) == plain


def test_what_shared_fixtures_say_is_told_with_the_test_that_needs_them(
    pytester: pytest.Pytester, tell: Tell
) -> None:
    source = """
        import logging, sys

        @pytest.fixture(scope="session")
        def first(): print("first says"); logging.warning("first logs"); yield; print("first ends")

        @pytest.fixture(scope="session")
        def second():
            print("second says"); print("second errs", file=sys.stderr); os.write(1, b"second writes\\n")
            logging.getLogger("x").info("second logs")

        class TestIt:
            def test_a(self, first, caplog):
                assert [r.message for r in caplog.get_records("setup")] == ["first logs"]
                assert 0
            def test_b(self, second): assert 0
    """
    pytester.makepyfile(test_it=HEADER + textwrap.dedent(source))
    args = ["--log-level=INFO", "--tb=short"]
    plain, shared = tell(*args), tell("--isolate-all", "--isolate-scope=class", *args)
    failures = re.compile(r"=+ FAILURES =+.*?(?==+ short)", re.DOTALL)

    def section(told: Told) -> str:
        (found,) = failures.findall(re.sub(r"=+ isolate =+.*?(?==+ short)", "", told.out, flags=re.DOTALL))
        return str(found)

    assert "second writes" in section(plain)
    assert section(shared) == section(plain)
    assert section(tell("--isolate-all", *args)) == section(plain)


def test_a_shared_fixture_may_change_directory_and_environment(pytester: pytest.Pytester, tell: Tell) -> None:
    source = """
        @pytest.fixture(scope="session", autouse=True)
        def elsewhere(tmp_path_factory):
            before = os.getcwd()
            os.chdir(tmp_path_factory.mktemp("elsewhere")); os.environ["WHERE"] = "elsewhere"
            yield
            os.chdir(before); del os.environ["WHERE"]

        def test_it(): log(f"run {os.path.basename(os.getcwd())} {os.environ['WHERE']}")
    """
    pytester.makepyfile(test_it=HEADER + textwrap.dedent(source))
    assert tell("--isolate-all").events == ["run elsewhere0 elsewhere"]


def test_packages(pytester: pytest.Pytester, tell: Tell) -> None:
    pytester.makeconftest(HEADER)
    init = "from conftest import log\ndef setup_module(): log('package up')\ndef teardown_module(): log('package down')\n"
    for package in ("one", "two"):
        pytester.mkpydir(package)
        (pytester.path / package / "__init__.py").write_text(init)
        (pytester.path / package / "conftest.py").write_text(
            "from conftest import fixture\np = fixture('p', scope='package')\n"
        )
        for module in ("a", "b"):
            (pytester.path / package / f"test_{module}.py").write_text(
                "from conftest import log\ndef test_1(p): log('run')\ndef test_2(): log('run')\n"
            )
    pytester.syspathinsert()
    plain = tell("-p", "no:randomly")
    assert plain.outcomes == {"passed": 8}
    for scope in ("function", "module"):
        assert tell("--isolate-all", f"--isolate-scope={scope}").events == plain.events


def test_failing_conditions_of_skip_marks_are_told_once(pytester: pytest.Pytester, tell: Tell) -> None:
    pytester.makepyfile(
        "import pytest\n@pytest.mark.skipif('no_such_name', reason='x')\ndef test_it(): pass\n"
    )
    plain, isolated = tell(), tell("--isolate-all")
    assert isolated.outcomes == plain.outcomes == {"errors": 1}


ASYNC = {
    "asyncio": """
        import asyncio, pytest, pytest_asyncio

        @pytest_asyncio.fixture(scope="session", loop_scope="session")
        async def server():
            server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
            yield server
            server.close()

        @pytest.fixture(scope="session")
        def port(server): return server.sockets[0].getsockname()[1]

        async def works(port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()
            # Waits for a wake-up through the loop's self-pipe, which a child's epoll_ctl could have taken away.
            await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, int), 5)

        @pytest.mark.not_isolated(reason="the parent's own loop")
        @pytest.mark.asyncio(loop_scope="session")
        async def test_before(port): await works(port)
        @pytest.mark.asyncio(loop_scope="session")
        async def test_a(port): await works(port)
        @pytest.mark.asyncio(loop_scope="session")
        async def test_b(server, port): await works(port)
        @pytest.mark.asyncio
        async def test_c(): await asyncio.sleep(0)
        @pytest.mark.not_isolated(reason="the parent's own loop")
        @pytest.mark.asyncio(loop_scope="session")
        async def test_after(port): await works(port)
    """,
    "anyio": """
        import anyio, pytest
        pytestmark = pytest.mark.anyio

        @pytest.fixture(scope="session", params=["asyncio"])
        def anyio_backend(request): return request.param
        @pytest.fixture(scope="session")
        async def wide(): yield 3
        @pytest.fixture(scope="module")
        async def streams(wide):
            async with anyio.create_task_group():
                streams = anyio.create_memory_object_stream(5)
                yield streams
                for stream in streams: stream.close()

        async def works(streams):
            await streams[0].send(1)
            assert await streams[1].receive() == 1
            assert await anyio.to_thread.run_sync(int) == 0

        @pytest.mark.not_isolated(reason="the parent's own loop")
        async def test_before(streams): await works(streams)
        async def test_a(streams, wide): await works(streams)
        async def test_b(streams): await works(streams)
        @pytest.mark.not_isolated(reason="the parent's own loop")
        async def test_after(streams): await works(streams)
    """,
    "trio": """
        import pytest, trio

        @pytest.fixture
        async def channel(): return trio.open_memory_channel(1)

        @pytest.mark.trio
        async def test_a(channel, nursery, autojump_clock):
            nursery.start_soon(channel[0].send, 1)
            await trio.sleep(1000)
            assert await channel[1].receive() == 1
        @pytest.mark.trio
        async def test_b(channel): await channel[0].send(1)
    """,
}


@pytest.mark.parametrize("args", [[], ["--isolate-scope=module"], ["--isolate-fixtures=fresh"]], ids=str)
@pytest.mark.parametrize(
    ("plugin", "package"), [("asyncio", "pytest_asyncio"), ("anyio", "anyio"), ("trio", "pytest_trio")]
)
def test_event_loops(
    plugin: str, package: str, args: list[str], pytester: pytest.Pytester, tell: Tell
) -> None:
    pytest.importorskip(package)
    pytester.makepyfile(test_it=ASYNC[plugin])
    if plugin == "asyncio":
        pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    options = ("-p", plugin, "-W", "error")
    plain, isolated = tell(*options), tell("--isolate-all", *options, *args)
    assert isolated.summary == plain.summary
    assert isolated.outcomes == plain.outcomes
    assert set(plain.outcomes) == {"passed"}

"""What looks like a violation and is none: a false one is worse than one that is missed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")


def told(run: Run) -> dict[str, list[str]]:
    """By the name of the test."""
    return {
        record["nodeid"].partition("::")[2]: [violation["what"] for violation in record["violations"]]
        for record in run.records
    }


NOTHING_WRITTEN = """
    import contextlib, os, pathlib, pytest, tempfile
    here = pathlib.Path(__file__).parent
    file, directory = here / "data" / "in.txt", here / "data"
    def test_there_already():
        os.makedirs(directory, exist_ok=True)
        directory.mkdir(parents=True, exist_ok=True)
        for call in (lambda: open(file, "x"), lambda: os.mkdir("data"), lambda: os.symlink("x", file),
                     lambda: os.link("test_it.py", file), lambda: os.open(file, os.O_CREAT | os.O_EXCL)):
            with pytest.raises(FileExistsError):
                call()
        os.close(os.open(file, os.O_CREAT | os.O_RDONLY))
    def test_a_directory():
        with pytest.raises(IsADirectoryError):
            open(directory, "w")
        with pytest.raises(IsADirectoryError):
            os.truncate(directory, 0)
    def test_missing():
        for call in (lambda: open(here / "none" / "x", "w"), lambda: open(here / "none", "r+"),
                     lambda: os.mkdir("none/x"), lambda: os.remove("none/x"), lambda: os.rename("none/x", "none/y"),
                     lambda: os.chmod("none", 0o600), lambda: os.utime("none"), lambda: os.truncate("none", 0)):
            with pytest.raises(FileNotFoundError):
                call()
        for call in (lambda: open(file / "x", "w"), lambda: os.mkdir(file / "x"), lambda: os.remove(file / "x")):
            with pytest.raises(NotADirectoryError):
                call()
    def test_elsewhere(tmp_path):
        fd = os.open(tmp_path, os.O_RDONLY)
        os.close(os.open("z", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        open("y", "w", opener=lambda path, flags: os.open(path, flags, dir_fd=fd)).close()
        os.mkdir("k", dir_fd=fd)
        os.symlink("k", "l", dir_fd=fd)
        os.link("y", "m", src_dir_fd=fd, dst_dir_fd=fd)
        os.rename("l", "n", src_dir_fd=fd, dst_dir_fd=fd)
        os.chmod("y", 0o600, dir_fd=fd)
        os.utime("y", dir_fd=fd)
        os.unlink("z", dir_fd=fd)
        os.rmdir("k", dir_fd=fd)
        os.close(fd)
"""
WRITTEN = {
    "create": "open('new', 'w')",
    "create_by_os": "os.open('new', os.O_CREAT | os.O_RDONLY)",
    "exclusive": "open(data / 'new', 'x')",
    "through_link": "open('dangling', 'w')",
    "write": "open(file, 'r+')",
    "append": "open(file, 'a')",
    "truncate_by_open": "os.open(file, os.O_RDONLY | os.O_TRUNC)",
    "nameless": "os.open(data, os.O_TMPFILE | os.O_RDWR)",
    "truncate": "os.truncate(file, 0)",
    "mkdir": "os.makedirs('new/deeper')",
    "rmdir": "os.rmdir('empty')",
    "symlink": "os.symlink('x', 'new')",
    "link": "os.link(file, 'new')",
    "chmod": "os.chmod(file, 0o600)",
    "chown": "os.chown(file, os.getuid(), os.getgid())",
    "utime": "os.utime(data)",
    "by_descriptor": "os.mkdir('new', dir_fd=os.open('data', os.O_RDONLY))",
}


@pytest.mark.needs("overlay")
def test_what_writes_nothing_is_no_attempt(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    """And what does is one, to the letter: the kernel refuses each of these."""
    (pytester.mkdir("data") / "in.txt").write_text("in")
    pytester.mkdir("empty")
    (pytester.path / "dangling").symlink_to("data/none")
    attempts = [
        f"def test_w_{name}():\n    with pytest.raises(OSError, match='Read-only'):\n        {code}\n"
        for name, code in WRITTEN.items()
    ]
    pytester.makepyfile(
        test_w="import os, pathlib, pytest\n"
        "data = pathlib.Path('data').absolute(); file = data / 'in.txt'\n" + "".join(attempts)
    )
    result = run(NOTHING_WRITTEN, "--isolate-strict")
    assert result.outcomes == {"passed": 4, "failed": len(WRITTEN)}, result.out
    assert "DID NOT RAISE" not in result.out
    found = told(result)
    for name in ("there_already", "a_directory", "missing", "elsewhere"):
        assert found[f"test_{name}"] == [], name
    for name in WRITTEN:
        assert any("tried to write" in what for what in found[f"test_w_{name}"]), name


LEFT_NOTHING = """
    import multiprocessing, os, subprocess, sys, pytest

    def test_busy():  # longer than anybody waits for who sleeps
        code = "import time; end = time.time() + 0.2\\nwhile time.time() < end: pass"
        subprocess.Popen([sys.executable, "-S", "-c", code])
    def test_popen(): os.popen("echo x").read()
    def test_popen_unread(): os.popen("echo x")
    def test_dropped(): subprocess.Popen(["true"], stdout=subprocess.PIPE)
    @pytest.fixture
    def cat():
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        yield process
        process.kill()
    def test_killed(cat): pass
    def test_value(): assert multiprocessing.Value("i", 1).value == 1
    def test_zombies():
        for _ in range(3):
            if os.fork() == 0:
                os._exit(0)
    kept = []
    def test_array(): kept.append(multiprocessing.Array("i", 3))
    class TestScope:
        def test_first(self): os.popen("echo x").read()
        def test_second(self): multiprocessing.Value("i", 1)
"""


@pytest.mark.parametrize("args", [[], ["--isolate-scope=module"], ["--isolate-start=spawn"]], ids=" ".join)
def test_what_is_closed_by_itself(run: Callable[..., Run], args: list[str]) -> None:
    result = run(LEFT_NOTHING, *args)
    assert result.outcomes["passed"] == len(result.records) == 10, result.out
    assert not any(told(result).values()), told(result)


def test_what_stays_open_is_told_of_a_process_that_lives(run: Callable[..., Run]) -> None:
    result = run("import subprocess\ndef test(): subprocess.Popen(['sleep', '60'], stdout=subprocess.PIPE)")
    assert sorted(told(result)["test"]) == ["left a descriptor open: a pipe", "left a process: sleep 60"]


@pytest.mark.knows("rerunfailures")
def test_what_reruns_are_counted_with(run: Callable[..., Run]) -> None:
    """A connection of pytest-rerunfailures, in a worker of xdist."""
    pytest.importorskip("pytest_rerunfailures")
    source = """
        import pytest
        @pytest.mark.flaky(reruns=2)
        def test_passes(): pass
        tries = []
        @pytest.mark.flaky(reruns=2)
        def test_fails_once():
            tries.append(1)
            assert len(tries) > 1
        def test_plain(): pass
    """
    result = run(source, "-p", "xdist", "-n1", "--isolate-strict")
    assert result.outcomes == {"passed": 3, "rerun": 1}, result.out
    assert not any(told(result).values()), told(result)


WIDE_FIXTURES = """
    import netrc, os, threading, pytest
    from concurrent.futures import ThreadPoolExecutor

    @pytest.fixture(scope="session", autouse=True)
    def home(tmp_path_factory):
        home = tmp_path_factory.mktemp("home")
        (home / ".netrc").write_text("machine a login b password c")
        (home / ".netrc").chmod(0o600)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(home))
            yield

    @pytest.fixture(scope="class", params=["one", "two"])
    def variable(request, tmp_path_factory):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WIDE", request.param)
            patch.chdir(tmp_path_factory.mktemp(request.param))
            yield request.param

    class TestVariable:
        def test_first(self, variable): assert os.environ["WIDE"] == variable
        def test_second(self, variable, monkeypatch, tmp_path):
            monkeypatch.chdir(tmp_path)
            monkeypatch.setenv("WIDE", "mine")
        def test_home(self): assert netrc.netrc().authenticators("a")

    POOL = ThreadPoolExecutor(1)
    @pytest.fixture(scope="module", params=["", "named"])
    def pool(request):
        pool = ThreadPoolExecutor(2, request.param)
        yield pool
        pool.shutdown()
    def test_pool(pool): assert pool.submit(sum, [1]).result() == 1
    def test_pool_again(pool): assert list(pool.map(abs, [-1, -2, -3])) == [1, 2, 3]
    def test_pool_of_module(): assert POOL.submit(sum, [1]).result() == 1

    @pytest.fixture(scope="class", params=[0o077, 0o027])
    def umask(request):
        before = os.umask(request.param)
        yield
        os.umask(before)

    class TestUmask:
        def test_first(self, umask): pass
        def test_second(self, umask): pass

    class TestUnittest:
        @classmethod
        def setup_class(cls): os.environ["CLASS"] = "1"
        @classmethod
        def teardown_class(cls): del os.environ["CLASS"]
        def test_first(self): pass
        def test_second(self, monkeypatch): monkeypatch.setenv("CLASS", "2")
"""


@pytest.mark.parametrize(
    "args",
    [["--isolate-scope=class"], ["--isolate-scope=module"], [], ["--isolate-fixtures=fresh"]],
    ids=" ".join,
)
def test_what_a_wider_fixture_changes_and_restores(run: Callable[..., Run], args: list[str]) -> None:
    result = run(WIDE_FIXTURES, *args)
    assert result.outcomes == {"passed": 16}, result.out
    assert not any(told(result).values()), told(result)


@pytest.mark.parametrize("args", [["--isolate-scope=module"], ["--isolate-fixtures=fresh"]], ids=" ".join)
def test_what_a_wider_fixture_leaves(run: Callable[..., Run], args: list[str]) -> None:
    """It is told of the last test that had it if others follow in its sandbox."""
    source = """
        import os, pytest, threading, time

        @pytest.fixture(scope="session", autouse=True)
        def of_session():
            os.environ["SESSION"] = "1"

        @pytest.fixture(scope="class")
        def careless():
            os.environ["MODE"] = "x"
            os.umask(0o070)
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            os.pipe()

        @pytest.fixture(scope="class")
        def careful():
            before = os.umask(0o077)
            yield
            os.umask(before)

        @pytest.mark.usefixtures("careless")
        class TestGuilty:
            @classmethod
            def setup_class(cls): os.chdir("/tmp")
            def test_first(self): assert os.environ["MODE"] == "x"
            def test_last(self): pass

        @pytest.mark.usefixtures("careful")
        class TestInnocent:
            def test(self): pass
    """
    result = run(source, *args)
    assert result.outcomes == {"passed": 3}, result.out
    found = told(result)
    guilty = [
        "changed os.environ: MODE",
        "changed the current directory",
        "changed the umask",
        "left a descriptor open: a pipe",
        "left a thread that runs sleep",
    ]
    assert sorted(found["TestGuilty::test_last"]) == (guilty if "module" in args[0] else [])
    assert found["TestGuilty::test_first"] == []
    assert found["TestInnocent::test"] == []


def test_what_a_test_changes_beside_a_wider_fixture(run: Callable[..., Run]) -> None:
    source = """
        import os, pytest

        @pytest.fixture(scope="class", params=["one", "two"])
        def variable(request):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("WIDE", request.param)
                yield

        class TestIt:
            def test_guilty(self, variable): os.environ["WIDE"] += " and mine"
            def test_innocent(self, variable): pass
    """
    found = told(run(source, "--isolate-scope=class"))
    for number in ("one", "two"):
        assert found[f"TestIt::test_guilty[{number}]"] == ["changed os.environ: WIDE"]
        assert found[f"TestIt::test_innocent[{number}]"] == []


def test_what_a_conftest_starts_in_a_fresh_interpreter(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    """Before the test: it is not the test that leaves it."""
    pytester.makeconftest("""
        import atexit, subprocess
        sleeper = subprocess.Popen(["sleep", "60"])
        atexit.register(sleeper.kill)
    """)
    source = """
        import subprocess
        from conftest import sleeper
        def test(): assert sleeper.poll() is None
        def test_guilty(): subprocess.Popen(["sleep", "61"])
    """
    result = run(source, "--isolate-start=spawn")
    assert result.outcomes == {"passed": 2}, result.out
    assert told(result) == {"test": [], "test_guilty": ["left a process: sleep 61"]}

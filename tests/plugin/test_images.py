"""Tests whose root is an image: natively, in real sandboxes, over real overlays."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_isolate.kernel.loader import requested_loader
from pytest_isolate.sandbox.images.manifest import own_platform

from ..archives import Entry, Layout, directory, file, hardlink, symlink, tar_bytes
from ..oci_layout import make_layout
from ..registry_server import PASSWORD, USER, RegistryServer, need_programs
from .conftest import Run

Runner = Callable[..., Run]

BASE = [directory("./"), directory("etc"), directory("bin"), file("etc/name", "base"), file("etc/old", "x")]


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def layout(pytester: pytest.Pytester) -> Layout:
    return Layout(pytester.path / "image")


def busybox() -> list[Entry]:
    """A shell without a C library, in a root of its own."""
    program = shutil.which("busybox")
    assert program is not None
    applets = [symlink(f"bin/{name}", "busybox") for name in ("sh", "cat", "ls", "env", "pwd")]
    return [*BASE, file("bin/busybox", Path(program).read_bytes(), mode=0o755), *applets]


# ---- layers -----------------------------------------------------------------------------------------


def test_what_layers_hide(run: Runner, layout: Layout) -> None:
    layout.add(
        [
            *BASE,
            file("opaque/old", "x"),
            file("dir/a", "x"),
            file("merged/a", "x"),
            hardlink("etc/hard", "etc/name"),
        ],
        [file("etc/.wh.old"), file("opaque/new", "y"), file("opaque/.wh..wh..opq"), file("merged/b", "y")],
        [file(".wh.dir"), file("etc/name", "top")],
    )
    inner = run(
        """
        import os, pathlib, pytest, subprocess

        @pytest.mark.isolated(rootfs="image")
        def test_inside():
            read = lambda path: pathlib.Path(path).read_text()
            assert sorted(os.listdir("/etc")) == ["hard", "hosts", "name"] and not os.path.lexists("/etc/old")
            assert (read("/etc/name"), read("/etc/hard")) == ("top", "base")
            assert os.listdir("/opaque") == ["new"] and sorted(os.listdir("/merged")) == ["a", "b"]
            assert not os.path.lexists("/dir")
            os.mkdir("/dir")
            assert os.listdir("/dir") == []
            pathlib.Path("/etc/old").write_text("again")
            os.unlink("/merged/a")
            os.rename("/opaque/new", "/opaque/moved")

        @pytest.mark.isolated(rootfs="image")
        def test_nothing_is_left():
            assert not os.path.lexists("/etc/old") and os.path.exists("/merged/a")
            assert os.listdir("/opaque") == ["new"]
        """
    )
    assert inner.outcomes == {"passed": 2}, inner.out
    assert inner.record("test_inside")["enforced"]["root"] == "overlay"
    assert inner.record("test_inside")["written_files"] == 2


@pytest.mark.vm
def test_120_layers(run: Runner, layout: Layout) -> None:
    layout.add(*([file("count", str(i)), file(f"files/{i}", "x")] for i in range(120)))
    inner = run(
        """
        import os, pathlib
        def test_inside():
            assert pathlib.Path("/count").read_text() == "119"
            assert len(os.listdir("/files")) == 120
            os.unlink("/files/0")
        """,
        "--isolate-rootfs=image",
    )
    assert inner.outcomes == {"passed": 1}, inner.out


def test_many_tests_unpack_once(run: Runner, layout: Layout, tmp_path: Path) -> None:
    layout.add(BASE)
    source = """
        import pytest
        @pytest.mark.parametrize("i", range(200))
        def test_it(i): assert open("/etc/name").read() == "base"
    """
    first = run(source, "--isolate-rootfs=image", "-n2")
    assert first.outcomes == {"passed": 200}, first.out
    layers = tmp_path / "cache/pytest-isolate/images/layers/sha256"
    (layer,) = (path for path in layers.iterdir() if path.is_dir())
    before = layer.stat()
    assert run(source, "--isolate-rootfs=image", "--isolate-jobs=2").outcomes == {"passed": 200}
    after = layer.stat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_layers_of_a_session_are_not_pruned(
    run: Runner, pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    (pytester.path / "root.tar").write_bytes(tar_bytes(BASE))
    inner = run(
        """
        import pytest, subprocess, sys

        def image(*action):
            return subprocess.check_output([sys.executable, "-m", "pytest_isolate.cli", "image", *action], text=True)

        @pytest.mark.isolated(rootfs="root.tar")
        def test_before(): assert open("/etc/name").read() == "base"
        def test_clear_up():
            image("rm", "root.tar")
            assert "that running sessions use" in image("prune", "--all")
        @pytest.mark.isolated(rootfs="root.tar")
        def test_after(): assert open("/etc/name").read() == "base"
        """,
        *workers,
        all_tests=False,
    )
    assert inner.outcomes == {"passed": 3}, inner.out
    prune = [sys.executable, "-m", "pytest_isolate.cli", "image", "prune", "--all"]
    pruned = subprocess.check_output(prune, text=True)
    assert pruned.startswith("freed ")
    assert "kept" not in pruned


# ---- kinds of images, and where they are named --------------------------------------------------------


def test_every_kind_of_file(run: Runner, layout: Layout, pytester: pytest.Pytester) -> None:
    layout.add(BASE, name="only")
    layout.pack(pytester.path / "image.tar")
    (pytester.path / "root.tar").write_bytes(tar_bytes(BASE))
    pytester.makepyprojecttoml('[tool.pytest-isolate.images]\nnamed = "image.tar"')
    kinds = [
        "image",
        "image#only",
        "image.tar",
        "image.tar#only",
        "root.tar",
        "named",
        str(pytester.path / "image"),
    ]
    inner = run(
        f"""
        import pathlib, pytest

        KINDS = {kinds!r}
        @pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.isolated(rootfs=k)) for k in KINDS])
        def test_it(kind): assert pathlib.Path("/etc/name").read_text() == "base"
        """,
        "--rootdir=.",
        all_tests=False,
    )
    assert inner.outcomes == {"passed": len(kinds)}, inner.out


@pytest.mark.parametrize("options", [(), ("--isolate-missing=skip",), ("--isolate-missing=degrade",)])
def test_a_bad_image_is_the_error_of_its_tests(
    run: Runner, layout: Layout, pytester: pytest.Pytester, options: tuple[str, ...]
) -> None:
    layout.add(BASE)
    (pytester.path / "evil.tar").write_bytes(tar_bytes([file("../../decoy", "x")]))
    (pytester.path / "torn.tar").write_bytes(tar_bytes([file("a"), file("é")])[: 3 * 512 + 100])
    pytester.makepyprojecttoml('[tool.pytest-isolate.images]\ngolden = "build/golden.tar"')
    inner = run(
        """
        import pytest

        def test_before(): pass
        @pytest.mark.isolated(rootfs="evil.tar")
        class TestEvil:
            def test_1(self): pass
            def test_2(self): pass
        @pytest.mark.isolated(rootfs="torn.tar")
        def test_torn(): pass
        @pytest.mark.isolated(rootfs="golden")
        def test_of_the_table(): pass
        @pytest.mark.isolated(rootfs="not-there")
        def test_absent(): pass
        @pytest.mark.isolated(rootfs="r.example/UPPER")
        def test_misspelt(): pass
        @pytest.mark.isolated(rootfs="image")
        def test_after(): pass
        """,
        "-rA",
        "--rootdir=.",
        *options,
    )
    assert inner.outcomes == {"passed": 2, "errors": 6}, inner.out
    assert "image evil.tar: the layer has the path '../../decoy', which may lead out of the root" in inner.out
    assert "image torn.tar: the layer is no tar archive that can be read: truncated header; get" in inner.out
    assert f"image golden: rootfs {pytester.path}/build/golden.tar is not there; name a " in inner.out
    assert (
        f"image not-there: rootfs {pytester.path}/not-there is not there, and no image not-there is in the store"
        in inner.out
    )
    assert "'r.example/UPPER' is no name of an image" in inner.out
    assert "INTERNALERROR" not in inner.out


def test_offline(run: Runner) -> None:
    inner = run("def test_it(): pass", "--isolate-rootfs=localhost:1/a:b", "--isolate-pull=never")
    assert inner.outcomes == {"errors": 1}
    assert "run: pytest-isolate image pull localhost:1/a:b" in inner.out


def test_the_store_may_be_elsewhere(run: Runner, layout: Layout, pytester: pytest.Pytester) -> None:
    layout.add(BASE)
    inner = run("def test_it(): pass", "--isolate-rootfs=image", "--isolate-store=my/store")
    assert inner.outcomes == {"passed": 1}
    index = json.loads((pytester.path / "my/store/index.json").read_text())
    assert index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == str(layout.path)


# ---- the configuration ----------------------------------------------------------------------------


@pytest.mark.vm
def test_what_the_configuration_says_holds(
    run: Runner, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwd = file("etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:7:8::/home/app:/bin/sh\n")
    config = {"Env": ["PATH=/opt/bin", "MODE=image", "LANG=C"], "WorkingDir": "/srv/app/", "User": "app"}
    layout.add(
        [*BASE, passwd, file("etc/group", "extra:x:9:\n"), file("etc/ssl/cert.pem", "x")], config=config
    )
    for name in ("LC_ALL", "MODE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, "C.UTF-8" if name == "LC_ALL" else "host's")
    monkeypatch.setenv("KEPT", "1")
    inner = run(
        f"""
        import os, pathlib, pwd, pytest

        def check(uid, gid, home):
            assert (os.getuid(), os.getgid()) == (uid, gid)
            assert os.environ["HOME"] == home

        @pytest.mark.isolated(rootfs="image")
        def test_image(tmp_path):
            check(7, 8, "/home/app")
            assert pwd.getpwuid(os.getuid()).pw_name == "app"
            assert os.getcwd() == "/srv/app"
            (tmp_path / "mine").touch()
            assert os.environ["PATH"] == {f"/opt/bin:{os.path.dirname(sys.executable)}"!r}
            assert (os.environ["MODE"], os.environ["LANG"], os.environ["KEPT"]) == ("image", "C", "1")
            assert os.environ["SSL_CERT_FILE"] == "/etc/ssl/cert.pem"
            assert "LC_ALL" not in os.environ and "REQUESTS_CA_BUNDLE" not in os.environ
            status = dict(line.split(":", 1) for line in open("/proc/self/status"))
            assert int(status["CapEff"], 16) == 0

        @pytest.mark.isolated(rootfs="image", user="root", workdir="/else", env={{"MODE": "mark", "HOME": "/h"}})
        def test_overridden():
            check(0, 0, "/h")
            assert os.environ["MODE"] == "mark" and os.getcwd() == "/else"

        @pytest.mark.isolated(rootfs="image", user="caller", workdir=".", env="clean")
        def test_caller():
            check({os.getuid()}, {os.getgid()}, {"/root" if os.getuid() == 0 else "/"!r})
            assert pathlib.Path(__file__).parent.samefile(".")
            assert os.environ["MODE"] == "image" and "KEPT" not in os.environ
        """
    )
    assert inner.outcomes == {"passed": 3}, inner.out


def test_a_user_whom_nobody_knows(run: Runner, layout: Layout) -> None:
    layout.add(BASE, config={"User": "ghost"})
    inner = run("def test_it(): pass", "--isolate-rootfs=image")
    assert inner.outcomes == {"errors": 1}
    assert "the image wants the user 'ghost', whom its /etc/passwd and /etc/group do not know" in inner.out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's store has owners")
def test_owners_of_files(run: Runner, layout: Layout) -> None:
    layout.add([*BASE, file("mine", uid=1234, gid=4321)])
    inner = run(
        """
        import os
        def test_it():
            assert (os.stat("/mine").st_uid, os.stat("/mine").st_gid) == (1234, 4321)
            os.chown("/mine", 5, 6)
        """,
        "--isolate-rootfs=image",
    )
    assert inner.outcomes == {"passed": 1}, inner.out


# ---- Python in a root without a C library ---------------------------------------------------------------


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_python_works_in_any_root(
    run: Runner, layout: Layout, start: str, pytestconfig: pytest.Config
) -> None:
    need_programs(pytestconfig, "busybox")
    layout.add(busybox())
    inner = run(
        """
        import locale, multiprocessing, os, shutil, subprocess, sys

        def run(*command): return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        def test_the_image_is_seen():
            assert sorted(os.listdir("/etc")) == ["hosts", "name", "old"]  # hosts: its own name
            assert sorted(os.listdir("/bin")) == ["busybox", "cat", "env", "ls", "pwd", "sh"]
            assert run("cat", "/etc/name") == "base"
            assert run("sh", "-c", "ls /etc | cat") == "hosts\\nname\\nold\\n"

        def test_extension_modules():
            import _ctypes, bz2, ctypes, decimal, lzma, sqlite3, ssl, zlib
            assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
            assert locale.setlocale(locale.LC_ALL, "") and locale.getlocale()[1] == "UTF-8"
            assert ssl.create_default_context() and lzma.decompress(lzma.compress(b"x")) == b"x"

        def test_the_interpreter_is_a_command():
            code = "import sys, ssl, sqlite3; print(sys.executable, sys.prefix, sys.argv)"
            assert run(sys.executable, "-c", code, "a b") == f"{sys.executable} {sys.prefix} ['-c', 'a b']\\n"
            assert run(sys.executable, "-m", "pytest", "--version").startswith("pytest ")
            assert run("sh", "-c", f"{sys.executable} -c 'print(1)'") == "1\\n"

        def test_multiprocessing():
            for method in ("fork", "spawn", "forkserver"):
                with multiprocessing.get_context(method).Pool(1) as pool:
                    assert pool.map(abs, [-1]) == [1]

        def test_commands_of_the_environment_come_last():
            assert shutil.which("cat") == "/bin/cat"
            assert shutil.which("pytest") == os.path.join(os.path.dirname(sys.executable), "pytest")
        """,
        "--isolate-rootfs=image",
        f"--isolate-start={start}",
        "-Wignore::DeprecationWarning",  # of forks by multiprocessing, since Python 3.12
    )
    assert inner.outcomes == {"passed": 5}, inner.out


HELLO = '#include <stdio.h>\nint main(void) { puts("musl says hello"); return 0; }\n'


def test_python_works_beside_musl(
    run: Runner, layout: Layout, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    need_programs(pytestconfig, "musl-gcc")
    source, program = tmp_path / "hello.c", tmp_path / "hello"
    source.write_text(HELLO)
    subprocess.run(["musl-gcc", "-o", program, source], check=True)
    loader = requested_loader(str(program))
    assert loader is not None
    libc = file(loader[1:], Path(loader).read_bytes(), mode=0o755)
    layout.add([*BASE, directory("lib"), libc, file("bin/hello", program.read_bytes(), mode=0o755)])
    inner = run(
        """
        import os, subprocess, sys

        def test_both():
            assert subprocess.check_output(["hello"], text=True) == "musl says hello\\n"
            import lzma, sqlite3, ssl
            assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
            assert subprocess.check_output([sys.executable, "-c", "import ssl; print(1)"]) == b"1\\n"
            assert os.listdir("/lib") == [os.path.basename(LOADER)] and not os.path.exists("/lib64")
        """.replace("LOADER", repr(loader)),
        "--isolate-rootfs=image",
    )
    assert inner.outcomes == {"passed": 1}, inner.out


# ---- with the other options ------------------------------------------------------------------------


@pytest.mark.vm
def test_other_options(run: Runner, layout: Layout, pytester: pytest.Pytester) -> None:
    layout.add([*BASE, directory("data/real"), symlink("link", "data/real"), symlink("run", "data/real")])
    pytester.mkdir("host").joinpath("file").write_text("host")
    inner = run(
        """
        import pathlib, pytest
        pytestmark = pytest.mark.isolated(rootfs="image")

        @pytest.mark.isolated(readonly=True)
        def test_readonly(tmp_path):
            with pytest.raises(OSError, match="Read-only"):
                pathlib.Path("/etc/name").write_text("x")
            pathlib.Path("/run/x").write_text("x")
            assert pathlib.Path("/data/real/x").exists()
            (tmp_path / "x").touch()

        @pytest.mark.isolated(binds={"host": "/link/here:ro"})
        def test_binds():
            assert pathlib.Path("/data/real/here/file").read_text() == "host"

        @pytest.mark.isolated(tmp_size="1M")
        def test_limits():
            with pytest.raises(OSError, match="No space"):
                pathlib.Path("/etc/big").write_bytes(bytes(2**21))
        """
    )
    assert inner.outcomes == {"passed": 3}, inner.out


def test_explain_shows_the_root(layout: Layout, pytester: pytest.Pytester) -> None:
    digest = layout.add([*BASE, file(str(pytester.path)[1:] + "/own", "x")])
    pytester.makepyfile(test_it="def test_it(): pass")
    command = [sys.executable, "-m", "pytest_isolate.cli", "explain", "test_it.py::test_it", "--isolate-all"]
    result = pytester.run(*command, "--isolate-rootfs=image", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(
        [
            "Root",
            f"  image {layout.path} ({digest}, 1 layer)",
            "  lent by the host:",
            f"    {pytester.path} *hides what the root has there",
            "*mount an overlay of */layers/sha256/* on /, writes go to the scratch tmpfs",
        ]
    )


# ---- ways out ------------------------------------------------------------------------------------------


@pytest.mark.vm
@pytest.mark.parametrize("kind", ["directory", "image"])
def test_no_way_out(
    run: Runner, layout: Layout, pytester: pytest.Pytester, tmp_path: Path, kind: str
) -> None:
    layout.add(BASE)
    root = pytester.mkdir("root")
    (root / "etc").mkdir()
    decoy = tmp_path / "decoy"
    decoy.write_text("of the host")
    inner = run(
        f"""
        import os, pytest
        DECOY = {str(decoy)!r}

        def seen(): return [up for up in ("", "..", "../" * 40) if os.path.exists(up + DECOY)]

        def test_paths():
            assert os.path.exists(__file__) and not seen()
            os.chdir("/")
            for _ in range(40):
                os.chdir("..")
                assert not seen() and not os.path.exists("." + DECOY)

        def test_chroot_twice():
            os.mkdir("/cell")
            try:
                os.chroot("/cell")
            except PermissionError:
                return  # without the capability there is not even an attempt
            for _ in range(40):
                os.chdir("..")
            os.chroot(".")
            assert not seen()
            assert not os.path.exists(DECOY) and os.path.exists("/cell")

        def test_open_directories():
            for number in os.listdir("/proc/self/fd"):
                try:
                    os.fchdir(int(number))
                except OSError:
                    continue
                for _ in range(40):
                    assert not os.path.exists("." + DECOY), os.readlink(f"/proc/self/fd/{{number}}")
                    os.chdir("..")

        @pytest.mark.parametrize("link", ["root", "cwd", "fd", "exe", "map_files"])
        def test_other_processes(link):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    assert not os.path.exists(f"/proc/{{pid}}/{{link}}{{DECOY}}")
                    for name in os.listdir(f"/proc/{{pid}}/{{link}}") if link in ("fd", "map_files") else ():
                        assert not os.path.exists(f"/proc/{{pid}}/{{link}}/{{name}}{{DECOY}}")
                except OSError:
                    pass

        def test_mounts():
            assert not any(DECOY in line for line in open("/proc/self/mountinfo"))
            assert not os.path.exists("/old") and not os.path.exists("/new")
        """,
        f"--isolate-rootfs={'root' if kind == 'directory' else 'image'}",
    )
    assert inner.outcomes == {"passed": 9}, inner.out
    assert decoy.read_text() == "of the host"


def test_other_platforms_are_refused(run: Runner, layout: Layout) -> None:
    layout.add(BASE, platform={"os": "linux", "architecture": "s390x"})
    inner = run("def test_it(): pass", "--isolate-rootfs=image")
    assert inner.outcomes == {"errors": 1}
    assert f"is for linux/s390x, and this machine is {own_platform()}" in inner.out


# ---- from a registry -----------------------------------------------------------------------------------


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where docker would keep logins."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker/config.json"


INSIDE = "def test_it(): assert open('/etc/name').read() == 'upper'"


def test_pulled_by_tag_and_by_digest(
    run: Runner, registry: RegistryServer, pytester: pytest.Pytester
) -> None:
    pushed = make_layout()
    registry.push(pushed, "tests/by:tag")
    digest = pushed.top["digest"]
    first = run(INSIDE, f"--isolate-rootfs={registry.host}/tests/by:tag")
    assert first.outcomes == {"passed": 1}, first.out
    assert f"pulled {registry.host}/tests/by:tag: " in first.out
    again = run(INSIDE, f"--isolate-rootfs={registry.host}/tests/by:tag")
    assert again.outcomes == {"passed": 1}
    assert "pulled 127" not in again.out
    pytester.makepyprojecttoml(f'[tool.pytest-isolate.images]\npinned = "{registry.host}/tests/by@{digest}"')
    pinned = run(INSIDE, "--isolate-rootfs=pinned", "--rootdir=.", "-n2")
    assert pinned.outcomes == {"passed": 1}, pinned.out
    assert run(INSIDE, "--isolate-rootfs=pinned", "--rootdir=.", "--isolate-pull=never").outcomes == {
        "passed": 1
    }


def test_a_tag_that_has_moved(run: Runner, registry: RegistryServer) -> None:
    registry.push(make_layout([{"etc/name": b"old"}]), "tests/moved:tag")
    name = f"--isolate-rootfs={registry.host}/tests/moved:tag"
    assert run(INSIDE, name).outcomes == {"failed": 1}
    registry.push(make_layout(), "tests/moved:tag")
    assert run(INSIDE, name).outcomes == {"failed": 1}
    assert run(INSIDE, name, "--isolate-pull=always").outcomes == {"passed": 1}


def test_pulled_with_a_login(run: Runner, closed_registry: RegistryServer, docker_config: Path) -> None:
    closed_registry.push(make_layout(), "tests/closed:tag")
    name = f"--isolate-rootfs={closed_registry.host}/tests/closed:tag"
    refused = run(INSIDE, name)
    assert refused.outcomes == {"errors": 1}
    assert f"docker login {closed_registry.host}" in refused.out
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    docker_config.write_text(json.dumps({"auths": {closed_registry.host: {"auth": login}}}))
    assert run(INSIDE, name).outcomes == {"passed": 1}


def test_a_layer_damaged_in_the_registry(run: Runner, registry: RegistryServer) -> None:
    pushed = make_layout([{"etc/name": b"upper"}, {"damaged": os.urandom(1000)}])
    registry.push(pushed, "tests/damaged:tag")
    registry.push(make_layout([{"etc/name": b"upper"}]), "tests/sound:tag")
    path = registry.blob(pushed.layers[-2])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    inner = run(
        f"""
        import pytest
        @pytest.mark.isolated(rootfs="{registry.host}/tests/damaged:tag")
        def test_damaged(): pass
        @pytest.mark.isolated(rootfs="{registry.host}/tests/sound:tag")
        {INSIDE}
        """
    )
    assert inner.outcomes == {"passed": 1, "errors": 1}, inner.out
    assert "is damaged: it has the digest" in inner.out


def test_places_that_are_reached_by_links(
    run: Runner, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache on another disk: while a sandbox is built, an absolute link leads elsewhere."""
    for name in ("cache", "root/etc"):
        (pytester.path / "disk" / name).mkdir(parents=True)
    link = pytester.path / "link"
    link.symlink_to(pytester.path / "disk")
    (pytester.path / "root.tar").write_bytes(tar_bytes(BASE))
    monkeypatch.setenv("XDG_CACHE_HOME", str(link / "cache"))
    inner = run(
        f"""
        import os
        import pytest

        @pytest.mark.isolated(rootfs="link/root")
        def test_directory(): assert os.path.isdir("/etc")
        @pytest.mark.isolated(rootfs="root.tar", binds=["{link}/root:/bound"])
        def test_store_and_bind(): assert os.listdir("/bound") == ["etc"]
        """
    )
    assert inner.outcomes == {"passed": 2}, inner.out


# ---- nothing leads out ------------------------------------------------------------------------------


def test_links_of_a_root_make_nothing_on_the_host(run: Runner, pytester: pytest.Pytester) -> None:
    """While a sandbox is built, the host's root is somewhere beside the new one."""
    names = ("tmp", "home", "work")
    host = pytester.path / "host"
    host.mkdir()
    places = [f"/old{host}", f"/proc/self/root/old{host}", f"../../old{host}"]
    for number, place in enumerate(places):
        for name in names:
            root = pytester.path / f"root{number}-{name}"
            root.mkdir()
            (root / name).symlink_to(place)
    marks = (f'rootfs="root{number}-{name}", workdir="/work/made"' for number in range(3) for name in names)
    tests = (f"@pytest.mark.isolated({mark})\ndef test_{n}(): pass\n" for n, mark in enumerate(marks))
    run("import pytest\n" + "".join(tests))
    assert [*host.iterdir()] == []

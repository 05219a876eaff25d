"""Images over subordinate ids: as nobody, who has a range in files that only these runs see."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .. import on_demand
from ..archives import Layout, directory, file
from ..registry_server import need_programs

TIME_SCALE = float(os.environ.get("TEST_TIME_SCALE", "1"))
NOBODY = 65534
GRANT = "nobody:100000:65536\n"
#: newuidmap(1) reads the files of the mount namespace that it runs in.
GRANTED = 'mount --bind "$0" /etc/subuid; mount --bind "$0" /etc/subgid; exec "$@"'
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable)
PASSWD = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"
OWNER = """
import os, pathlib, pytest

def owner(path):
    status = os.lstat(path)
    return status.st_uid, status.st_gid
"""


class Granted:
    """A directory of nobody's, and runs in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.grant = GRANT
        self.layers = home / "cache/pytest-isolate/images/layers/sha256"
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        self.environ |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "COLUMNS": "10000"}
        self.environ |= on_demand.ENVIRONMENT

    def run(self, *args: str, check: bool = True) -> str:
        """Python with these arguments; what it prints."""
        (self.home / "grant").write_text(self.grant)
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", "image"], cwd=self.home, check=True)
        ran = subprocess.run(
            ["unshare", "--mount", "sh", "-ec", GRANTED, str(self.home / "grant"), *AS_NOBODY, *args],
            cwd=self.home,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60 * TIME_SCALE,
            check=False,
        )
        assert not check or ran.returncode == 0, ran.stdout
        return ran.stdout

    def pytest(self, source: str, *args: str, check: bool = True) -> tuple[str, dict[str, dict[str, Any]]]:
        """What it prints, and the records by the name of the test."""
        (self.home / "test_it.py").write_text(OWNER + source)
        switches = ["-p", "no:cacheprovider", "--basetemp=base", "-rA", "--isolate-json=records.jsonl"]
        out = self.run("-m", "pytest", *switches, *args, check=check)
        records = map(json.loads, (self.home / "records.jsonl").read_text().splitlines())
        return out, {record["nodeid"].split("::")[1]: record for record in records}


@pytest.fixture
def granted(pytestconfig: pytest.Config) -> Iterator[Granted]:
    if os.geteuid() != 0:
        pytest.skip("takes root to grant ids to nobody")
    need_programs(pytestconfig, "newuidmap")
    with tempfile.TemporaryDirectory() as name:  # not tmp_path: nobody else gets in there
        home = Path(name)
        os.chown(home, NOBODY, NOBODY)
        can = "import os, sys, pytest_isolate.syscalls._native; sys.exit(not os.access('.', os.W_OK))"
        tried = subprocess.run([*AS_NOBODY, "-c", can], cwd=home, capture_output=True, check=False)
        if tried.returncode:
            pytest.skip(f"nobody may not run {sys.executable}, or not in {home}: {tried.stderr.decode()}")
        yield Granted(home)


@pytest.fixture
def layout(granted: Granted) -> Layout:
    layout = Layout(granted.home / "image")
    layout.add(
        [
            directory("./"),
            file("etc/passwd", PASSWD),
            file("etc/name", "base"),
            file("etc/shadow", "s", uid=0, gid=42, mode=0o640),
            file("far", "x", uid=65537, gid=3),
            directory("home/app", uid=1000, gid=1000, mode=0o700),
            file("home/app/kept", "a", uid=1000, gid=1000, mode=0o600),
            directory("mail", uid=8, gid=8, mode=0o700),
            file("mail/box", "m", uid=8, gid=8, mode=0o600),
            file("nobody", "n", uid=NOBODY, gid=NOBODY, mode=0o600),
            file("opaque/old", "x", uid=5, gid=5),
            file("removed/a", "x", uid=6, gid=6),
        ],
        [file("opaque/new", "y", uid=5, gid=5), file("opaque/.wh..wh..opq"), file(".wh.removed")],
        config={"User": "app"},
    )
    return layout


HIDDEN = """
    assert os.listdir("/opaque") == ["new"] and not os.path.lexists("/removed")
"""


@pytest.mark.vm
def test_a_file_of_another(granted: Granted) -> None:
    """Without an opaque directory, which takes Linux 6.6 on a tmpfs."""
    Layout(granted.home / "image").add([file("box", "m", uid=8, gid=8, mode=0o640)])
    granted.pytest(
        """
@pytest.mark.isolated(rootfs="image", user="root")
def test_owners():
    os.chown("/box", 9, 10)
    assert owner("/box") == (9, 10)

@pytest.mark.isolated(rootfs="image", user="caller")
def test_others():
    assert owner("/box") == (8, 8)
    with pytest.raises(PermissionError):
        open("/box")
"""
    )


@pytest.mark.usefixtures("layout")
def test_root_sees_the_owners_of_the_image(granted: Granted) -> None:
    granted.pytest(
        f"""
@pytest.mark.isolated(rootfs="image", user="root")
def test_owners():
    assert os.getuid() == 0
    assert owner("/etc/name") == (0, 0) and owner("/etc/shadow") == (0, 42)
    assert owner("/home/app") == owner("/home/app/kept") == (1000, 1000)
    assert owner("/nobody") == ({NOBODY}, {NOBODY}) and owner("/far") == (0, 3)
    {HIDDEN}

@pytest.mark.isolated(rootfs="image", user="root")
def test_changes():
    with open("/mail/box", "a") as file:  # copied up
        file.write("more")
    assert owner("/mail/box") == (8, 8)
    os.chown("/etc/name", 65536, 55)
    assert owner("/etc/name") == (65536, 55)
    with pytest.raises(OSError, match="Invalid argument"):
        os.chown("/etc/name", 65537, 55)
    os.unlink("/opaque/new")
    os.rmdir("/opaque")
    os.mkdir("/opaque")  # opaque now itself
    assert os.listdir("/opaque") == []
    os.mkdir("/removed")
    assert os.listdir("/removed") == []

@pytest.mark.isolated(rootfs="image", user="root")
def test_becoming_another():
    os.setgroups([8])
    os.setresgid(8, 8, 8)
    os.setresuid(8, 8, 8)
    pathlib.Path("/mail/new").write_text("x")
    assert owner("/mail/new") == (8, 8)
    with pytest.raises(PermissionError):
        os.listdir("/home/app")
"""
    )


@pytest.mark.usefixtures("layout")
def test_others_own_what_is_theirs_and_roots(granted: Granted) -> None:
    """The id that the caller is seen as cannot be another's too; its files are the caller's."""
    out, records = granted.pytest(
        f"""
def check(uid):
    assert (os.getuid(), os.getgid()) == (uid, uid)
    assert owner("/etc/name") == (uid, uid) and owner("/etc/shadow") == (uid, 42)
    assert owner("/mail") == (8, 8) and owner("/far") == (uid, 3)
    with pytest.raises(PermissionError):
        os.listdir("/mail")
    pathlib.Path("/etc/name").write_text("x")
    {HIDDEN}

@pytest.mark.isolated(rootfs="image", user="caller")
def test_caller(tmp_path):
    check({NOBODY})
    assert owner("/home/app") == (1000, 1000) and owner("/nobody") == ({NOBODY}, {NOBODY})
    pathlib.Path("/nobody").write_text("x")
    (tmp_path / "here").write_text("x")

@pytest.mark.isolated(rootfs="image")
def test_user_of_the_image():
    check(1000)
    assert owner("/nobody") == ({NOBODY}, {NOBODY})
    pathlib.Path("/home/app/kept").write_text("x")
"""
    )
    assert {record["written_files"] for record in records.values()} == {2}, out
    base, top = 3, 1  # for whom the layers are: everybody, the caller, app; none of these ids in the top one
    assert len([path for path in granted.layers.iterdir() if path.is_dir()]) == base + top


@pytest.mark.usefixtures("layout")
def test_explained(granted: Granted) -> None:
    granted.pytest('@pytest.mark.isolated(rootfs="image")\ndef test_it(): pass')
    out = granted.run("-m", "pytest_isolate.cli", "explain", "test_it.py::test_it")
    assert "left away when it was unpacked: 1 out-of-range owner\n" in out
    line = next(line for line in out.splitlines() if "newuidmap" in line)
    assert r"uid_map '1 100000 999\n1000 65534 1\n1001 101000 64536'" in line
    out = granted.run("-m", "pytest_isolate.cli", "doctor")
    assert re.search(r"yes +subordinate ids +uids 100000-165535, gids 100000-165535\n", out), out


@pytest.mark.usefixtures("layout")
def test_what_others_wrote(granted: Granted) -> None:
    """The caller reads what others let be read, as anywhere."""
    out, records = granted.pytest(
        """
@pytest.mark.isolated(rootfs="image", user="root", artifacts=["/out/**"])
def test_writes():
    os.mkdir("/out")
    for uid, mode in ((0, 0o600), (8, 0o644), (9, 0o600)):
        path = pathlib.Path("/out", str(uid))
        path.write_text("x")
        path.chmod(mode)
        os.chown(path, uid, uid)
    os.mkdir("/out/closed", 0o700)
    pathlib.Path("/out/closed/x").write_text("x")
    os.chown("/out/closed", 8, 8)

@pytest.mark.isolated(rootfs="image", user="root")
def test_reads():
    os.chmod("/mail", 0o755)
    pathlib.Path("/mail/new").write_text("x")
""",
        "--isolate-keep=always",
    )
    assert records["test_writes"]["written_files"] is None
    assert records["test_reads"]["written_files"] == 1
    assert "/out/9: Permission denied" in out
    assert "/out/closed: Permission denied" in out
    (kept,) = granted.home.glob("base/**/test_writes*/out")
    assert {path.name: (path.read_text(), path.stat().st_uid) for path in kept.iterdir()} == {
        "0": ("x", NOBODY),
        "8": ("x", NOBODY),
    }


def test_processes_of_others_end_with_the_test(granted: Granted, layout: Layout) -> None:
    assert layout.path.exists()
    out, records = granted.pytest(
        """
import time

@pytest.mark.isolated(rootfs="image", user="root", timeout="1s")
def test_hangs():
    os.setresuid(8, 8, 8)
    time.sleep(60)

@pytest.mark.isolated(rootfs="image", user="root")
def test_leaves():
    if os.fork() == 0:
        os.setresuid(8, 8, 8)
        time.sleep(60)
        os._exit(0)
""",
        check=False,
    )
    assert records["test_hangs"]["reason"] == "timeout", out
    assert records["test_leaves"]["reason"] == "passed", out
    everybody = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
    assert [pid for pid in everybody if _uid(pid) == 100007] == []


def _uid(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except FileNotFoundError:
        return None


STORE = """
import os, pathlib, signal, sys, time
from pytest_isolate.sandbox.images import apart
from pytest_isolate.sandbox.images.archives import import_image
from pytest_isolate.sandbox.images.manifest import own_platform
from pytest_isolate.sandbox.images.prune import prune
from pytest_isolate.sandbox.images.store import Store

store = Store()
def get(): return store.image(import_image(pathlib.Path("image"), store, own_platform()))
"""


def test_clearing_up(granted: Granted, layout: Layout) -> None:
    """Nobody but root of the namespace can empty a directory of other ids: also of a process that was killed."""
    assert layout.path.exists()
    killed = """
unpack = apart.unpack
def stall(*args, **kwargs):
    unpack(*args, **kwargs)
    pathlib.Path("pid").write_text(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
apart.unpack = stall
get()
"""
    granted.run("-c", STORE + killed, check=False)
    pid = int((granted.home / "pid").read_text())
    deadline = time.monotonic() + 10 * TIME_SCALE
    while (
        _uid(pid) == NOBODY and time.monotonic() < deadline
    ):  # a zombie until the machine's init has seen it
        time.sleep(0.05)
    assert _uid(pid) != NOBODY
    work = granted.layers.parents[1] / "work"
    assert [path.stat().st_uid for path in work.glob("*/layer/mail")] == [100007]
    pruned = """
image = get()
assert store.seen_as(image, (8, 8)).layers != image.layers
assert prune(store, in_use_s=-1).freed_bytes == 0
store.remove(str(pathlib.Path("image")))
assert prune(store, in_use_s=-1).freed_bytes > 0
"""
    granted.run("-c", STORE + pruned)
    assert [*work.glob("[!.]*")] == []
    assert {path.suffix for path in granted.layers.iterdir()} == {".lock", ".used"}


def test_a_range_that_is_taken_away(granted: Granted, layout: Layout) -> None:
    """The layers for it stay, beside others that take no range; doctor and prune say what to do."""
    assert layout.path.exists()
    granted.run("-c", STORE + "get()")
    work = granted.layers.parents[1] / "work"
    (kept,) = (path for path in granted.layers.iterdir() if (path / "mail").exists())
    (work / "left").mkdir()
    kept.rename(work / "left/layer")
    granted.grant = "daemon:100000:65536"
    out = granted.run("-c", STORE + "print(get().ids)")
    assert out == "None\n"
    assert len([path for path in granted.layers.iterdir() if (path / "mail").exists()]) == 1
    (work / "left/layer").rename(kept)
    out = granted.run("-c", STORE + "store.remove('image'); prune(store, in_use_s=-1)", check=False)
    assert f"ImageError: cannot remove {kept}: Operation not permitted; run: sudo rm -rf {kept}\n" in out
    out = granted.run("-m", "pytest_isolate.cli", "doctor")
    assert re.search(r"no +subordinate ids +/etc/subuid has no range for nobody\n", out), out
    assert "run: sudo usermod --add-subuids 165536-231071 --add-subgids 165536-231071 nobody\n" in out


def test_an_unpacking_that_fails(granted: Granted) -> None:
    Layout(granted.home / "image").add([file("ok", uid=8), file("../up", uid=8)])
    out = granted.run("-c", STORE + "get()", check=False)
    assert "ImageError: the layer has the path '../up', which may lead out of the root\n" in out
    assert [*(granted.layers.parents[1] / "work").glob("[!.]*")] == []


@pytest.mark.usefixtures("layout")
def test_a_helper_that_fails(granted: Granted) -> None:
    """It is asked before, by who unpacks; then by the supervisor. Whoever does not need it is not hurt."""
    programs = granted.home / "bin"
    programs.mkdir()
    helper = programs / "newuidmap"
    helper.write_text(
        f'#!/bin/sh\n[ ! -e {granted.home}/broken ] || exit 1\nexec {shutil.which("newuidmap")} "$@"\n'
    )
    helper.chmod(0o755)
    granted.environ["PATH"] = f"{programs}:{granted.environ['PATH']}"
    out, records = granted.pytest(
        """
@pytest.mark.isolated(rootfs="image")
def test_before():
    pass

@pytest.fixture(scope="session")
def broken():
    pathlib.Path("broken").touch()

@pytest.mark.isolated(rootfs="image", hostname="another")
def test_broken(broken):
    pass

@pytest.mark.isolated
def test_without():
    assert pathlib.Path("/proc/self/uid_map").read_text().split() == ["65534", "65534", "1"]
""",
        check=False,
    )
    outcomes = {name: record["reason"] for name, record in records.items()}
    assert outcomes == {"test_before": "passed", "test_broken": "setup", "test_without": "passed"}, out
    why = "cannot map subordinate ids: .*newuidmap: status 1"
    assert re.search(f"user namespace is not available: {why}", out), out

"""The same tests in every root: ``any_root_suite.py`` in images of the recipes in rootfs-images/."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_isolate.sandbox.images.blobs import locked

from ..registry_server import need_programs
from .conftest import TIME_SCALE, Run

SUITE = Path(__file__).with_name("any_root_suite.py")
REPOSITORY = SUITE.parents[2]
OUTCOMES = {"passed": 15, "failed": 1, "skipped": 1, "xfailed": 2}

pytestmark = pytest.mark.needs("user namespace", "overlay")


def image(*args: str | Path) -> str:
    """What ``pytest-isolate image`` prints."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest_isolate.cli", "image", *map(str, args)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300 * TIME_SCALE,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for stores and for images as files, the same for all workers of xdist."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "images"


@pytest.fixture(scope="session")
def archive_of(images: Path, pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """A built image as a file. TEST_IMAGES: where they are kept from one session to another."""

    def archive_of(name: str) -> Path:
        directory = Path(os.environ.get("TEST_IMAGES", images))
        archive = directory / f"{name}.tar"
        if not archive.exists():
            need_programs(pytestconfig, "busybox" if name == "busybox" else "mmdebstrap")
            with locked(directory / "lock"):
                if not archive.exists():
                    arguments = ("--missing", "--store", directory / "store", "--output", archive)
                    image("build", name, *arguments)
        return archive

    return archive_of


@pytest.fixture(scope="session")
def store(images: Path, archive_of: Callable[[str], Path]) -> Callable[[str], Path]:
    """The store that these tests have in common, with an image in it."""

    def store(name: str) -> Path:
        image("import", archive_of(name), "--name", name, "--store", images / "store")
        return images / "store"

    return store


@pytest.mark.parametrize("runtime", ["native", "runc"])
@pytest.mark.parametrize("root", ["host", "busybox", "debian-slim", "python-slim"])
def test_the_same_suite_ends_the_same(
    root: str,
    runtime: str,
    run: Callable[..., Run],
    store: Callable[[str], Path],
    pytestconfig: pytest.Config,
) -> None:
    if runtime != "native":
        need_programs(pytestconfig, runtime)
    directory = store("busybox" if root == "host" else root)
    options = (
        f"--isolate-rootfs={root}",
        f"--isolate-store={directory}",
        f"--isolate-runtime={runtime}",
        f"--isolate-timeout={30 * TIME_SCALE}",
    )
    ran = run(SUITE.read_text(), *options)
    assert ran.outcomes == OUTCOMES, ran.out
    assert ran.record("test_that_fails")["outcome"] == "failed"
    assert len(ran.records) == sum(OUTCOMES.values())


def test_busybox_has_its_own_commands_and_nothing_of_the_hosts_etc(
    run: Callable[..., Run], store: Callable[[str], Path]
) -> None:
    ran = run(
        """
        import os
        import subprocess

        def test_root():
            assert os.readlink("/bin/ls") == "/bin/busybox"
            listed = subprocess.check_output(["ls", "/etc"], text=True).split()
            assert listed == ["group", "hosts", "passwd"]
            assert open("/etc/passwd").read().startswith("root:x:0:0:root:/root:/bin/sh\\n")
            assert not os.path.exists("/usr/share/doc")
        """,
        "--isolate-rootfs=busybox",
        f"--isolate-store={store('busybox')}",
    )
    assert ran.outcomes == {"passed": 1}, ran.out


def test_python_slim_has_a_python_of_its_own(run: Callable[..., Run], store: Callable[[str], Path]) -> None:
    ran = run(
        """
        import subprocess

        def test_python():
            code = "import sqlite3, ssl, lzma, sys; print(sys.prefix)"
            # The image's program, with the image's library, at their own places.
            out = subprocess.check_output(["/usr/bin/python3", "-c", code], text=True)
            assert out == "/usr\\n"
            assert subprocess.run(["dpkg", "--status", "python3"], stdout=subprocess.DEVNULL).returncode == 0
        """,
        "--isolate-rootfs=python-slim",
        f"--isolate-store={store('python-slim')}",
    )
    assert ran.outcomes == {"passed": 1}, ran.out


def test_layers_are_shared(images: Path, store: Callable[[str], Path]) -> None:
    store("debian-slim")
    store("python-slim")
    lower = image("inspect", "debian-slim", "--store", images / "store")
    upper = image("inspect", "python-slim", "--store", images / "store")
    (layer,) = (line.split()[0] for line in lower.splitlines() if line.startswith("    sha256:"))
    assert layer in upper


NOTHING = "def test_nothing():\n    raise AssertionError('was run')\n"


def test_a_name_of_the_table_may_be_one_of_the_store(
    run: Callable[..., Run], store: Callable[[str], Path], pytester: pytest.Pytester
) -> None:
    pytester.makepyprojecttoml('[tool.pytest-isolate.images]\nshell = "busybox"\n[tool.pytest.ini_options]\n')
    ran = run(
        "import os\ndef test_root(): assert os.path.exists('/bin/busybox')\n",
        "--isolate-rootfs=shell",
        f"--isolate-store={store('busybox')}",
    )
    assert ran.outcomes == {"passed": 1}, ran.out


def test_a_directory_goes_before_an_image_of_the_same_name(
    run: Callable[..., Run], store: Callable[[str], Path], pytester: pytest.Pytester
) -> None:
    pytester.mkdir("busybox")
    ran = run(
        "import os\ndef test_root(): assert not os.path.exists('/bin/busybox')\n",
        "--isolate-rootfs=busybox",
        f"--isolate-store={store('busybox')}",
    )
    assert ran.outcomes == {"passed": 1}, ran.out


def test_an_image_that_is_not_there(run: Callable[..., Run], tmp_path: Path) -> None:
    ran = run(NOTHING, "--isolate-rootfs=busybox", f"--isolate-store={tmp_path / 'none'}")
    assert ran.outcomes == {"errors": 1}, ran.out
    assert f"no image busybox is in the store {tmp_path / 'none'}" in ran.out
    assert "image build" not in ran.out


def test_an_image_that_is_not_built(
    run: Callable[..., Run], pytester: pytest.Pytester, tmp_path: Path
) -> None:
    recipes = pytester.mkdir("rootfs-images")
    (recipes / "mine.toml").write_text("")
    ran = run(NOTHING, "--isolate-rootfs=mine", f"--isolate-store={tmp_path / 'none'}")
    assert ran.outcomes == {"errors": 1}, ran.out
    assert f"; run: pytest-isolate image build mine --store {tmp_path / 'none'}" in ran.out


def test_a_path_that_is_not_there_is_no_name(run: Callable[..., Run], store: Callable[[str], Path]) -> None:
    ran = run(NOTHING, "--isolate-rootfs=./busybox", f"--isolate-store={store('busybox')}")
    assert ran.outcomes == {"errors": 1}, ran.out
    assert "is not there; name a directory" in ran.out

"""``pytest-isolate image`` as a person meets it, with busybox as the image."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from pytest_isolate.cli import main
from pytest_isolate.sandbox.images.blobs import Blobs
from pytest_isolate.sandbox.images.manifest import Descriptor, Platform, own_platform
from pytest_isolate.sandbox.images.reference import Reference
from pytest_isolate.sandbox.images.store import Store

from ..archives import Layout, file
from ..registry_server import need_programs
from .conftest import TIME_SCALE, Run

RECIPES = Path(__file__).parents[2] / "rootfs-images"
RECIPE = """
source_date_epoch = 86400
[busybox]
[files]
"/etc/motd" = "hello\\n"
[config]
env = ["GREETING=hello"]
workdir = "/srv"
"""
Cli = Callable[..., str]


def cli(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest_isolate.cli", "image", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60 * TIME_SCALE, check=False)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own with a recipe, and the store that is the default."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rootfs-images").mkdir()
    (tmp_path / "rootfs-images" / "box.toml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def do(place: Path) -> Cli:
    """An action that succeeds; what it prints."""

    def do(*args: str | Path) -> str:
        ran = cli(*args)
        assert ran.returncode == 0, ran
        return ran.stdout

    return do


@pytest.fixture
def fails(place: Path) -> Cli:
    """An action that fails; its one line."""

    def fails(*args: str | Path) -> str:
        ran = cli(*args)
        assert (ran.returncode, ran.stdout) == (1, ""), ran
        line = ran.stderr.splitlines()[-1]
        assert line.startswith("pytest-isolate: error: ")
        assert "Traceback" not in ran.stderr
        return line.removeprefix("pytest-isolate: error: ")

    return fails


def digest(do: Cli, name: str) -> str:
    (found,) = json.loads(do("inspect", name, "--json"))["images"]
    return str(found["digest"])


# -- build ----------------------------------------------------------------------------------------------


def test_the_same_recipe_gives_the_same_digest(do: Cli) -> None:
    one, other = do("build", "box", "--store", "a"), do("build", "box", "--store", "b")
    assert one == other
    assert re.fullmatch(r"box sha256:[0-9a-f]{64}\n", one)


def test_another_recipe_gives_another_digest(do: Cli, place: Path) -> None:
    one = do("build", "box")
    (place / "rootfs-images" / "box.toml").write_text(RECIPE.replace("hello", "bye"))
    assert do("build", "box", "--missing") != one


def test_an_image_is_built_once_if_only_missing_ones_are_wanted(do: Cli) -> None:
    do("build", "box")
    assert cli("build", "box").stderr == "building box\n"
    assert cli("build", "box", "--missing").stderr == ""


def test_a_recipe_of_the_repository(do: Cli) -> None:
    assert do("build", RECIPES / "busybox.toml", "--name", "mine").startswith("mine sha256:")


@pytest.mark.needs("user namespace", "overlay")
def test_what_the_recipe_says_is_so(
    do: Cli, place: Path, run: Callable[..., Run], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    do("build", "box", "--store", "store")
    monkeypatch.chdir(pytester.path)
    ran = run(
        """
        import os
        import subprocess

        def test_it():
            assert open("/etc/motd").read() == "hello\\n"
            assert (os.environ["GREETING"], os.getcwd()) == ("hello", "/srv")
            assert os.stat("/tmp").st_mode & 0o7777 == 0o1777
            assert os.stat("/bin/busybox").st_mtime == 86400
            assert subprocess.check_output("echo a b | awk '{print $2}'", shell=True) == b"b\\n"
        """,
        "--isolate-rootfs=box",
        f"--isolate-store={place / 'store'}",
    )
    assert ran.outcomes == {"passed": 1}, ran.out


def stand_in(directory: Path, **scripts: str) -> None:
    """Programs that are found before the machine's."""
    directory.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (directory / name.replace("_", "-")).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name.replace("_", "-")).chmod(0o755)
    os.environ["PATH"] = f"{directory}:{os.environ['PATH']}"


@pytest.fixture
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"])


@pytest.mark.usefixtures("own_path")
def test_a_package_that_is_not_installed_is_downloaded_and_not_installed(do: Cli, place: Path) -> None:
    control = place / "package" / "DEBIAN" / "control"
    (place / "package" / "bin").mkdir(parents=True)
    control.parent.mkdir()
    control.write_text(
        "Package: busybox-static\nVersion: 9.9-1\nArchitecture: all\nMaintainer: A <a@b.example>\nDescription: x\n"
    )
    busybox = shutil.which("busybox")
    assert busybox is not None, "apt-get install busybox-static"
    shutil.copy(busybox, place / "package" / "bin")
    subprocess.run(["dpkg-deb", "--build", "package", "it.deb"], check=True, stdout=subprocess.DEVNULL)
    installed = do("build", "box")
    stand_in(
        place / "bin",
        dpkg_query="exit 1",
        apt_get=f'test "$*" = "-qq download busybox-static" && cp {place}/it.deb .',
    )
    do("build", "box", "--name", "downloaded")
    text = do("inspect", "downloaded")
    assert "label     org.opencontainers.image.version=9.9-1" in text
    assert digest(do, "downloaded") != installed.split()[1]  # the version's label
    layers = [
        json.loads(do("inspect", name, "--json"))["images"][0]["layers"] for name in ("box", "downloaded")
    ]
    assert layers[0] == layers[1]


@pytest.mark.usefixtures("own_path")
def test_a_busybox_that_needs_libraries_is_refused(fails: Cli, place: Path) -> None:
    stand_in(
        place / "bin",
        dpkg_query="exit 1",
        apt_get="touch it.deb",
        dpkg_deb="mkdir -p $3/bin; cp /bin/sh $3/bin/busybox",
    )
    assert "the package busybox-static has no static busybox" in fails("build", "box")


DEBIAN = "source_date_epoch = 1\n[debian]\nsuite = 'sid'\npackages = ['git']\npath_exclude = ['/a/*']\n"


@pytest.mark.usefixtures("own_path")
def test_what_mmdebstrap_is_asked_for(do: Cli, place: Path) -> None:
    """A stand-in, as the real one takes a mirror and a minute; test_any_root.py has that."""
    (place / "rootfs-images" / "deb.toml").write_text(DEBIAN)
    source = place / "source"
    for name in ("etc/apt/sources.list.d", "dev", "usr"):
        (source / name).mkdir(parents=True)
    for name in ("etc/apt/sources.list", "etc/hostname", "dev/null", "usr/file"):
        (source / name).write_text(name)
    (source / "etc/debian_version").write_text("12.34\n")
    stand_in(
        place / "bin",
        mmdebstrap=f'echo "$SOURCE_DATE_EPOCH $*" > {place}/asked; readlink /proc/self/ns/mnt > {place}/mounts; '
        f"tar -C {source} -c .",
        apt_get="printf 'http://m.example/\\tsid\\tmain\\nhttp://m.example/\\tother\\tmain\\n'",
    )
    do("build", "deb")
    # As root it mounts: nobody else sees that.
    assert ((place / "mounts").read_text().strip() == os.readlink("/proc/self/ns/mnt")) == (os.geteuid() != 0)
    asked = (place / "asked").read_text()
    assert asked.startswith("1 ")
    assert asked.endswith(" sid - deb http://m.example/ sid main\n")
    for option in ("--variant=minbase", "--include=git", "--dpkgopt=path-exclude=/a/*"):
        assert option in asked
    do("export", "deb", "deb.tar", "--format", "rootfs")
    with tarfile.open("deb.tar") as archive:
        assert archive.getnames() == [
            ".", "dev", "etc", "etc/apt", "etc/apt/sources.list.d", "etc/debian_version", "usr", "usr/file",
        ]  # fmt: skip
    assert "org.opencontainers.image.version=12.34" in do("inspect", "deb")


@pytest.mark.usefixtures("own_path")
def test_mmdebstrap_fails(fails: Cli, place: Path) -> None:
    (place / "rootfs-images" / "deb.toml").write_text(DEBIAN)
    stand_in(place / "bin", mmdebstrap="echo 'E: no such suite' >&2; echo more >&2; exit 3", apt_get="exit 0")
    line = fails("build", "deb")
    assert line.startswith("mmdebstrap failed with status 3: E: no such suite")
    assert ("usermod --add-subuids" in line) == (os.geteuid() != 0)
    assert list((place / "cache").rglob("root.tar")) == []


def test_mmdebstrap_is_not_there(fails: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "rootfs-images" / "deb.toml").write_text(DEBIAN)
    monkeypatch.setenv("PATH", str(place))
    assert fails("build", "deb") == "mmdebstrap is not there; run: apt-get install mmdebstrap"
    assert fails("build", "box") == "apt-get is not there; build the image on Debian or Ubuntu"


def test_recipes_that_are_not_there(fails: Cli, place: Path) -> None:
    assert fails("build", "nope") == f"there is no recipe nope in {place}/rootfs-images; there is: box"
    assert fails("build", "./nope.toml") == "there is no recipe nope.toml"


def test_inspect_shows_what_a_terminal_would_obey(do: Cli, place: Path) -> None:
    layout = Layout(place / "layout")
    layout.add([file("a")], config={"Env": ["A=\033]0;title\007"], "Labels": {"b": "one\ntwo"}})
    do("import", layout.path)
    text = do("inspect", layout.path)
    assert r"A=\x1b]0;title\x07" in text
    assert r"b=one\ntwo" in text


# -- ls, inspect, rm, prune -----------------------------------------------------------------------------


def test_a_list(do: Cli, place: Path) -> None:
    assert do("ls") == f"no images in {place}/cache/pytest-isolate/images\n"
    do("build", "box")
    heading, row = do("ls").splitlines()
    assert heading.split() == ["name", "digest", "platform", "layers", "stored", "unpacked", "created"]
    assert row.split()[0] == "box"
    assert row.split()[1] == digest(do, "box")[:19]
    assert row.endswith(" not yet  1970-01-02")
    document = json.loads(do("ls", "--json"))
    assert (document["schema"], document["store"]) == (1, f"{place}/cache/pytest-isolate/images")
    assert [found["name"] for found in document["images"]] == ["box"]


def test_what_is_known_of_an_image(do: Cli) -> None:
    do("build", "box")
    text = do("inspect", "box")
    for line in ("  created   1970-01-02T00:00:00Z", "  workdir   /srv", "  env       GREETING=hello"):
        assert f"{line}\n" in text
    assert "      not unpacked yet\n" in text
    do("export", "box", "root.tar", "--format=rootfs")  # unpacks
    assert re.search(
        r"^      1\.\d MiB in \d+ entries: /.*/layers/sha256/[0-9a-f]{64}$", do("inspect", "box"), re.M
    )
    (found,) = json.loads(do("inspect", "box", "--json"))["images"]
    (layer,) = found["layers"]
    assert Path(layer["path"], "bin", "busybox").exists()
    assert found["unpacked_bytes"] == layer["unpacked_bytes"] > 10**6
    assert layer["skipped"] == {}


def test_a_damaged_image_can_be_seen_and_removed(do: Cli, fails: Cli, place: Path) -> None:
    do("build", "box")
    found = digest(do, "box")
    (place / "cache/pytest-isolate/images/blobs" / found.replace(":", "/")).write_text("{}")
    assert "damaged: get it again" in do("ls")
    assert "is damaged" in json.loads(do("ls", "--json"))["images"][0]["error"]
    for action in (("inspect", "box"), ("export", "box", "box.tar"), ("prune",)):
        assert fails(*action).startswith("image box: ")
        assert fails(*action).endswith("is damaged; get the image again")
    do("rm", "box")
    assert do("ls").startswith("no images")


def test_images_are_removed_and_then_freed(do: Cli, fails: Cli, place: Path) -> None:
    do("build", "box")
    do("build", "box", "--name", "other")
    line = fails("rm", "box", "none")
    assert line.endswith(
        "no image none is in the store " + f"{place}/cache/pytest-isolate/images; there is: box, other"
    )
    built = digest(do, "box")
    assert do("rm", "box", "box") == f"removed box {built}\n"
    assert do("prune", "--all") == "freed 0 B\n"  # the other needs the same
    assert do("rm", "other") == f"removed other {built}\n"
    assert re.fullmatch(
        r"freed 0 B; kept [12]\.\d MiB that was used within the last hour \(--all removes it, too\)\n",
        do("prune"),
    )
    assert re.fullmatch(r"freed [12]\.\d MiB\n", do("prune", "--all"))
    assert fails("inspect", "box").endswith("there is: none")


# -- import, export -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_an_image_that_is_exported_comes_back_the_same(form: str, do: Cli) -> None:
    built = do("build", "box").split()[1]
    do("export", "box", "box.tar", "--format", form)
    do("export", "box", "again.tar", "--format", form)
    assert Path("box.tar").read_bytes() == Path("again.tar").read_bytes()
    assert do("import", "box.tar", "--store", "other", "--name", "box") == f"box {built}\n"


def test_an_image_as_one_root(do: Cli, place: Path) -> None:
    do("build", "box")
    do("export", "box", "box.tar", "--format", "rootfs")
    assert do("import", "box.tar").startswith(f"{place}/box.tar sha256:")
    with tarfile.open("box.tar") as archive:
        motd = archive.extractfile("etc/motd")
        assert motd is not None
        assert motd.read() == b"hello\n"
    assert do("inspect", "box.tar").startswith(f"{place}/box.tar\n")
    do("rm", "box.tar")
    assert "box.tar" not in do("ls")


def skopeo(*args: str) -> dict[str, object]:
    ran = subprocess.run(["skopeo", *args], capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(ran.stdout)
    return found


def test_other_tools_read_what_is_exported(do: Cli, pytestconfig: pytest.Config) -> None:
    need_programs(pytestconfig, "skopeo")
    built = do("build", "box", "--output", "oci.tar").split()[1]
    do("export", "box", "docker.tar", "--format=docker")
    found = skopeo("inspect", "oci-archive:oci.tar:box")
    assert (found["Digest"], found["Env"]) == (built, ["GREETING=hello"])
    found = skopeo("inspect", "docker-archive:docker.tar:box:latest")
    assert (found["Os"], found["Env"]) == ("linux", ["GREETING=hello"])
    config = skopeo("inspect", "--config", "docker-archive:docker.tar:box:latest")
    assert config == skopeo("inspect", "--config", "oci-archive:oci.tar:box")


def test_what_cannot_be_imported_or_exported(do: Cli, fails: Cli, place: Path) -> None:
    do("build", "box", "--output", "box.tar")
    (place / "text").write_text("no archive at all")
    assert fails("import", "text").startswith(f"image text: {place}/text is no tar archive")
    assert fails("import", "none") == f"image none: cannot read {place}/none: No such file or directory"
    assert fails("import", "rootfs-images") == (
        f"image rootfs-images: {place}/rootfs-images is a directory, and no OCI layout; "
        f'rootfs="{place}/rootfs-images" has it as the root as it is; '
        f"or pack it: tar -C {place}/rootfs-images -cf root.tar ."
    )
    assert fails("import", "box.tar", "--name", "a/b").startswith("'a/b' cannot be the name of an image")
    assert "has no image 'x'" in fails("import", "box.tar", "--ref", "x")
    assert fails("export", "box", "none/box.tar") == "cannot write none/box.tar: No such file or directory"
    assert fails("export", "none", "x.tar").startswith("no image none is in the store")
    assert sorted(path.name for path in place.iterdir()) == ["box.tar", "cache", "rootfs-images", "text"]


def test_a_store_that_cannot_be_written(fails: Cli, place: Path) -> None:
    (place / "file").touch()
    assert "File exists" in fails("build", "box", "--store", place / "file")


def test_names_that_are_no_references(fails: Cli) -> None:
    assert fails("pull", "alpine").startswith("'alpine' is no name of an image")
    assert fails("pull", "r.example/a", "--platform", "linux").startswith("'linux' is no platform")


def test_a_pull_that_fails_names_the_image(fails: Cli) -> None:
    assert fails("pull", "localhost:1/a").startswith("image localhost:1/a: cannot pull from localhost:1: ")


@pytest.mark.parametrize(
    ("short", "key"),
    [("box", "box"), ("my.app", '"my.app"'), ("my_a-pp", "my_a-pp")],
    ids=["bare", "dot", "bare2"],
)
@pytest.mark.parametrize("pinned", [False, True])
def test_a_pull_says_how_to_pin_the_image(
    pinned: bool,
    short: str,
    key: str,
    do: Cli,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of a registry that is none: what pulling does with one, its own tests tell."""
    built = do("build", "box", "--store", "store").split()[1]
    stored = Store(Path("store").absolute()).find("box", own_platform())
    assert stored is not None
    registry = ModuleType("registry")
    asked = []

    def pull(reference: Reference, blobs: Blobs, platform: Platform, *, progress: None = None) -> Descriptor:
        asked.append((str(reference), platform))
        return stored.manifest

    registry.pull = pull  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytest_isolate.sandbox.images.registry", registry)
    name = f"r.example/team/{short}:1" + (f"@{built}" if pinned else "")
    assert main(["image", "pull", name, "--store", "store", "--platform", "linux/arm/v7"]) == 0
    assert asked == [(name, Platform("linux", "arm", "v7"))]
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"{name} {built}"
    assert (rest[-1:] == [f'{key} = "{name}@{built}"']) is not pinned

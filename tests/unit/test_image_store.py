"""The store: each layer once, whoever comes; sound after any death; and images from every kind of file."""

from __future__ import annotations

import gzip
import hashlib
import json
import multiprocessing
import os
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images import apart, store
from pytest_isolate.sandbox.images.archives import import_image
from pytest_isolate.sandbox.images.manifest import Descriptor, Platform, own_platform
from pytest_isolate.sandbox.images.prune import prune
from pytest_isolate.sandbox.images.reference import naming
from pytest_isolate.sandbox.images.resolve import Images
from pytest_isolate.sandbox.images.store import Image, Store, default_store, remove_tree
from pytest_isolate.sandbox.images.unpack import unpack
from pytest_isolate.spec import HostRootfs, ImageRootfs, PathRootfs
from pytest_isolate.values import Pull

from ..archives import Entry, Layout, directory, fifo, file, tar_bytes

BASE = [directory("etc"), file("etc/name", "base")]
TOP = [file("etc/name", "top")]


@pytest.fixture
def images(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def get(path: Path, images: Store, wanted: str = "") -> Image:
    return images.image(import_image(path, images, own_platform(), wanted=wanted))


def contents(image: Image, path: str) -> list[str]:
    """Of ``path`` in each layer that has it, the topmost first."""
    return [Path(layer, path).read_text() for layer in image.layers if Path(layer, path).exists()]


# ---- kinds of files ---------------------------------------------------------------------------------


def test_layout_directory_and_archive(images: Store, layout: Layout, tmp_path: Path) -> None:
    digest = layout.add(BASE, TOP, config={"Env": ["A=1=2", "B="], "User": "7:8", "WorkingDir": "/w"})
    for path in (layout.path, layout.pack(tmp_path / "layout.tar")):
        image = get(path, images)
        assert (image.name, image.digest) == (str(path), digest)
        assert contents(image, "etc/name") == ["top", "base"]
        assert image.config.env == (("A", "1=2"), ("B", ""))
        assert (image.config.user, image.config.working_dir) == ("7:8", "/w")
    assert len(os.listdir(images.directory / "layers/sha256")) == 2 * 3  # directory, note, lock


def docker_archive(path: Path, *names: str, legacy: bool = False) -> Path:
    layers = [tar_bytes(BASE), tar_bytes(TOP)]
    diff_ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    config = {"os": "linux", "architecture": own_platform().architecture, "rootfs": {"diff_ids": diff_ids}}
    ids = [diff_id.partition(":")[2] for diff_id in diff_ids]
    members = [f"{i}/layer.tar" if legacy else f"blobs/sha256/{i}" for i in ids]
    image = {"Config": f"{'0' * 64}.json", "Layers": members}
    manifest = [image | {"RepoTags": [name]} for name in names] or [image]
    entries = [file(f"{'0' * 64}.json", json.dumps(config))]
    entries += [file(member, layer) for member, layer in zip(members, layers, strict=True)]
    path.write_bytes(tar_bytes([*entries, file("manifest.json", json.dumps(manifest))]))
    return path


@pytest.mark.parametrize("legacy", [False, True])
def test_docker_save(images: Store, tmp_path: Path, legacy: bool) -> None:
    image = get(docker_archive(tmp_path / "saved.tar", "app:1", legacy=legacy), images)
    assert contents(image, "etc/name") == ["top", "base"]


def test_one_of_several(images: Store, layout: Layout, tmp_path: Path) -> None:
    layout.add(BASE, name="one")
    layout.add(BASE, TOP, name="two")
    saved = docker_archive(tmp_path / "saved.tar", "app:1", "app:2")
    assert len(get(layout.path, images, "two").layers) == 2
    assert len(get(saved, images, "app:2").layers) == 2
    for path, names in ((layout.path, "one, two"), (saved, "app:1, app:2")):
        with pytest.raises(ImageError, match=f"has 2 images.*{names}"):
            get(path, images)
        with pytest.raises(ImageError, match=r"'three'"):
            get(path, images, "three")


@pytest.fixture
def saved(layout: Layout, tmp_path: Path) -> Path:
    """As Docker 25 and later save: an OCI layout, with Docker's own names beside it."""
    names = {
        "docker.io/library/app:latest": layout.add(BASE),
        "docker.io/library/app:1": layout.add(BASE),
        "docker.io/team/tool:latest": layout.add(BASE, TOP),
        "ghcr.io/team/app:latest": layout.add(TOP),
    }
    entries = json.loads((layout.path / "index.json").read_text())["manifests"]
    for entry, (name, digest) in zip(entries, names.items(), strict=True):
        assert entry["digest"] == digest
        entry["annotations"] = {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        }
    layout.write_index([*entries, layout.blob(b"{}", entries[0]["mediaType"])])
    (layout.path / "manifest.json").write_text("[]")
    return layout.pack(tmp_path / "saved.tar")


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("app:latest", ["base"]),
        ("app:1", ["base"]),
        ("1", ["base"]),
        ("docker.io/library/app:latest", ["base"]),
        ("library/app:latest", ["base"]),
        ("team/tool:latest", ["top", "base"]),
        ("ghcr.io/team/app:latest", ["top"]),
    ],
)
def test_names_of_docker(images: Store, saved: Path, name: str, layers: list[str]) -> None:
    image = get(saved, images, name)
    assert contents(image, "etc/name") == layers
    assert get(saved, images, image.digest).layers == image.layers
    assert {stored.manifest.docker_name for stored in images.images()} == {None}


def test_names_that_a_person_can_use_are_listed(images: Store, saved: Path, layout: Layout) -> None:
    unnamed = json.loads((layout.path / "index.json").read_text())["manifests"][-1]["digest"]
    names = f"there is: app:latest, app:1, team/tool:latest, ghcr.io/team/app:latest, {unnamed}"
    for wanted, problem in [
        ("", "has 4 images"),
        ("latest", "has 3 images named 'latest'"),
        ("nope", "has no image 'nope'"),
    ]:
        with pytest.raises(ImageError) as caught:
            get(saved, images, wanted)
        assert str(caught.value).startswith(f"{saved} {problem}; name one as in {saved}#NAME, or ")
        assert str(caught.value).endswith(names)


def test_one_image_with_two_names_is_one(images: Store, saved: Path, layout: Layout) -> None:
    entries = json.loads((layout.path / "index.json").read_text())["manifests"]
    layout.write_index(entries[:2])
    assert contents(get(layout.path, images), "etc/name") == ["base"]


def test_platform_is_chosen_from_an_index(images: Store, layout: Layout) -> None:
    other = layout.add(BASE, platform={"os": "linux", "architecture": "s390x"})
    mine = layout.add(TOP, platform=own_platform().to_json())
    index = {
        "schemaVersion": 2,
        "manifests": json.loads((layout.path / "index.json").read_text())["manifests"],
    }
    inner = layout.blob(json.dumps(index).encode(), "application/vnd.oci.image.index.v1+json")
    layout.write_index([inner])
    assert get(layout.path, images).digest == mine
    far = import_image(layout.path, images, Platform("linux", "s390x"), name="far")
    assert far.manifest.digest == other
    with pytest.raises(ImageError, match="there is no image for linux/riscv64; there is: linux/s390x"):
        import_image(layout.path, images, Platform("linux", "riscv64"), name="none")


@pytest.mark.parametrize("how", [lambda data: data, gzip.compress], ids=["plain", "gzip"])
def test_root_tarball(images: Store, tmp_path: Path, how: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "root.tar"
    path.write_bytes(how(tar_bytes([directory("./"), file("./etc/name", "root")])))
    image = get(path, images)
    assert contents(image, "etc/name") == ["root"]
    assert image.config.platform == own_platform()


def test_a_changed_file_is_another_image(images: Store, tmp_path: Path) -> None:
    path = tmp_path / "root.tar"
    path.write_bytes(tar_bytes([file("a", "old")]))
    first = get(path, images)
    assert get(path, images) == first
    path.write_bytes(tar_bytes([file("a", "newer")]))
    assert contents(get(path, images), "a") == ["newer"]
    assert [stored.name for stored in images.images()] == [str(path)]


def test_a_layer_that_comes_twice_is_mounted_once(images: Store, layout: Layout) -> None:
    """overlayfs answers ELOOP to a lower layer that is there twice."""
    layout.add(BASE, TOP, BASE)
    assert contents(get(layout.path, images), "etc/name") == ["base", "top"]


# ---- what is refused --------------------------------------------------------------------------------


def damage(layout: Layout, kind: str) -> None:
    """Change one byte of a blob: of a layer, of the configuration or of the manifest."""
    entry = json.loads((layout.path / "index.json").read_text())["manifests"][0]
    manifest = json.loads(layout.blob_path(entry["digest"]).read_text())
    digests = {
        "layer": manifest["layers"][0]["digest"],
        "config": manifest["config"]["digest"],
        "manifest": entry["digest"],
    }
    path = layout.blob_path(digests[kind])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["layer", "config", "manifest"])
def test_a_damaged_blob_is_refused_and_the_store_stays_usable(
    images: Store, layout: Layout, tmp_path: Path, kind: str
) -> None:
    layout.add(BASE, TOP)
    damage(layout, kind)
    with pytest.raises(ImageError, match="is damaged: it has the digest"):
        get(layout.path, images)
    assert images.images() == []
    good = Layout(tmp_path / "good")
    good.add(BASE, TOP)
    assert contents(get(good.path, images), "etc/name") == ["top", "base"]


def test_a_layer_that_is_not_its_diff_id(images: Store, layout: Layout) -> None:
    digest = layout.add(BASE)
    manifest = json.loads(layout.blob_path(digest).read_text())
    config = json.loads(layout.blob_path(manifest["config"]["digest"]).read_text())
    config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
    manifest["config"] = layout.blob(json.dumps(config).encode(), manifest["config"]["mediaType"])
    layout.write_index([layout.blob(json.dumps(manifest).encode(), manifest["mediaType"])])
    with pytest.raises(ImageError, match="is not what the image promises"):
        get(layout.path, images)
    assert [*(images.directory / "layers/sha256").glob("*[!k]")] == []
    assert [*(images.directory / "work").glob("[!.]*")] == []


ABSURD: dict[str, tuple[Any, str]] = {
    "no list": ({"layers": {}}, "no list 'layers'"),
    "no digest": ({"layers": [{"mediaType": "tar", "size": 1}]}, "no sha256 digest"),
    "path for a digest": (
        {"layers": [{"digest": "sha256:../../../etc/passwd", "size": 1}]},
        "no sha256 digest",
    ),
    "negative": ({"layers": [{"digest": "sha256:" + "0" * 64, "size": -1}]}, "no size"),
    "huge": ({"layers": [{"digest": "sha256:" + "0" * 64, "size": 2**60}]}, "no size"),
    "true": ({"layers": [{"digest": "sha256:" + "0" * 64, "size": True}]}, "no size"),
    "501 layers": (
        {"layers": [{"mediaType": "x.tar", "digest": "sha256:" + "0" * 64, "size": 1}] * 501},
        "501 layers; the kernel mounts 500",
    ),
    "no tar": ({"layers": [{"mediaType": "x.zip", "digest": "sha256:" + "0" * 64, "size": 1}]}, "no tar"),
    "foreign": (
        {"layers": [{"mediaType": "a.tar.foreign", "digest": "sha256:" + "0" * 64, "size": 1}]},
        "no tar",
    ),
    "encrypted": (
        {"layers": [{"mediaType": "a.tar+encrypted", "digest": "sha256:" + "0" * 64, "size": 1}]},
        "encrypted",
    ),
    "old": ({"schemaVersion": 1}, "schema 1"),
    "no object": ([], "not a JSON object"),
    "text": ("nonsense", "not JSON"),
    "deep": ("[" * 100_000, "not JSON"),
    "long": (" " * (5 * 2**20), "bytes"),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_manifests(images: Store, layout: Layout, name: str) -> None:
    content, text = ABSURD[name]
    data = content if isinstance(content, str) else json.dumps(content)
    layout.write_index([layout.blob(data.encode(), "application/vnd.oci.image.manifest.v1+json")])
    with pytest.raises(ImageError, match=text):
        get(layout.path, images)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"Env": ["nothing"]}, "not NAME=VALUE"),
        ({"Env": [1]}, "not NAME=VALUE"),
        ({"Env": 5}, "no list 'Env'"),
        ({"WorkingDir": "/\ud800"}, "surrogates not allowed"),
        ({"User": "\033]0;evil"}, "no text"),
        ({"User": 1}, "no text"),
        ({"WorkingDir": "a\0b"}, "no text"),
    ],
)
def test_absurd_configurations(images: Store, layout: Layout, config: dict[str, Any], text: str) -> None:
    layout.add(BASE, config=config)
    with pytest.raises(ImageError, match=text):
        get(layout.path, images)


def test_a_layout_whose_blobs_are_links(images: Store, layout: Layout, tmp_path: Path) -> None:
    """What a link out of the layout leads to is never read."""
    digest = layout.add(BASE)
    secret = tmp_path / "secret"
    layout.blob_path(digest).rename(secret)
    layout.blob_path(digest).symlink_to(secret)
    with pytest.raises(ImageError, match="cannot read"):
        get(layout.path, images)


@pytest.mark.parametrize("content", [b"", b"nonsense", tar_bytes([]), tar_bytes([file("oci-layout", "{}")])])
def test_files_that_are_no_images(images: Store, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ImageError):
        get(path, images)


TORN = "the layer is no tar archive that can be read: "


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (lambda data: data[: 512 + 100], f"{TORN}it ends too early; get the image again"),
        (lambda data: data[: 5 * 512 + 100], f"{TORN}truncated header; get the image again"),
        (lambda data: gzip.compress(data)[:-20], "a layer cannot be read: .*; get the image again"),
    ],
    ids=["content", "header", "gzip"],
)
def test_torn_archives(images: Store, tmp_path: Path, how: Callable[[bytes], bytes], text: str) -> None:
    """Each is the error of those who ask, under the name by which they do."""
    path = tmp_path / "torn.tar"
    path.write_bytes(how(tar_bytes([file("a", "x" * 1000), file("é", "y" * 1000)])))
    with pytest.raises(ImageError, match=f"^image torn: {text}$"):
        Images(images).get(PathRootfs(str(path), asked="torn"))


def test_an_archive_without_one_of_its_layers(images: Store, tmp_path: Path) -> None:
    path = tmp_path / "saved.tar"
    entries = [
        file(SAVED, "{}"),
        file("manifest.json", json.dumps([{"Config": SAVED, "Layers": ["gone.tar"]}])),
    ]
    path.write_bytes(tar_bytes(entries))
    text = (
        f"image {path}: cannot read 'gone.tar' of the image: No such file or directory; get the image again"
    )
    with pytest.raises(ImageError) as caught:
        Images(images).get(PathRootfs(str(path)))
    assert str(caught.value) == text


def test_a_name_is_not_said_twice(images: Store) -> None:
    name = "localhost:1/a/b:1"
    with pytest.raises(ImageError) as caught, naming(name):
        raise ImageError(f"{name}: the registry has no time")
    assert str(caught.value) == f"image {name}: the registry has no time"


def test_a_registry_that_cannot_be_reached(images: Store) -> None:
    with pytest.raises(ImageError) as caught:
        Images(images).get(ImageRootfs("localhost:1/a/b:1", asked="base"))
    assert str(caught.value).startswith("image base: cannot pull from localhost:1: ")
    assert str(caught.value).endswith(
        "; an image that was pulled before takes no network (pytest-isolate image pull)"
    )


# ---- many at once, and deaths --------------------------------------------------------------------------


def _replace_unpack(replacement: Callable[..., Any]) -> None:
    """In a process of its own. The one is used by whoever has subordinate ids, the other by everybody else."""
    for module in (apart, store):
        setattr(module, "unpack", replacement)  # noqa: B010


def _get_layers(path: Path, directory: Path, count: Any) -> None:
    def counting(*args: Any, **kwargs: Any) -> Any:
        with count.get_lock():
            count.value += 1
        return unpack(*args, **kwargs)

    _replace_unpack(counting)
    get(path, Store(directory))


def test_processes_that_come_at_once_unpack_once(layout: Layout, tmp_path: Path) -> None:
    layout.add(BASE, [file(f"f{i}", "x" * 1000) for i in range(300)], TOP)
    context = multiprocessing.get_context("fork")
    count = context.Value("i", 0)
    arguments = (layout.path, tmp_path / "shared", count)
    processes = [context.Process(target=_get_layers, args=arguments) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    assert count.value == 3


def _unpack_for_ever(path: Path, directory: Path) -> None:
    def stall(archive: Path, root: Path, **kwargs: Any) -> Any:
        (root / "half").mkdir(mode=0o500)
        (directory / "started").touch()
        time.sleep(60)

    _replace_unpack(stall)
    get(path, Store(directory))


def test_a_kill_while_unpacking_leaves_the_store_sound(layout: Layout, tmp_path: Path) -> None:
    layout.add(BASE)
    images = Store(tmp_path / "shared")
    process = multiprocessing.get_context("fork").Process(
        target=_unpack_for_ever, args=(layout.path, images.directory)
    )
    process.start()
    while not (images.directory / "started").exists():
        assert process.is_alive()
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len([*(images.directory / "work").glob("[!.]*")]) == 1
    assert contents(get(layout.path, images), "etc/name") == ["base"]
    assert [*(images.directory / "work").glob("[!.]*")] == []


def test_a_kill_between_layer_and_note(images: Store, layout: Layout) -> None:
    """A directory without its note is not known to be whole."""
    layout.add(BASE)
    (path,) = get(layout.path, images).layers
    Path(path, "etc/name").write_text("torn")
    Path(path).with_suffix(".json").unlink()
    assert contents(get(layout.path, images), "etc/name") == ["base"]


def test_a_torn_write_of_a_blob_is_written_again(images: Store, layout: Layout) -> None:
    path = layout.blob_path(layout.add(BASE))
    expected = Descriptor("x", f"sha256:{path.name}", path.stat().st_size)
    with images.blobs.being_written(expected.digest) as partial:
        assert partial is not None
        partial.write_bytes(path.read_bytes()[:10])
    images.blobs.add([path.read_bytes()], expected)
    assert images.blobs.path(expected.digest).read_bytes() == path.read_bytes()


def test_a_blob_longer_than_promised_is_not_read_to_its_end(images: Store) -> None:
    def endless() -> Any:
        for _ in range(100):
            yield b"x" * 1000
        raise AssertionError("read on")

    with pytest.raises(ImageError, match="is damaged"):
        images.blobs.add(endless(), Descriptor("x", "sha256:" + "0" * 64, 5000))


# ---- clearing up -----------------------------------------------------------------------------------


def test_prune_removes_what_no_image_needs(images: Store, layout: Layout, tmp_path: Path) -> None:
    layout.add(BASE, TOP)
    other = Layout(tmp_path / "other")
    other.add(BASE)
    both, one = get(layout.path, images), get(other.path, images)
    assert prune(images, in_use_s=0).freed_bytes == 0
    assert images.remove(both.name)
    assert not images.remove(both.name)
    assert prune(images).freed_bytes == 0  # it may be in use
    assert prune(images, in_use_s=0).freed_bytes > 0
    assert [Path(layer).exists() for layer in both.layers] == [False, True]
    assert contents(one, "etc/name") == ["base"]
    assert get(other.path, images) == one
    assert get(layout.path, images) == both


def test_trees_without_write_permission_are_removed(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o555)
    (tmp_path / "a/link").symlink_to(outside)
    for path in ("a/b/c", "a/b", "a"):
        (tmp_path / path).chmod(0o500)
    remove_tree(tmp_path / "a")
    assert os.listdir(tmp_path) == ["outside"]
    assert outside.stat().st_mode & 0o777 == 0o555


def test_a_root_without_write_permission(images: Store, layout: Layout) -> None:
    """As Fedora has it."""
    layout.add([directory("./", mode=0o555), *BASE])
    (path,) = get(layout.path, images).layers
    assert Path(path).stat().st_mode & 0o7777 == 0o555


def test_the_store_is_a_layout_for_others(images: Store, layout: Layout) -> None:
    digest = layout.add(BASE, name="")
    get(layout.path, images)
    index = json.loads((images.directory / "index.json").read_text())
    assert index["schemaVersion"] == 2
    assert [m["digest"] for m in index["manifests"]] == [digest]
    assert json.loads((images.directory / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_a_store_of_somebody_else_is_not_trusted(images: Store, layout: Layout) -> None:
    layout.add(BASE)
    get(layout.path, images)
    os.chown(images.directory, 65534, 65534)
    with pytest.raises(ImageError, match="belongs to uid 65534, and this is uid 0; name another"):
        get(layout.path, images)


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert default_store() == Path("/cache/pytest-isolate/images")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_store() == Path("/home/me/.cache/pytest-isolate/images")


# ---- from a rootfs to an image ---------------------------------------------------------------------------


def test_kinds_of_rootfs(images: Store, layout: Layout, tmp_path: Path) -> None:
    layout.add(BASE, name="one#1")
    layout.add(TOP, name="two")
    found = Images(images)
    assert found.get(HostRootfs()) is None
    assert found.get(PathRootfs(str(tmp_path))) is None
    image = found.get(PathRootfs(f"{layout.path}#two"))
    assert image is not None
    assert contents(image, "etc/name") == ["top"]
    assert found.get(PathRootfs(f"{layout.path}#two")) is image


def test_a_path_that_comes_to_be(images: Store, tmp_path: Path) -> None:
    found, rootfs = Images(images), PathRootfs(str(tmp_path / "later"))
    with pytest.raises(ImageError, match="is not there; name a directory"):
        found.get(rootfs)
    (tmp_path / "later").mkdir()
    assert found.get(rootfs) is None


def test_an_image_that_cannot_be_had_is_asked_for_once(images: Store, layout: Layout) -> None:
    layout.add(BASE)
    damage(layout, "layer")
    found = Images(images)
    errors = []
    for _ in range(2):
        with pytest.raises(ImageError) as info:
            found.get(PathRootfs(str(layout.path)))
        errors.append(info.value)
    assert errors[0] is errors[1]


def test_offline(images: Store, layout: Layout) -> None:
    layout.add(BASE)
    name = "localhost:1/some/image:1"
    with pytest.raises(ImageError, match=r"--isolate-pull=never forbids.*pytest-isolate image pull"):
        Images(images, Pull.NEVER).get(ImageRootfs(name))
    import_image(layout.path, images, own_platform(), name=name)
    for pull in (Pull.NEVER, Pull.MISSING):
        assert Images(images, pull).get(ImageRootfs(name)) is not None


def test_an_archive_of_archives(images: Store, layout: Layout, tmp_path: Path) -> None:
    """Compressed as a whole, as people have them on web pages."""
    layout.add(BASE)
    packed = tmp_path / "layout.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(layout.path, "./")
    assert contents(get(packed, images), "etc/name") == ["base"]


def test_a_layer_whose_root_hides_all_below(images: Store, layout: Layout) -> None:
    """overlayfs itself looks at the marks of directories in a root, and not at the root's own."""
    layout.add(BASE, [file(".wh..wh..opq"), file("only")], [file("top")])
    image = get(layout.path, images)
    assert [sorted(os.listdir(layer)) for layer in image.layers] == [["top"], ["only"]]


def test_an_image_that_names_no_architecture(images: Store, layout: Layout) -> None:
    layout.add(BASE, platform={"os": "linux"})
    stored = import_image(layout.path, images, own_platform())
    assert images.find(str(layout.path), own_platform()) == stored


def test_nobody_else_comes_into_the_store(images: Store, layout: Layout) -> None:
    layout.add(BASE)
    before = os.umask(0)
    try:
        get(layout.path, images)
    finally:
        os.umask(before)
    assert images.directory.stat().st_mode & 0o777 == 0o700


def test_a_layer_that_was_lost_is_brought_again(images: Store, layout: Layout) -> None:
    layout.add(BASE)
    stored = import_image(layout.path, images, own_platform())
    (blob,) = images.manifest(stored.manifest.digest).layers
    images.blobs.path(blob.digest).unlink()
    with pytest.raises(ImageError, match="get the image again"):
        images.image(stored)
    assert contents(get(layout.path, images), "etc/name") == ["base"]


def test_a_blob_that_is_about_to_be_used_again_is_not_pruned(images: Store, layout: Layout) -> None:
    """Between an import that finds it there, and the image's name in the index."""
    layout.add(BASE)
    stored = import_image(layout.path, images, own_platform())
    (blob,) = images.manifest(stored.manifest.digest).layers
    images.remove(stored.name)
    os.utime(images.blobs.path(blob.digest), (0, 0))
    assert images.blobs.has(blob.digest)
    prune(images)
    assert images.blobs.has(blob.digest)


# ---- what must not end the session ---------------------------------------------------------------------


SAVED = "a" * 64 + ".json"


@pytest.mark.parametrize(
    ("document", "entries", "text"),
    [
        ([{"RepoTags": 5, "Config": "x", "Layers": []}, {}], [], "RepoTags that are no list"),
        ([{"Config": "\ud800", "Layers": []}], [], "surrogates not allowed"),
        ([{"Config": "blobs", "Layers": []}], [directory("blobs")], "'blobs' of the image is no file"),
        ([{"Config": SAVED, "Layers": ["blobs"]}], [file(SAVED, "{}"), fifo("blobs")], "is no file"),
    ],
    ids=["tags", "surrogate", "directory", "FIFO"],
)
def test_absurd_archives_of_docker(
    images: Store, tmp_path: Path, document: Any, entries: list[Entry], text: str
) -> None:
    archive = tmp_path / "saved.tar"
    archive.write_bytes(tar_bytes([file("manifest.json", json.dumps(document)), *entries]))
    with pytest.raises(ImageError, match=text):
        get(archive, images)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"manifests": [5]}'])
def test_a_damaged_index(images: Store, layout: Layout, text: str) -> None:
    layout.add(BASE)
    get(layout.path, images)
    index = images.directory / "index.json"
    index.write_text(text)
    with pytest.raises(ImageError, match=r"index\.json is damaged.*; remove it"):
        images.images()
    index.unlink()
    get(layout.path, images)


def test_an_index_with_entries_of_others(images: Store, layout: Layout) -> None:
    layout.add(BASE)
    get(layout.path, images)
    index = images.directory / "index.json"
    document = json.loads(index.read_bytes())
    other = {"mediaType": "application/x", "digest": "sha256:" + "0" * 64, "size": 1, "annotations": []}
    document["manifests"].insert(0, other)
    index.write_text(json.dumps(document))
    (stored,) = images.images()
    assert stored.name == str(layout.path)
    assert stored.stamp


def test_a_store_that_cannot_be_there(tmp_path: Path, layout: Layout) -> None:
    """The tests that ask get an error, and not pytest."""
    layout.add(BASE)
    (tmp_path / "file").touch()
    session = Images(Store(tmp_path / "file/store"))
    for rootfs in (PathRootfs(str(layout.path)), PathRootfs("/absent", "name")):
        with pytest.raises(ImageError, match=r"cannot use the store .*--isolate-store"):
            session.get(rootfs)


def test_no_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(ImageError, match="XDG_CACHE_HOME"):
        default_store()

"""A root, read from outside as a process in it would see it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pytest_isolate.errors import ImageError
from pytest_isolate.kernel.tree import Tree


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path]:
    """(top, bottom)"""
    for name in ("top", "bottom"):
        (tmp_path / name).mkdir()
    return tmp_path / "top", tmp_path / "bottom"


def put(layer: Path, path: str, content: str = "") -> None:
    (layer / path).parent.mkdir(parents=True, exist_ok=True)
    (layer / path).write_text(content)


def test_links_are_of_the_root(layers: tuple[Path, Path]) -> None:
    top, bottom = layers
    put(bottom, "usr/lib/a")
    (bottom / "lib").symlink_to("usr/lib")
    (top / "abs").symlink_to("/lib")
    (top / "out").symlink_to("../../../../usr")
    (top / "loop").symlink_to("loop")
    tree = Tree((str(top), str(bottom)))
    assert tree.resolve("/abs/a") == "/usr/lib/a"
    assert tree.resolve("/out/lib/../lib/./a") == "/usr/lib/a"
    assert tree.resolve("/new/sub") == "/new/sub"
    assert tree.resolve("/..") == "/"
    with pytest.raises(ImageError, match="more than 40 links"):
        tree.resolve("/loop")
    assert tree.find("/abs/a") == str(bottom / "usr/lib/a")
    assert tree.find("/loop") is None


def test_layers_hide_what_is_below(layers: tuple[Path, Path]) -> None:
    top, bottom = layers
    for path in ("gone", "opaque/old", "file/below", "shared/a", "outer/inner"):
        put(bottom, path)
    os.mknod(top / "gone", stat.S_IFCHR, 0)
    os.mknod(top / "outer", stat.S_IFCHR, 0)
    put(top, "opaque/new")
    os.setxattr(top / "opaque", "user.overlay.opaque", b"y")
    put(top, "file")
    put(top, "shared/b")
    tree = Tree((str(top), str(bottom)))
    absent = ("/gone", "/opaque/old", "/file/below", "/outer", "/outer/inner")
    assert [tree.find(path) for path in absent] == [None] * 5
    assert tree.find("/opaque/new") == str(top / "opaque/new")
    assert tree.find("/shared/a") == str(bottom / "shared/a")


def test_a_link_below_a_directory_is_not_followed(layers: tuple[Path, Path], tmp_path: Path) -> None:
    """Where the upper layer has a directory, the link of the lower one is not seen."""
    top, bottom = layers
    put(tmp_path, "outside/secret")
    (top / "d").mkdir()
    (bottom / "d").symlink_to(tmp_path / "outside")
    assert Tree((str(top), str(bottom))).find("/d/secret") is None

"""What layers show together, how two roots differ, and that the same is written as the same bytes."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images.contents import (
    Contents,
    Entry,
    add_file,
    clamped,
    difference,
    directory,
    opened,
    symlink,
    write_tar,
)

DIR, LINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def archive(path: Path, *entries: tuple[str, bytes | str]) -> Path:
    """(name, content); of a text: "dir", "-> TARGET" or "= HARD LINK"."""
    with tarfile.open(path, "w") as tar:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            data = b""
            if isinstance(content, bytes):
                member.size, data = len(content), content
            elif content == "dir":
                member.type, member.mode = DIR, 0o755
            else:
                kind, member.linkname = content.split(" ", 1)
                member.type = LINK if kind == "->" else HARD
            tar.addfile(member, io.BytesIO(data))
    return path


def shown(contents: Contents) -> dict[str, object]:
    """As ``archive`` takes it, directories left away."""
    found: dict[str, object] = {}
    for path, entry in contents.items():
        if entry.kind == tarfile.REGTYPE:
            found[path] = entry.open().read()
        elif entry.kind == LINK:
            found[path] = f"-> {entry.target}"
        elif entry.kind != DIR:
            found[path] = entry.kind
    return found


def stack(tmp_path: Path, *layers: list[tuple[str, bytes | str]]) -> dict[str, object]:
    paths = [archive(tmp_path / f"{i}.tar", *layer) for i, layer in enumerate(layers)]
    with opened(paths, tmp_path) as contents:
        return shown(contents)


LOWER: list[tuple[str, bytes | str]] = [
    ("./", "dir"),
    ("./a/", "dir"),
    ("./a/one", b"1"),
    ("./a/two", b"2"),
    ("./b", "-> a"),
]


@pytest.mark.parametrize(
    ("upper", "expected"),
    [
        ([], {"a/one": b"1", "a/two": b"2", "b": "-> a"}),
        ([("a/one", b"new")], {"a/one": b"new", "a/two": b"2", "b": "-> a"}),
        ([("a/.wh.one", b"")], {"a/two": b"2", "b": "-> a"}),
        ([(".wh.a", b"")], {"b": "-> a"}),
        ([(".wh.b", b""), ("b/", "dir"), ("b/c", b"3")], {"a/one": b"1", "a/two": b"2", "b/c": b"3"}),
        ([("a/new", b"3"), ("a/.wh..wh..opq", b"")], {"a/new": b"3", "b": "-> a"}),
        ([("a/.wh..wh..opq", b""), ("a/new", b"3")], {"a/new": b"3", "b": "-> a"}),
        ([("a", b"a file")], {"a": b"a file", "b": "-> a"}),
        # Into a directory that is a link below: the layer has a directory of its own there.
        ([("b/c", b"3")], {"a/one": b"1", "a/two": b"2", "b/c": b"3"}),
        # Into one that is a link of the same layer: where the link leads.
        (
            [("l", "-> a"), ("l/c", b"3")],
            {"a/one": b"1", "a/two": b"2", "a/c": b"3", "b": "-> a", "l": "-> a"},
        ),
        ([(".wh..wh.plnk", b"")], {"a/one": b"1", "a/two": b"2", "b": "-> a"}),
        ([("../../x", b"4")], {"a/one": b"1", "a/two": b"2", "b": "-> a", "x": b"4"}),
        ([("h", b"5"), ("i", "= h")], {"a/one": b"1", "a/two": b"2", "b": "-> a", "h": b"5", "i": b"5"}),
    ],
)
def test_layers_together(upper: list[tuple[str, bytes | str]], expected: object, tmp_path: Path) -> None:
    assert stack(tmp_path, LOWER, upper) == expected


def test_a_hard_link_to_what_a_layer_above_replaces_keeps_its_content(tmp_path: Path) -> None:
    lower: list[tuple[str, bytes | str]] = [("a", b"old"), ("b", "= a")]
    assert stack(tmp_path, lower, [("a", b"new")]) == {"a": b"new", "b": b"old"}
    assert stack(tmp_path, lower, [(".wh.a", b"")]) == {"b": b"old"}


@pytest.mark.parametrize(
    "entries",
    [
        [("a", "= b")],
        [("d", "dir"), ("a", "= d")],
        [("a", "-> b"), ("b", "-> a"), ("a/c", b"")],
    ],
)
def test_archives_that_cannot_be(entries: list[tuple[str, bytes | str]], tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        stack(tmp_path, entries)


def root(**files: bytes) -> Contents:
    contents = {"": directory()}
    for path, data in files.items():
        add_file(contents, path.replace("__", "/"), data)
    return contents


def test_a_difference_is_what_changed_with_its_directories() -> None:
    lower = root(etc__a=b"1", etc__b=b"2", usr__c=b"3", var__log__d=b"4")
    whole = root(etc__a=b"1", etc__b=b"!", usr__c=b"3", var__e=b"5")
    layer = difference(lower, whole)
    assert sorted(layer) == ["", "etc", "etc/b", "var", "var/.wh.log", "var/e"]


def test_nothing_differs_from_itself() -> None:
    assert difference(root(a=b"1", b__c=b"2"), root(a=b"1", b__c=b"2")) == {}


def test_hard_links_come_together() -> None:
    lower = root(a=b"1", c=b"3")
    lower["b"] = lower["a"]
    whole = root(a=b"2", c=b"3")
    whole["b"] = whole["a"]
    assert sorted(difference(lower, whole)) == ["", "a", "b"]
    whole = root(a=b"1", c=b"3", d=b"1")
    whole["b"] = whole["d"] = whole["a"]
    assert sorted(difference(lower, whole)) == ["", "a", "b", "d"]


def test_the_difference_on_top_gives_the_whole(tmp_path: Path) -> None:
    lower = root(etc__a=b"1", usr__lib__b=b"2", usr__lib__c=b"3", d=b"4", f__g=b"5")
    whole = root(etc__a=b"1", usr__lib__b=b"x", d__e=b"6", f=b"7")
    whole["l"] = symlink("etc/a")
    whole["h"] = whole["f"]
    paths = []
    for name, contents in (("lower", lower), ("layer", difference(lower, whole))):
        paths.append(tmp_path / name)
        with open(paths[-1], "wb") as file:
            write_tar(clamped(contents, 5), file)
    with opened(paths, tmp_path) as found:
        assert shown(found) == shown(whole)
        assert found == clamped(whole, 5)
        assert found["h"] is found["f"]


def test_all_attributes_are_written(tmp_path: Path) -> None:
    entry = Entry(
        kind=tarfile.REGTYPE,
        mode=0o4711,
        uid=3_000_000,
        gid=7,
        mtime_s=5,
        xattrs=(("security.capability", "x"), ("user.a", "ü")),
        size_bytes=3,
        open=lambda: io.BytesIO(b"abc"),
    )
    device = Entry(kind=tarfile.CHRTYPE, mode=0o666, device=(1, 3))
    written = tmp_path / "a.tar"
    with open(written, "wb") as file:
        write_tar({"": directory(), "x" * 200: entry, "dev": device}, file)
    with opened([written], tmp_path) as found:
        assert found["x" * 200] == entry
        assert found["dev"] == device


def test_the_order_of_making_does_not_matter() -> None:
    one, other = io.BytesIO(), io.BytesIO()
    write_tar(root(a=b"1", b__c=b"2"), one)
    write_tar(dict(reversed(root(b__c=b"2", a=b"1").items())), other)
    assert one.getvalue() == other.getvalue()


def test_nothing_is_younger() -> None:
    contents = root(a=b"1")
    contents["old"] = Entry(kind=tarfile.REGTYPE, mode=0o644, mtime_s=3)
    contents["b"] = contents["a"]
    found = clamped(contents, 10)
    assert {path: entry.mtime_s for path, entry in found.items()} == {"": 10, "a": 10, "old": 3, "b": 10}
    assert found["a"] is found["b"]


def test_layers_may_be_compressed(tmp_path: Path) -> None:
    for kind in ("gz", "bz2", "xz"):
        with tarfile.open(tmp_path / kind, f"w:{kind}") as tar:  # type: ignore[call-overload]
            member = tarfile.TarInfo(kind)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    with opened([tmp_path / "gz", tmp_path / "bz2", tmp_path / "xz"], tmp_path) as contents:
        assert shown(contents) == {"gz": b"x", "bz2": b"x", "xz": b"x"}

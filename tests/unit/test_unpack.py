"""Layers become directories as they should, and none of a stranger's archives does harm."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images.unpack import Bounds, Unpacked, unpack

from ..archives import Entry, device, directory, fifo, file, hardlink, symlink, tar_bytes

IS_ROOT = os.geteuid() == 0
BOUNDS = Bounds()
OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


@pytest.fixture
def into(tmp_path: Path) -> Callable[..., Path]:
    """Unpack entries, or bytes, into a directory."""

    def into(*entries: Entry, data: bytes | None = None, bounds: Bounds = BOUNDS) -> Path:
        archive, target = tmp_path / "layer.tar", tmp_path / "root"
        archive.write_bytes(tar_bytes(entries) if data is None else data)
        target.mkdir()
        unpack(archive, target, bounds)
        return target

    return into


def is_opaque(path: Path) -> bool:
    found = [name for name in OPAQUE if name in os.listxattr(path)]
    assert all(os.getxattr(path, name) == b"y" for name in found)
    return bool(found)


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


# ---- as it should be ---------------------------------------------------------------------------------


def test_files_links_modes_and_times(into: Callable[..., Path]) -> None:
    root = into(
        directory("./", mode=0o755),
        directory("./sub", mode=0o2555),
        file("./sub/run", "#!", mode=0o4711, mtime=1_600_000_000),
        hardlink("./sub/again", "./sub/run"),
        symlink("./sub/link", "/etc/passwd"),
        symlink("./up", "sub/../sub/run"),
        fifo("./sub/pipe"),
        file("made/parents/too", "x"),
    )
    run = (root / "sub/run").stat()
    assert (stat.S_IMODE(run.st_mode), run.st_mtime, run.st_nlink) == (0o4711, 1_600_000_000, 2)
    assert stat.S_IMODE((root / "sub").stat().st_mode) == 0o2555
    assert (root / "sub").stat().st_mtime == 1_700_000_000
    assert (root / "sub/again").samefile(root / "sub/run")
    assert os.readlink(root / "sub/link") == "/etc/passwd"
    assert stat.S_ISFIFO((root / "sub/pipe").lstat().st_mode)
    assert (root / "made/parents/too").read_text() == "x"


@pytest.mark.skipif(not IS_ROOT, reason="only root gives files away")
def test_owners(into: Callable[..., Path]) -> None:
    root = into(file("a", uid=1234, gid=4321), directory("d", uid=77, gid=78), symlink("l", "a"))
    found = [(s.st_uid, s.st_gid) for s in (os.lstat(root / n) for n in "adl")]
    assert found == [(1234, 4321), (77, 78), (0, 0)]


def test_what_comes_twice_is_as_it_comes_last(into: Callable[..., Path]) -> None:
    root = into(
        file("a", "old"),
        file("a", "new"),
        symlink("b", "a"),
        file("b", "file"),
        directory("c"),
        symlink("c", "a"),
        directory("c"),
        directory("d", mode=0o700),
        directory("d", mode=0o711),
    )
    assert [(root / n).read_text() for n in "ab"] == ["new", "file"]
    assert (root / "c").is_dir()
    assert not (root / "c").is_symlink()
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o711


def test_paths_go_through_links_inside_the_root(into: Callable[..., Path]) -> None:
    root = into(
        directory("usr/lib"),
        symlink("lib", "usr/lib"),
        symlink("usr/abs", "/usr/lib"),
        file("lib/one", "1"),
        file("usr/abs/two", "2"),
    )
    assert sorted(os.listdir(root / "usr/lib")) == ["one", "two"]


def test_directories_that_cannot_be_written_to_get_their_files(into: Callable[..., Path]) -> None:
    root = into(directory("ro", mode=0o555), directory("ro/none", mode=0o000), file("ro/none/file", "x"))
    assert stat.S_IMODE((root / "ro").stat().st_mode) == 0o555
    (root / "ro/none").chmod(0o700)
    assert (root / "ro/none/file").read_text() == "x"


def test_whiteouts_and_opaque_directories(into: Callable[..., Path]) -> None:
    root = into(
        file("etc/.wh.gone"),
        directory("new"),
        file("new/.wh..wh..opq"),
        file("new/only", "x"),
        file("late/only", "x"),
        file("late/.wh..wh..opq"),
        file(".wh.again"),
        file("again", "here"),
        file(".wh.again-dir"),
        directory("again-dir"),
        directory("before"),
        file(".wh.before"),
        file(".wh..wh.plnk", "aufs's own"),
    )
    assert is_whiteout(root / "etc/gone")
    assert [is_opaque(root / n) for n in ("new", "late", "etc", "again-dir", "before")] == [
        True,
        True,
        False,
        True,
        True,
    ]
    assert (root / "again").read_text() == "here"
    assert not [name for _, _, names in os.walk(root) for name in names if name.startswith(".wh.")]


def test_a_directory_hides_what_a_whiteout_hid_by_another_path(into: Callable[..., Path]) -> None:
    root = into(directory("usr/lib"), symlink("lib", "usr/lib"), file("lib/.wh.a"), directory("usr/lib/a"))
    assert is_opaque(root / "usr/lib/a")


def test_extended_attributes(into: Callable[..., Path]) -> None:
    kept = {"SCHILY.xattr.user.note": "no\udcffte"}
    root = into(file("a", pax_headers=kept), file("b", pax_headers={"SCHILY.xattr.security.selinux": "x"}))
    assert os.getxattr(root / "a", "user.note") == b"no\xffte"
    assert os.listxattr(root / "b") == []


def test_what_is_left_away_is_counted(tmp_path: Path) -> None:
    archive = tmp_path / "layer.tar"
    entries = [
        device("dev/null"),
        device("./dev/sub/zero"),
        file("x", "1234", pax_headers={"SCHILY.xattr.security.selinux": "x"}),
    ]
    archive.write_bytes(tar_bytes(entries))
    (tmp_path / "root").mkdir()
    unpacked = unpack(archive, tmp_path / "root")
    assert unpacked == Unpacked(
        diff_id=unpacked.diff_id,
        size_bytes=4,
        entries=3,
        skipped={"device node": 2, "extended attribute": 1},
    )
    assert os.listdir(tmp_path / "root/dev/sub") == []


def test_sparse_files(tmp_path: Path) -> None:
    source, archive = tmp_path / "sparse", tmp_path / "layer.tar"
    with open(source, "wb") as out:
        out.write(b"begin")
        out.seek(2**20)
        out.write(b"end")
    subprocess.run(["tar", "--sparse", "-C", tmp_path, "-cf", archive, "sparse"], check=True)
    (tmp_path / "root").mkdir()
    unpack(archive, tmp_path / "root")
    assert (tmp_path / "root/sparse").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 2**18 - 1, 2**18, 2**18 + 512])
def test_files_of_every_length(into: Callable[..., Path], size: int) -> None:
    """tarfile goes back one byte where a member ends on a block."""
    data = os.urandom(size)
    root = into(file("a", data), file("b", "next"))
    assert (root / "a").read_bytes() == data
    assert (root / "b").read_text() == "next"


def test_every_compression(into: Callable[..., Path], tmp_path: Path) -> None:
    zstd = importlib.import_module("backports.zstd")
    plain = tar_bytes([file("a", "x" * 5000)])
    compress: list[Callable[[bytes], bytes]] = [
        lambda data: data,
        gzip.compress,
        bz2.compress,
        lzma.compress,
        zstd.compress,
    ]
    for number, how in enumerate(compress):
        archive, root = tmp_path / f"{number}.tar", tmp_path / f"{number}"
        archive.write_bytes(how(plain))
        root.mkdir()
        unpack(archive, root)
        assert (root / "a").read_text() == "x" * 5000


# ---- as nobody means well with ------------------------------------------------------------------------


def _unknown() -> Entry:
    info, data = file("a")
    info.type = b"Z"
    return info, data


BAD: dict[str, tuple[list[Entry], str]] = {
    "dotdot": ([file("../evil", "x")], "may lead out of the root"),
    "dotdot inside": ([file("a/../../evil", "x")], "may lead out of the root"),
    "link out": ([symlink("a", "../evil")], "out of the root"),
    "link out of a directory": ([symlink("d/a", "../../evil")], "out of the root"),
    "link to nothing": ([symlink("a", "")], "link to nothing"),
    "hard link out": ([hardlink("a", "../evil")], "may lead out of the root"),
    "hard link to what is not there": ([hardlink("a", "etc/passwd")], "hard link to 'etc/passwd'"),
    "hard link to a directory": ([directory("d"), hardlink("a", "d")], "hard link to the directory"),
    "hard link to itself": ([file("a", "x"), hardlink("a", "a")], "hard link to itself"),
    "device": ([device("etc/null")], "device node outside /dev"),
    "path through a dangling link": ([symlink("a", "nowhere"), file("a/x", "x")], "leads nowhere"),
    "path through a file": ([file("a", "x"), file("a/x", "x")], "cannot unpack"),
    "directory with content becomes a file": ([file("a/x", "x"), file("a", "x")], "directory with content"),
    "whiteout of nothing": ([file("d/.wh.", "")], "hides nothing"),
    "whiteout of dotdot": ([file("d/.wh...", "")], "hides nothing"),
    "overlay xattr": (
        [file("a", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/"})],
        "overlayfs's own",
    ),
    "user overlay xattr": (
        [file("a", pax_headers={"SCHILY.xattr.user.overlay.opaque": "y"})],
        "overlayfs's own",
    ),
    "unknown type": ([_unknown()], "of the type"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_archives_are_refused(into: Callable[..., Path], tmp_path: Path, name: str) -> None:
    entries, text = BAD[name]
    with pytest.raises(ImageError, match=text):
        into(*entries)
    assert not (tmp_path / "evil").exists()


def test_links_lead_nowhere_outside(into: Callable[..., Path], tmp_path: Path) -> None:
    """Absolute links are of the root: writing through one stays in it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = str(outside)[1:]
    root = into(
        directory(inside),
        symlink("a", str(outside)),
        file("a/decoy", "x"),
        symlink("f", f"{outside}/decoy"),
        file("f", "y"),
        hardlink("h", "a/decoy"),
    )
    assert os.listdir(outside) == []
    assert (root / inside / "decoy").read_text() == "x"
    assert (root / "f").read_text() == "y"
    assert (root / "h").read_text() == "x"


def test_modes_of_directories_are_not_set_through_links(into: Callable[..., Path], tmp_path: Path) -> None:
    """A directory that has become a link by the time its mode is set."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    before = outside.stat()
    into(
        directory("b"),
        symlink("a", "b"),
        directory("a/x", mode=0o777),
        symlink("b/x", str(outside)),
    )
    after = outside.stat()
    assert (after.st_mode, after.st_mtime, after.st_uid) == (before.st_mode, before.st_mtime, before.st_uid)


def test_bounds(into: Callable[..., Path]) -> None:
    entries = [file("a", "x" * 100), file("b", "x" * 100)]
    with pytest.raises(ImageError, match=r"unpacks to more than 150 B"):
        into(*entries, bounds=Bounds(unpacked_bytes=150))


def test_too_many_entries(into: Callable[..., Path]) -> None:
    with pytest.raises(ImageError, match="more than 1 entries"):
        into(file("a"), file("b"), bounds=Bounds(entries=1))


def test_a_decompression_bomb(tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte: refused while it is read, not when the disk is full."""
    info = tarfile.TarInfo("zeros")
    info.size = 2**30
    archive = tmp_path / "bomb.tar.gz"
    with gzip.open(archive, "wb", 9) as out:
        out.write(info.tobuf())
        for _ in range(1024):
            out.write(bytes(2**20))
    (tmp_path / "root").mkdir()
    with pytest.raises(ImageError, match="decompression bomb"):
        unpack(archive, tmp_path / "root")
    assert (tmp_path / "root/zeros").stat().st_size <= 2**29


def test_a_header_of_a_gigabyte(into: Callable[..., Path]) -> None:
    """tarfile would read an extended header whole."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**30
    with pytest.raises(ImageError, match="headers of more than"):
        into(data=info.tobuf() + bytes(4096))


@pytest.mark.parametrize("cut", [100, 512, 700, 1100])
def test_torn_archives(into: Callable[..., Path], cut: int) -> None:
    with pytest.raises(ImageError):
        into(data=tar_bytes([file("a", "x" * 600)])[:cut])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense" * 1000,
        gzip.compress(b"nonsense" * 1000),
        gzip.compress(tar_bytes([file("a", os.urandom(5000))]))[:-100],
        lzma.compress(tar_bytes([file("a", os.urandom(5000))]))[:-100],
        bz2.compress(tar_bytes([file("a", os.urandom(5000))]))[:-100],
        b"BZh9" + b"\xff" * 100,
        b"\x1f\x8b" + b"\xff" * 100,
        b"\x28\xb5\x2f\xfd" + b"\xff" * 100,
    ],
    ids=["empty", "nonsense", "gz nonsense", "gz torn", "xz torn", "bz2 torn", "bz2", "gz", "zstd"],
)
def test_what_is_no_archive(into: Callable[..., Path], data: bytes) -> None:
    with pytest.raises(ImageError):
        into(data=data)


def test_zstd_without_a_library(into: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    with pytest.raises(ImageError, match=r"pip install 'pytest-isolate-ns\[images\]'"):
        into(data=b"\x28\xb5\x2f\xfd" + bytes(100))


def test_a_negative_size(into: Callable[..., Path]) -> None:
    """Base 256 numbers may be negative (CVE-2025-8194 of CPython's tarfile)."""
    block = bytearray(tarfile.TarInfo("a").tobuf())
    block[124:136] = b"\xff" * 12
    block[148:156] = b"        "
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    with pytest.raises(ImageError):
        into(data=bytes(block) + bytes(10240))


def _sparse_without_its_rest() -> bytes:
    block = bytearray(_member(type=tarfile.GNUTYPE_SPARSE))
    block[386:398] = b"00000000000\0"
    block[482] = 1  # "isextended": another block follows
    block[148:156] = b"        "
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def _member(**fields: Any) -> bytes:
    info = tarfile.TarInfo("a")
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


ABSURD = {
    "uid of 40 bits": (_member(uid=2**40), "which nobody is"),
    "negative gid": (_member(gid=-5), "which nobody is"),
    "nobody's uid": (_member(uid=2**32 - 1), "which nobody is"),
    "sparse header without its rest": (_sparse_without_its_rest(), "no tar archive"),
    "a thousand names of one member": (
        (_member(type=tarfile.GNUTYPE_LONGNAME, size=2) + b"b".ljust(512, b"\0")) * 1000 + _member(),
        "no tar archive",
    ),
    "a megabyte of headers": (
        (_member(type=tarfile.GNUTYPE_LONGNAME, size=2**19) + b"b".ljust(2**19, b"\0")) * 3 + _member(),
        "headers of more than 1.0 MiB",
    ),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_headers_are_refused(into: Callable[..., Path], name: str) -> None:
    """tarfile lets many kinds of exception out, and each would end the pytest session."""
    data, text = ABSURD[name]
    with pytest.raises(ImageError, match=text):
        into(data=data)


def test_many_global_headers(into: Callable[..., Path], tmp_path: Path) -> None:
    """tarfile copies them for each member: a small archive would take hours."""
    archive = tmp_path / "global.tar"
    headers = {f"key{number}": "" for number in range(2000)}
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT, pax_headers=headers) as out:
        out.addfile(tarfile.TarInfo("a"))
    with pytest.raises(ImageError, match="global headers"):
        into(data=archive.read_bytes())


def test_directories_too_deep_to_be_removed(into: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="more than 256 directories"):
        into(file("a/" * 300 + "b"))
    (tmp_path / "root").rename(tmp_path / "first")
    steps = [directory("x/" * 200), symlink("l", "x/" * 199 + "x"), directory("l/" + "x/" * 200)]
    with pytest.raises(ImageError, match="more than 256 directories"):
        into(*steps, file("l/" + "x/" * 200 + "b"))


def test_a_sparse_file_takes_no_space(into: Callable[..., Path]) -> None:
    """A header of 512 bytes can promise gigabytes of zeros."""
    block = bytearray(_member(type=tarfile.GNUTYPE_SPARSE))
    block[386:398] = block[398:410] = b"00000000000\0"
    block[483:495] = f"{2**30:011o}\0".encode()
    block[148:156] = b"        "
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    status = (into(data=bytes(block) + bytes(1024)) / "a").stat()
    assert status.st_size == 2**30
    assert status.st_blocks * 512 < 2**20


def test_nothing_is_left_open(into: Callable[..., Path]) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ImageError):
        into(directory("a"), file("a/b/c"), file("../evil"))
    assert os.listdir("/proc/self/fd") == before

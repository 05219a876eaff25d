"""Copying out what a test has written, on directories that look like a sandbox's scratch tmpfs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_isolate.sandbox.written import MAX_DEPTH, Layer, Written

MIB = 2**20


class Scratch:
    """A scratch directory with one layer for ``inside``."""

    def __init__(self, path: Path, inside: Path) -> None:
        self.layer = path / "upper/1"
        self.layer.mkdir(parents=True)
        self.inside = inside
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
        self.written = Written(self.fd, (Layer("upper/1", str(inside)),), frozenset())

    def write(self, name: str, data: str = "new", mode: int = 0o644) -> Path:
        path = self.layer / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(data)
        path.chmod(mode)
        return path


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "host").mkdir()
    return tmp_path / "host"


@pytest.fixture
def scratch(tmp_path: Path, host: Path) -> Iterator[Scratch]:
    scratch = Scratch(tmp_path / "scratch", host)
    yield scratch
    os.close(scratch.fd)


def files(directory: Path) -> dict[str, str]:
    return {str(p.relative_to(directory)): p.read_text() for p in sorted(directory.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("glob", "copied"),
    [
        ("out/a.txt", {"out/a.txt"}),
        ("out/*.txt", {"out/a.txt", "out/b.txt"}),
        ("*/?.txt", {"out/a.txt", "out/b.txt"}),
        ("out/[a-b].*", {"out/a.txt", "out/b.txt"}),
        ("out/[!a].txt", {"out/b.txt"}),
        ("out/**", {"out/a.txt", "out/b.txt", "out/deep/er/c.png", "out/deep/a.txt"}),
        ("**/a.txt", {"out/a.txt", "out/deep/a.txt"}),
        ("out/**/*.png", {"out/deep/er/c.png"}),
        ("**", {"out/a.txt", "out/b.txt", "out/deep/er/c.png", "out/deep/a.txt", "top"}),
        ("out", set()),
        ("out/a", set()),
        ("ou.", set()),
    ],
)
def test_globs(scratch: Scratch, host: Path, glob: str, copied: set[str]) -> None:
    for name in ("out/a.txt", "out/b.txt", "out/deep/a.txt", "out/deep/er/c.png", "top"):
        scratch.write(name)
    result = scratch.written.copy_artifacts((f"{host}/{glob}",), MIB)
    assert result.problems == []
    assert set(files(host)) == copied
    assert result.files == len(copied)


def test_replaces_what_is_there_and_leaves_no_half(scratch: Scratch, host: Path) -> None:
    (host / "snapshot").write_text("old")
    scratch.write("snapshot", "new", mode=0o4751)
    assert scratch.written.copy_artifacts((f"{host}/*",), MIB).size_bytes == 3
    assert files(host) == {"snapshot": "new"}
    assert (host / "snapshot").stat().st_mode & 0o7777 == 0o751  # setuid is not for a test to give


def test_links_of_the_user_on_the_way_to_the_glob_count(scratch: Scratch, host: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(host)
    scratch.write("a")
    scratch.written.copy_artifacts((f"{tmp_path}/link/*",), MIB)
    assert files(host) == {"a": "new"}


def test_nothing_is_written_through_links_below_the_glob(
    scratch: Scratch, host: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (host / "out").symlink_to(tmp_path / "elsewhere")
    (host / "file").symlink_to(tmp_path / "elsewhere/target")
    scratch.write("out/a")
    scratch.write("file")
    result = scratch.written.copy_artifacts((f"{host}/**",), MIB)
    assert files(tmp_path / "elsewhere") == {}
    assert result.problems == [f"{host}/out/a: Not a directory"]
    assert not (host / "file").is_symlink()  # replaced, as a file


def test_what_is_no_regular_file_is_not_opened(scratch: Scratch, host: Path) -> None:
    (scratch.layer / "link").symlink_to("/etc/passwd")
    (scratch.layer / "outside").symlink_to("/etc")
    os.mkfifo(scratch.layer / "pipe")
    assert scratch.written.copy_artifacts((f"{host}/**",), MIB).files == 0
    assert files(host) == {}


def test_is_bounded_in_size(scratch: Scratch, host: Path) -> None:
    os.truncate(scratch.write("a-sparse"), 2**40)
    scratch.write("b-small")
    result = scratch.written.copy_artifacts((f"{host}/*",), MIB)
    assert files(host) == {"b-small": "new"}
    assert result.problems == [f"{host}/a-sparse: all together would be more than 1.0 MiB"]


def test_is_bounded_in_depth(scratch: Scratch, host: Path) -> None:
    directory = os.open(scratch.layer, os.O_RDONLY)
    for _ in range(1200):  # deeper than Python recurses, and than there are descriptors
        os.mkdir("d", dir_fd=directory)
        inner = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(directory)
    scratch.write("z")
    result = scratch.written.copy_artifacts((f"{host}/**",), MIB)
    assert files(host) == {"z": "new"}
    assert result.problems[0].endswith(f"more than {MAX_DEPTH} directories deep")
    assert scratch.written.count() == (None, None)
    subprocess.run(["rm", "-r", scratch.layer], check=True)  # pytest's own clean-up of old runs recurses


def test_names_of_any_bytes(scratch: Scratch, host: Path) -> None:
    Path(os.fsdecode(os.fsencode(scratch.layer) + b"/\xff\n*")).write_text("odd")
    (host / os.fsdecode(b"\xff\n*")).mkdir()
    result = scratch.written.copy_artifacts((f"{host}/**",), MIB)
    assert result.problems == [f"{host}/\\xff\n*: Is a directory"]


def test_keeps_everything_below_a_directory(scratch: Scratch, host: Path, tmp_path: Path) -> None:
    scratch.write("etc/hosts")
    scratch.written.keep(str(tmp_path), "kept", MIB)
    assert files(tmp_path / "kept") == {f"{str(host)[1:]}/etc/hosts": "new"}


def test_count_leaves_placeholders_out(scratch: Scratch, host: Path) -> None:
    scratch.write("a", "12345")
    scratch.write("mounted", "")
    counted = Written(scratch.fd, scratch.written.layers, frozenset({f"{host}/mounted"}))
    assert counted.count() == (1, 5)

"""What a test has changed, on directories that look like a sandbox's layers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_isolate.runner.observe import paths
from pytest_isolate.sandbox.changes import Change, Rules, changes_in
from pytest_isolate.sandbox.written import Layer


class Scratch:
    def __init__(self, path: Path) -> None:
        self.upper, self.lower = path / "upper", path / "lower"
        self.upper.mkdir()
        self.lower.mkdir()
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY)

    def changes(self, *declared: str, scaffold: tuple[str, ...] = ()) -> list[str]:
        rules = Rules(lambda path: path in (*declared, *scaffold), frozenset(scaffold))
        return [*map(show, changes_in(self.fd, (Layer("upper", "/at", (str(self.lower),)),), rules))]


def show(change: Change) -> str:
    slash = "/" * change.is_directory
    return f"{change.deed.value} {change.path}{slash} {change.files} {change.size_bytes}"


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    scratch = Scratch(tmp_path)
    yield scratch
    os.close(scratch.fd)


def test_nothing(scratch: Scratch) -> None:
    assert scratch.changes() == []


def test_what_goes_away_meanwhile_is_not_there(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody whom the test has left is deleting."""
    for name in ("old", "new/inner", "new/inner/most"):
        (scratch.upper / name).mkdir(parents=True)
    (scratch.lower / "old").mkdir()
    (scratch.upper / "empty").touch()
    (scratch.upper / "last").write_text("x")
    open_ = os.open

    def vanish(path: str, flags: int, **kwargs: int) -> int:
        if path in ("old", "inner", "empty"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return open_(path, flags, **kwargs)

    monkeypatch.setattr(os, "open", vanish)
    assert scratch.changes() == ["created /at/last 1 1"]


def test_files(scratch: Scratch) -> None:
    (scratch.lower / "old").write_text("old")
    (scratch.upper / "old").write_text("changed")
    (scratch.upper / "new").write_text("new")
    (scratch.upper / "link").symlink_to("/etc")
    os.mkfifo(scratch.upper / "fifo")
    assert scratch.changes() == [
        "created /at/fifo 1 0",
        "created /at/link 1 0",
        "created /at/new 1 3",
        "changed /at/old 1 7",
    ]
    assert scratch.changes("/at/fifo", "/at/link", "/at/new", "/at/old") == []


def test_the_rights_of_a_directory(scratch: Scratch) -> None:
    for name, before, after in (("same", 0o755, 0o755), ("open", 0o750, 0o777), ("mount", 0o700, 0o755)):
        for base, mode in ((scratch.lower, before), (scratch.upper, after)):
            (base / name).mkdir()
            (base / name).chmod(mode)
    (scratch.upper / "open" / "new").write_text("new")
    os.utime(scratch.upper / "same", (1, 1))
    found = ["changed mode or owner of /at/open 0 0", "created /at/open/new 1 3"]
    assert scratch.changes(scaffold=("/at/mount",)) == found
    assert scratch.changes("/at/open", scaffold=("/at/mount",)) == found[1:]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_an_owner(scratch: Scratch) -> None:
    for base in (scratch.lower, scratch.upper):
        (base / "directory").mkdir()
        (base / "file").touch()
        os.utime(base / "file", (1, 1))
    os.chown(scratch.upper / "directory", 1, 1)
    os.chown(scratch.upper / "file", -1, 1)
    assert scratch.changes() == ["changed mode or owner of /at/directory 0 0", "changed /at/file 1 0"]


def test_a_copy_that_is_as_it_was(scratch: Scratch) -> None:
    for directory in (scratch.lower, scratch.upper):
        (directory / "file").write_text("same")
        (directory / "file").chmod(0o644)
        os.utime(directory / "file", (1, 1))
    assert scratch.changes() == []
    (scratch.upper / "file").chmod(0o600)
    assert scratch.changes() == ["changed /at/file 1 4"]


def test_directories(scratch: Scratch) -> None:
    """New ones as a whole; those that are there below are only ways to what is in them."""
    (scratch.lower / "old").mkdir()
    (scratch.upper / "old/new/deep").mkdir(parents=True)
    (scratch.upper / "old/new/deep/a").write_text("abc")
    (scratch.upper / "old/new/b").write_text("de")
    (scratch.upper / "empty").mkdir()
    assert scratch.changes() == ["created /at/empty/ 0 0", "created /at/old/new/ 2 5"]
    assert scratch.changes("/at/empty", "/at/old/new/b") == ["created /at/old/new/ 1 3"]
    assert scratch.changes("/at/empty", "/at/old/new/deep/a", "/at/old/new/b") == []


def test_directories_for_mounts_are_not_new(scratch: Scratch) -> None:
    (scratch.upper / "home/me").mkdir(parents=True)
    (scratch.upper / "home/me/file").write_text("abc")
    assert scratch.changes(scaffold=("/at/home", "/at/home/me")) == ["created /at/home/me/file 1 3"]


def test_deleted(scratch: Scratch) -> None:
    (scratch.lower / "file").touch()
    (scratch.lower / "directory").mkdir()
    for name in ("file", "directory", "only ever there"):
        try:
            os.mknod(scratch.upper / name, 0o020000, 0)  # unprivileged too, since Linux 5.8
        except PermissionError:
            pytest.skip("this kernel refuses a whiteout")
    assert scratch.changes() == ["deleted /at/directory/ 1 0", "deleted /at/file 1 0"]


def mark(path: Path, name: str) -> None:
    for space in ("trusted", "user"):
        try:
            os.setxattr(path, f"{space}.overlay.{name}", b"y")
        except OSError:
            continue
        return
    pytest.skip("the file system has no extended attributes")


def test_marks_as_attributes(scratch: Scratch) -> None:
    (scratch.lower / "file").touch()
    (scratch.upper / "file").touch()
    mark(scratch.upper / "file", "whiteout")
    (scratch.lower / "again").mkdir()
    (scratch.upper / "again").mkdir()
    (scratch.upper / "again/new").write_text("abc")
    mark(scratch.upper / "again", "opaque")
    assert scratch.changes() == ["replaced /at/again/ 1 3", "deleted /at/file 1 0"]


def test_no_link_is_followed(scratch: Scratch) -> None:
    (scratch.lower / "old").mkdir()
    (scratch.upper / "old").symlink_to(scratch.lower)
    assert scratch.changes() == ["changed /at/old 1 0"]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/project/out/a", "out/a"),
        ("/projects/a", "/projects/a"),
        ("/tmp/tmpab_12cd9/a", "/tmp/tmp*/a"),
        ("/tmp/tmpab_12cd9.txt", "/tmp/tmp*.txt"),
        ("/tmp/template12", "/tmp/template12"),
        ("/tmp/pytest-of-me/pytest-7/test_a0/x", "tmp_path/test_a0/x"),
        ("/home/me/.cache/x", "~/.cache/x"),
        ("/etc/\udcff", "/etc/\\xff"),
    ],
)
def test_paths_read_the_same(path: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.shown(path, "/project") == shown

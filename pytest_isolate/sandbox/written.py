"""What a test has written: found in its writable layers, counted, and copied out to where the user asked.

The layers are directories of the scratch tmpfs and their content is the untrusted test's. They are walked
through descriptors, never through a link, and only what is a regular file is ever opened.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pytest_isolate.units import format_size

__all__ = ["Copied", "Layer", "Written", "matcher"]

MAX_COUNTED_FILES = 100_000
MAX_COPIED_FILES = 10_000
MAX_DEPTH = 200  # each level is an open descriptor
MAX_PROBLEMS = 10
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
SOURCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
TARGET = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Place = Callable[[str], "tuple[str, str] | None"]
"""From a path inside to (a trusted directory of the host, the path below it); None: not wanted."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A directory of the scratch tmpfs that the test sees, or sees on top of something, at ``target``."""

    directory: str
    target: str
    below: tuple[str, ...] = ()  #: directories of the host that it is on top of, the topmost first
    text: str | None = None  #: it is a file instead, with this in it before any test

    def changed(self, scratch_fd: int) -> os.stat_result | None:
        """Of a file: what it is, if that is no longer what it was. Raises OSError."""
        assert self.text is not None
        text = self.text.encode()
        fd = os.open(self.directory, SOURCE, dir_fd=scratch_fd)
        try:
            return None if os.read(fd, len(text) + 1) == text else os.fstat(fd)
        finally:
            os.close(fd)


@dataclass(slots=True)
class Copied:
    """What was copied out, and in words what was not."""

    files: int = 0
    size_bytes: int = 0
    problems: list[str] = field(default_factory=list)

    def add_problem(self, path: str, why: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            # A name may hold any bytes.
            self.problems.append(f"{os.fsencode(path).decode(errors='backslashreplace')}: {why}")
        elif len(self.problems) == MAX_PROBLEMS:
            self.problems.append("and more")

    def add_error(self, error: OSError) -> None:
        self.add_problem(str(error.filename), str(error.strerror))


class _File(NamedTuple):
    """At ``path`` for the test; ``name`` below ``directory_fd`` for us."""

    path: str
    name: str
    directory_fd: int
    size_bytes: int


class _Stock(NamedTuple):
    """Of a tmpfs. Whatever is made takes the next inode number (since Linux 5.9), and each name one of the
    free inodes, also that of a link (shmem_reserve_inode in mm/shmem.c)."""

    free_blocks: int
    free_inodes: int
    probe_inode: int  #: of a file without a name, made for this and gone

    def if_nothing_is_written(self) -> _Stock:
        return self._replace(probe_inode=self.probe_inode + 1)


@dataclass(slots=True)
class Written:
    """The files of one sandbox, for as long as ``scratch_fd`` is open: longer than the sandbox lives."""

    scratch_fd: int
    layers: tuple[Layer, ...]
    placeholders: frozenset[str]  #: empty files that only carry a mount
    start: _Stock | None = None  #: of the scratch tmpfs, for as long as nothing was written
    is_untouched: bool = False  #: as :meth:`count` found it

    @classmethod
    def begin(cls, scratch_fd: int, layers: tuple[Layer, ...], placeholders: frozenset[str]) -> Written:
        """For a sandbox in which nothing runs yet."""
        return cls(scratch_fd, layers, placeholders, _take_stock(scratch_fd))

    def count(self) -> tuple[int | None, int | None]:
        """(files, bytes); Nones where that cannot be told. Regular files only, as they are now: what the test
        has deleted again is not counted."""
        files = size_bytes = 0
        try:
            if self.start is not None:
                stock = _take_stock(self.scratch_fd)
                self.is_untouched = stock == self.start.if_nothing_is_written() and not self._changed_files()
                self.start = stock if self.is_untouched else None
                if self.is_untouched:
                    return 0, 0
            for file in self._walk(_raise):
                files += 1
                size_bytes += file.size_bytes
                if files > MAX_COUNTED_FILES:
                    return None, None
        except OSError:
            return None, None
        return files, size_bytes

    def free_bytes(self) -> int | None:
        """Of the scratch tmpfs; None where it has no limit. Raises OSError."""
        status = os.fstatvfs(self.scratch_fd)
        return status.f_bavail * status.f_frsize if status.f_blocks else None

    def copy_artifacts(self, globs: tuple[str, ...], budget_bytes: int) -> Copied:
        """Copy what matches one of ``globs`` (absolute, as the test sees it) to the same place on the host.

        On the way to the first wildcard the host's own links count, as it is the user who named them; from
        there on nothing follows a link.
        """
        wanted = [form for glob in globs for form in _Glob.both(glob)]

        def place(path: str) -> tuple[str, str] | None:
            found = next((glob for glob in wanted if glob.pattern.fullmatch(path)), None)
            return (found.base, path[found.start :]) if found is not None else None

        return self._copy(place, budget_bytes)

    def keep(self, base: str, below: str, budget_bytes: int) -> Copied:
        """Copy everything: ``/etc/hosts`` becomes ``base/below/etc/hosts``. Only ``base`` is trusted."""
        return self._copy(lambda path: (base, below + path), budget_bytes)

    def _changed_files(self) -> list[_File]:
        """Layers that are files: to write to one again takes no room."""
        return [
            _File(layer.target, layer.directory, self.scratch_fd, status.st_size)
            for layer in self.layers
            if layer.text is not None and (status := layer.changed(self.scratch_fd)) is not None
        ]

    def _walk(self, on_error: Callable[[OSError], None]) -> Iterator[_File]:
        yield from self._changed_files()
        for layer in self.layers:
            if layer.text is not None:
                continue
            for file in _walk(self.scratch_fd, layer.directory, layer.target, MAX_DEPTH, on_error):
                if file.path not in self.placeholders:
                    yield file

    def _copy(self, place: Place, budget_bytes: int) -> Copied:
        copied = Copied()
        for file in self._walk(copied.add_error):
            target = place(file.path)
            if target is None:
                continue
            if copied.files == MAX_COPIED_FILES:
                copied.add_problem(file.path, f"there are more than {MAX_COPIED_FILES} files")
                break
            if copied.size_bytes + file.size_bytes > budget_bytes:
                copied.add_problem(file.path, f"all together would be more than {format_size(budget_bytes)}")
                continue
            try:
                copied.size_bytes += _copy_file(file, *target)
                copied.files += 1
            except OSError as error:
                copied.add_problem(file.path, str(error.strerror))
        return copied


def matcher(globs: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a path, as the test sees it, is what one of absolute ``globs`` names."""
    patterns = [form.pattern for glob in globs for form in _Glob.both(glob)]
    return lambda path: any(pattern.fullmatch(path) for pattern in patterns)


def _take_stock(scratch_fd: int) -> _Stock | None:
    """None where the kernel does not tell: a tmpfs without a limit, or no tmpfs."""
    try:
        probe = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=scratch_fd)
        try:
            inode = os.fstat(probe).st_ino
        finally:
            os.close(probe)
        status = os.fstatvfs(scratch_fd)
    except OSError:
        return None
    return _Stock(status.f_bfree, status.f_ffree, inode) if status.f_blocks and status.f_files else None


def _walk(
    outer_fd: int, name: str, path: str, depth: int, on_error: Callable[[OSError], None]
) -> Iterator[_File]:
    """The regular files below directory ``name`` of ``outer_fd``, which is at ``path`` for the test."""
    try:
        if depth == 0:
            raise OSError(errno.ENAMETOOLONG, f"more than {MAX_DEPTH} directories deep", path)
        directory_fd = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=outer_fd)
    except OSError as error:
        error.filename = path
        on_error(error)
        return
    try:
        for entry in sorted(os.listdir(directory_fd)):
            inside = posixpath.join(path, entry)
            try:
                status = os.stat(entry, dir_fd=directory_fd, follow_symlinks=False)
            except OSError as error:  # somebody whom the test left behind is still deleting
                on_error(error)
                continue
            if stat.S_ISDIR(status.st_mode):
                yield from _walk(directory_fd, entry, inside, depth - 1, on_error)
            elif stat.S_ISREG(status.st_mode):
                yield _File(inside, entry, directory_fd, status.st_size)
    finally:
        os.close(directory_fd)


class _Glob(NamedTuple):
    base: str  #: the host's directory before the first wildcard, without links
    pattern: re.Pattern[str]
    start: int  #: where in a match the part below the base begins

    @classmethod
    def both(cls, glob: str) -> list[_Glob]:
        """The glob as it was written, and as its base really is: overlays have no links."""
        parts = glob.strip("/").split("/")
        wild = next((at for at, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
        at = min(wild, len(parts) - 1)
        base = "/" + "/".join(parts[:at])
        real = os.path.realpath(base)
        return [
            cls(real, _pattern(seen, parts[at:]), len(seen.rstrip("/")) + 1) for seen in {base: 0, real: 0}
        ]


def _pattern(base: str, parts: list[str]) -> re.Pattern[str]:
    """``*`` and ``?`` stay inside one name, ``**`` is any number of directories."""
    found = re.escape(base.rstrip("/"))
    for part in parts[:-1]:
        found += "(?:/[^/]+)*" if part == "**" else "/" + _name_pattern(part)
    return re.compile(found + ("/.+" if parts[-1] == "**" else "/" + _name_pattern(parts[-1])), re.DOTALL)


def _name_pattern(part: str) -> str:
    pieces = re.split(r"(\[!?[^]]+\]|[*?])", part)  # every second one is a wildcard
    pieces[::2] = map(re.escape, pieces[::2])
    kinds = {"*": "[^/]*", "?": "[^/]"}
    pieces[1::2] = (kinds.get(wild) or _characters(wild[1:-1]) for wild in pieces[1::2])
    return "".join(pieces)


def _characters(inside: str) -> str:
    negated = "^" if inside.startswith("!") else ""
    escaped = re.sub(r"([\\\[\]^&~|])", r"\\\1", inside.removeprefix("!"))
    return f"(?!/)[{negated}{escaped}]"


def _copy_file(file: _File, base: str, relative: str) -> int:
    """Copy to ``relative`` below ``base``, in place of what is there; the number of bytes."""
    source = os.open(file.name, SOURCE, dir_fd=file.directory_fd)
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file any more")
        directory = _make_directories(base, posixpath.dirname(relative))
        try:
            _write(
                source,
                min(status.st_size, file.size_bytes),
                status.st_mode & 0o777,
                directory,
                posixpath.basename(relative),
            )
        finally:
            os.close(directory)
    finally:
        os.close(source)
    return file.size_bytes


def _write(source: int, size_bytes: int, mode: int, directory: int, name: str) -> None:
    """Under another name first: whoever looks finds the old file or the new one, never half of it."""
    temporary = f".pytest-isolate-{os.getpid()}"
    target = os.open(temporary, TARGET, mode, dir_fd=directory)
    try:
        try:
            while size_bytes and (sent := os.sendfile(target, source, None, size_bytes)):
                size_bytes -= sent
        finally:
            os.close(target)
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise


def _make_directories(base: str, relative: str) -> int:
    """A descriptor of the directory ``relative`` below ``base``, where no part of it is a link."""
    os.makedirs(base, exist_ok=True)
    directory = os.open(base, DIRECTORY)
    for part in filter(None, relative.split("/")):
        outer = directory
        try:
            _make_directory(part, outer)
            directory = os.open(part, DIRECTORY | os.O_NOFOLLOW, dir_fd=outer)
        finally:
            os.close(outer)
    return directory


def _make_directory(name: str, directory: int) -> None:
    try:
        os.mkdir(name, dir_fd=directory)
    except FileExistsError:
        return  # it is one, or opening it says what it is


def _raise(error: OSError) -> None:
    raise error

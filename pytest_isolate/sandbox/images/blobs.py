"""Blobs on disk, in the form of an OCI image layout: named by the sha256 of what is in them.

A blob that is there is whole: it is written under another name, checked, and renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images.manifest import MAX_DOCUMENT_BYTES, Descriptor, check_digest

__all__ = ["Blobs", "digest_of", "locked", "make_private"]

CHUNK_BYTES = 2**20


class Blobs:
    """``directory``: that of the layout. Made when something is first written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, digest: str) -> Path:
        return self.directory / "blobs" / check_digest(digest).replace(":", "/")

    def has(self, digest: str) -> bool:
        """If it is there it is in use from now on: prune() spares it until an image names it."""
        try:
            os.utime(self.path(digest))
        except FileNotFoundError:
            return False
        return True

    def is_whole(self, digest: str) -> bool:
        """Whether the blob is there and is what its name says. One that is damaged is removed."""
        path = self.path(digest)
        if not path.exists():
            return False
        with self.being_written(digest) as partial:
            if partial is None and digest_of(path)[1] != digest:
                path.unlink()
            return self.has(digest)

    @contextlib.contextmanager
    def being_written(self, digest: str) -> Iterator[Path | None]:
        """For one writer at a time: None if the blob is there; or where to write it.

        What a writer that was killed has left is still in that file: a download goes on where it ended.
        """
        partial = self.directory / "partial" / check_digest(digest).replace(":", "-")
        make_private(self.directory)
        make_private(partial.parent)
        with locked(partial.with_suffix(".lock")):
            yield None if self.has(digest) else partial

    def finish(self, partial: Path, expected: Descriptor) -> None:
        """Check a written file, and make it the blob. Raises ImageError, and then the file is gone."""
        size_bytes, digest = digest_of(partial)
        if (size_bytes, digest) != (expected.size_bytes, expected.digest):
            partial.unlink()
            problem = (
                f"has {size_bytes} bytes where {expected.size_bytes} were promised"
                if size_bytes != expected.size_bytes
                else f"has the digest {digest}"
            )
            raise ImageError(f"{expected.digest} is damaged: it {problem}; get the image again")
        target = self.path(expected.digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, target)

    def add(self, chunks: Iterable[bytes], expected: Descriptor) -> None:
        """Write a blob, unless it is there. Raises ImageError if it is not what was expected."""
        with self.being_written(expected.digest) as partial:
            if partial is None:
                return
            size_bytes = 0
            with open(partial, "wb") as file:
                for chunk in chunks:
                    size_bytes += len(chunk)
                    if size_bytes > expected.size_bytes:
                        break
                    file.write(chunk)
            self.finish(partial, expected)

    def add_document(self, data: bytes, media_type: str) -> Descriptor:
        """Write a small blob whose digest is not known yet."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        descriptor = Descriptor(media_type, digest, len(data))
        if not self.is_whole(digest):
            self.add([data], descriptor)
        return descriptor

    def read_document(self, digest: str) -> bytes:
        """A small blob. Raises ImageError if it is absent, large or damaged."""
        try:
            with open(self.path(digest), "rb") as file:
                data = file.read(MAX_DOCUMENT_BYTES + 1)
        except OSError as error:
            raise ImageError(f"cannot read blob {digest}: {error.strerror}; get the image again") from None
        if len(data) > MAX_DOCUMENT_BYTES:
            raise ImageError(f"blob {digest} has more than {MAX_DOCUMENT_BYTES} bytes")
        if hashlib.sha256(data).hexdigest() != digest.partition(":")[2]:
            raise ImageError(f"blob {digest} is damaged; get the image again")
        return data


def digest_of(path: Path) -> tuple[int, str]:
    """(bytes, digest) of a file."""
    found, size_bytes = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
            size_bytes += len(chunk)
    return size_bytes, "sha256:" + found.hexdigest()


def make_private(directory: Path) -> None:
    """Nobody else may come between what root checks and what it then removes or mounts. The mode is for the
    last directory alone (Path.mkdir), so the store's own comes first."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold flock(2) on a file, which the kernel drops when the process dies. The file stays: to remove it
    would let two processes hold locks on two files of one name."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)

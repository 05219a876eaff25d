"""Layers without their compression, read once from front to end, with a stop at bombs."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from pytest_isolate.errors import ImageError
from pytest_isolate.units import format_size

__all__ = ["Plain", "decompressed", "suffix_of"]

#: First bytes, and the suffix that media types of layers have ("" for one that has no name of its own).
_MAGICS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
}
#: Archives of real systems shrink to a third or a tenth. Of zeros gzip makes a thousandth, bzip2 far less.
MAX_RATIO = 250
ALWAYS_ALLOWED_BYTES = 256 * 2**20
_ERRORS = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


class Plain(io.RawIOBase):
    """A stream with a position: forward only, and never much more than its source may become."""

    def __init__(self, source: IO[bytes], compressed_bytes: int) -> None:
        self._source = source
        self._most_bytes = max(ALWAYS_ALLOWED_BYTES, compressed_bytes * MAX_RATIO)
        self._compressed_bytes = compressed_bytes
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._source.read(len(buffer))
        except (*_ERRORS, OSError) as error:  # bz2 raises the last, without a number
            raise ImageError(f"a layer cannot be read: {error}; get the image again") from None
        buffer[: len(data)] = data
        self.position += len(data)
        if self.position > self._most_bytes:
            raise ImageError(
                f"a layer of {format_size(self._compressed_bytes)} unpacks to more than "
                f"{format_size(self._most_bytes)}, which is taken for a decompression bomb"
            )
        return len(data)


@contextlib.contextmanager
def decompressed(path: Path) -> Iterator[Plain]:
    """What is in a file, whatever its compression. Raises ImageError, while it is read too."""
    try:
        kind = _kind(path)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from None
    with open(path, "rb") as file, _open(kind, file) as source:
        yield Plain(source, os.fstat(file.fileno()).st_size)


def suffix_of(path: Path) -> str:
    """Of the media type of a layer with this compression."""
    kind = _kind(path)
    return f"+{kind}" if kind else ""


def _kind(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(6)
    return next((kind for magic, kind in _MAGICS.items() if head.startswith(magic)), "")


def _open(kind: str, file: IO[bytes]) -> IO[bytes]:
    match kind:
        case "gzip":
            return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
        case "bzip2":
            return cast("IO[bytes]", bz2.BZ2File(file))
        case "xz":
            return cast("IO[bytes]", lzma.LZMAFile(file))
        case "zstd":
            return cast("IO[bytes]", _Zstd(file))
        case _:
            return file


def _zstd() -> Any:
    """The standard library's since Python 3.14 (PEP 784), or its backport."""
    for name in ("compression.zstd", "backports.zstd"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise ImageError(
        "the layer is compressed with zstd, which this Python cannot read; "
        "run: pip install 'pytest-isolate-ns[images]'"
    )


class _Zstd:
    """Its errors become those of the others."""

    def __init__(self, file: IO[bytes]) -> None:
        self._library = _zstd()
        self._file = self._library.ZstdFile(file)

    def __enter__(self) -> _Zstd:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        try:
            return cast("bytes", self._file.read(size))
        except self._library.ZstdError as error:
            raise EOFError(str(error)) from None

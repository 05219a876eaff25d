"""The members of a stranger's tar archive, read once from front to end, with a stop at what is absurd."""

from __future__ import annotations

import contextlib
import hashlib
import tarfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, cast

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images.compression import Plain
from pytest_isolate.units import format_size, quoted

if TYPE_CHECKING:
    from pytest_isolate.sandbox.images.unpack import Unpacked

__all__ = ["CHUNK_BYTES", "TAR_ERRORS", "read_members", "reading_tar"]

MAX_HEADER_BYTES = 2**20  # of all headers of one member, extended ones included
MOST_GLOBAL_HEADERS = 1000  # copied by tarfile for each member
MOST_IDS = 2**32 - 1  # the last one is nobody's (chown(2))
CHUNK_BYTES = 2**18
#: What tarfile raises for an archive that is none, and the rest for a torn or absurd one: of IndexError for a
#: header that ends too early to RecursionError for a thousand headers of one member.
TAR_ERRORS = (tarfile.TarError, ValueError, LookupError, ArithmeticError, RecursionError)


#: A torn archive is made whole by nobody here.
CANNOT_READ, CURE = "the layer is no tar archive that can be read", "get the image again"


@contextlib.contextmanager
def reading_tar() -> Iterator[None]:
    """:data:`TAR_ERRORS` become ImageError."""
    try:
        yield
    except TAR_ERRORS as error:
        raise ImageError(f"{CANNOT_READ}: {error}; {CURE}") from None


def read_members(plain: Plain, unpacked: Unpacked) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Each member of an archive, and what is in it if it is a regular file. Raises :data:`TAR_ERRORS` too."""
    stream = _Forward(plain)
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:") as archive:
        # Of an archive of nothing next() of Python 3.10 would go back from its start.
        is_empty = cast("Any", archive).firstmember is None
        while not is_empty and (member := _next(archive, stream)) is not None:
            yield member, archive.extractfile(member) if member.isreg() else None
            cast("Any", archive).members.clear()  # it would keep all of them
    unpacked.diff_id = stream.drain()


def _next(archive: tarfile.TarFile, stream: _Forward) -> tarfile.TarInfo | None:
    """The next member, if it is not absurd."""
    stream.headers_left_bytes = MAX_HEADER_BYTES
    member = archive.next()
    stream.headers_left_bytes = None
    if len(archive.pax_headers) > MOST_GLOBAL_HEADERS:
        raise ImageError(f"the layer has more than {MOST_GLOBAL_HEADERS} global headers")
    if member is None:
        return None
    if member.size < 0:  # which some versions of tarfile let pass
        raise ImageError(f"the layer has a member of {member.size} bytes")
    if not (0 <= member.uid < MOST_IDS and 0 <= member.gid < MOST_IDS):
        raise ImageError(f"{quoted(member.name)} has the owner {member.uid}:{member.gid}, which nobody is")
    return member


class _Forward:
    """As much of a file as tarfile needs of a stream, with its digest."""

    def __init__(self, plain: Plain) -> None:
        self._plain = plain
        self._digest = hashlib.sha256()
        self._last = b""  # tarfile goes back one byte, to see whether a member is whole
        self._at = 0
        self.headers_left_bytes: int | None = MAX_HEADER_BYTES  #: None while content is read

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        if size > (MAX_HEADER_BYTES if self.headers_left_bytes is None else self.headers_left_bytes):
            raise ImageError(
                f"the layer has headers of more than {format_size(MAX_HEADER_BYTES)} for a member"
            )
        if self.headers_left_bytes is not None:
            self.headers_left_bytes -= max(size, 0)
        data = b""
        if self._at < self._plain.position:
            data, self._at = self._last, self._plain.position
        while len(data) < size and (more := self._next(size - len(data))):
            data += more
        return data

    def seek(self, position: int) -> None:
        if position == self._plain.position - 1 and self._at >= position:
            self._at = position
            return
        self._at = self._plain.position
        while self._at < position and self._next(min(position - self._at, CHUNK_BYTES)):
            pass
        if self._at != position:
            raise ImageError(f"{CANNOT_READ}: it ends too early; {CURE}")

    def _next(self, size: int) -> bytes:
        data = self._plain.read(size) or b""
        self._digest.update(data)
        self._last = data[-1:] or self._last
        self._at = self._plain.position
        return data

    def drain(self) -> str:
        """Read what follows the archive's end; the digest of all of it."""
        while self._next(CHUNK_BYTES):
            pass
        return "sha256:" + self._digest.hexdigest()

"""Pull an image: manifest, configuration and layers of one platform, from a registry into blobs on disk.

Everything is checked by its digest, whatever the registry says. What is there is not fetched again, and a
blob that an earlier pull has begun is gone on with.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images.blobs import Blobs
from pytest_isolate.sandbox.images.manifest import (
    MAX_DOCUMENT_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    parse_config,
    parse_document,
)
from pytest_isolate.sandbox.images.progress import Progress
from pytest_isolate.sandbox.images.reference import Reference

if TYPE_CHECKING:
    from pytest_isolate.sandbox.images.client import Client

__all__ = ["Access", "pull"]

THREADS = 4  # more get no more out of one registry, and some refuse them
TRIES = 5  # for one blob, whose connection may be cut
PAUSE_S = 0.5  # before the second, and as much more before each
LEAVE_S = 2.0  # what a thread gets to notice that it is to stop


@dataclass(frozen=True, slots=True)
class Access:
    """Which registries may be talked to, and how."""

    insecure: frozenset[str] = frozenset()  #: HOST[:PORT] that may be asked without TLS; loopback always may
    offline: bool = False

    @classmethod
    def of_environment(cls) -> Access:
        listed = os.environ.get("PYTEST_ISOLATE_INSECURE_REGISTRIES", "").replace(",", " ").split()
        return cls(frozenset(listed), os.environ.get("PYTEST_ISOLATE_OFFLINE", "") not in ("", "0"))


def pull(
    reference: Reference,
    blobs: Blobs,
    platform: Platform,
    *,
    progress: Progress | None = None,
    access: Access | None = None,
) -> Descriptor:
    """Bring manifest, config and all layers of one image into ``blobs``, verified.

    The descriptor is that of the platform's manifest, also where the reference is of an index. An image
    that is named by its digest and wholly there takes no network. Raises ImageError.
    """
    try:
        with _Pull(reference, blobs, progress, access or Access.of_environment()) as pulling:
            return pulling.image(platform)
    except OSError as error:
        where = error.filename or blobs.directory
        raise ImageError(f"cannot pull {reference} to {where}: {error.strerror}") from None


class _Pull:
    def __init__(self, reference: Reference, blobs: Blobs, progress: Progress | None, access: Access) -> None:
        self._reference, self._blobs, self._progress = reference, blobs, progress
        self._access = access
        self._client: Client | None = None
        self._connecting = threading.Lock()

    def __enter__(self) -> _Pull:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def image(self, platform: Platform) -> Descriptor:
        descriptor, document = self._document(self._reference.wanted, None)
        config_of: Platform | None = platform
        if isinstance(document, Index):
            descriptor, config_of = document.choose(platform), None  # which the index vouches for
            _, document = self._document(descriptor.digest, descriptor)
        if not isinstance(document, Manifest):
            raise ImageError(f"{self._reference}: the index names another index as an image")
        wanted = tuple({d.digest: d for d in (document.config, *document.layers)}.values())
        if self._progress is not None:
            self._progress.begin(wanted)
        self._config(document.config, config_of)
        layers = [d for d in wanted if d.digest != document.config.digest]
        _in_parallel(self._bring, layers, THREADS, self._stop)
        return descriptor

    def _document(self, wanted: str, expected: Descriptor | None) -> tuple[Descriptor, Index | Manifest]:
        """An index or a manifest, by its digest or by a tag."""
        digest = wanted if wanted.startswith("sha256:") else ""
        if digest and self._blobs.is_whole(digest):
            data, media_type = self._blobs.read_document(digest), expected.media_type if expected else ""
        else:
            data, media_type, named = self._connected().manifest(wanted)
            # By a tag, what the registry names guards against accidents only.
            _check(data, digest or named, f"{self._reference}: what the registry sends")
        if expected is not None and expected.size_bytes != len(data):
            raise ImageError(
                f"{self._reference}: {digest} has {len(data)} bytes, and its index says otherwise"
            )
        document = parse_document(data, media_type)
        kind = json.loads(data).get("mediaType") or (
            OCI_INDEX if isinstance(document, Index) else OCI_MANIFEST
        )
        return self._blobs.add_document(data, kind), document

    def _config(self, config: Descriptor, platform: Platform | None) -> None:
        """Before the layers: it is small, and can show that they are not wanted."""
        if config.size_bytes > MAX_DOCUMENT_BYTES:
            raise ImageError(f"{self._reference}: the configuration has more than {MAX_DOCUMENT_BYTES} bytes")
        self._bring(config)
        found = parse_config(self._blobs.read_document(config.digest)).platform
        if platform is not None and found.architecture and not found.runs_on(platform):
            raise ImageError(f"{self._reference} is an image for {found}, and none for {platform}")

    def _bring(self, descriptor: Descriptor) -> None:
        """One blob, unless it is there."""
        if not self._blobs.is_whole(descriptor.digest):
            with self._blobs.being_written(descriptor.digest) as partial:
                if partial is not None:  # or another process has just brought it
                    self._download(descriptor, partial)
        if self._blobs.path(descriptor.digest).stat().st_size != descriptor.size_bytes:
            raise ImageError(f"{self._reference}: the manifest gives blob {descriptor.digest} another size")
        if self._progress is not None:
            self._progress.done(descriptor.digest)

    def _download(self, descriptor: Descriptor, partial: Path) -> None:
        partial.touch(mode=0o600)
        resumed = partial.stat().st_size > 0
        self._receive(descriptor, partial)
        try:
            self._blobs.finish(partial, descriptor)
        except ImageError:
            if not resumed:
                raise
            # What was there may have been of another registry, or hit by a power cut.
            self._receive(descriptor, partial)
            self._blobs.finish(partial, descriptor)

    def _receive(self, descriptor: Descriptor, partial: Path) -> None:
        """Until the file is long enough. Where a connection is cut, the next one goes on."""
        for attempt in range(TRIES):
            have_bytes = _size_bytes(partial)
            if have_bytes == descriptor.size_bytes:
                return
            client = self._connected()
            client.wait(attempt * PAUSE_S)
            from_bytes = have_bytes if have_bytes < descriptor.size_bytes else 0
            with client.blob(descriptor.digest, from_bytes) as (start_bytes, chunks):
                self._append(descriptor, partial, start_bytes, chunks)
        if (have_bytes := _size_bytes(partial)) != descriptor.size_bytes:
            raise ImageError(
                f"{self._reference}: of blob {descriptor.digest} came {have_bytes} of "
                f"{descriptor.size_bytes} bytes, and then {TRIES} times the end of the connection; "
                "pull again: it goes on from there"
            )

    def _append(
        self, descriptor: Descriptor, partial: Path, start_bytes: int, chunks: Iterator[bytes]
    ) -> None:
        """Raises ImageError, and the file is gone, if there are more bytes than were promised."""
        have_bytes = start_bytes
        if self._progress is not None:
            self._progress.start(descriptor, start_bytes)
        with open(partial, "ab") as file:
            file.truncate(start_bytes)
            for chunk in chunks:
                have_bytes += len(chunk)
                if have_bytes > descriptor.size_bytes:
                    partial.unlink()
                    raise ImageError(
                        f"{self._reference}: the registry sends more than the "
                        f"{descriptor.size_bytes} bytes that blob {descriptor.digest} is to have"
                    )
                file.write(chunk)
                if self._progress is not None:
                    self._progress.advance(descriptor.digest, len(chunk))

    def _connected(self) -> Client:
        with self._connecting:
            if self._client is None:
                self._client = _client(self._reference, self._access)
            return self._client

    def _stop(self) -> None:
        if self._client is not None:
            self._client.stop()


def _client(reference: Reference, access: Access) -> Client:
    if access.offline:
        raise ImageError(
            f"{reference} is not wholly in the store, and PYTEST_ISOLATE_OFFLINE is set; "
            f"unset it, or run before: pytest-isolate image pull {reference}"
        )
    try:
        from pytest_isolate.sandbox.images.client import Client
    except ImportError as error:
        raise ImageError(
            f"pulling {reference} takes the package urllib3 ({error}); "
            "pip install 'pytest-isolate-ns[images]'"
        ) from None
    return Client(reference, access.insecure)


def _check(data: bytes, digest: str, what: str) -> None:
    found = "sha256:" + hashlib.sha256(data).hexdigest()
    if digest.startswith("sha256:") and digest != found:
        raise ImageError(f"{what} has the digest {found}, and should have {digest}")


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _in_parallel(
    work: Callable[[Descriptor], None], items: Sequence[Descriptor], threads: int, stop: Callable[[], None]
) -> None:
    """Raises what the first that failed has raised, or KeyboardInterrupt; the others are stopped then.

    Not an executor: at the interpreter's end it would wait for threads that wait for another process's lock.
    """
    todo: queue.SimpleQueue[Descriptor] = queue.SimpleQueue()
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        error: BaseException | None = None
        try:
            while True:
                work(todo.get_nowait())
        except queue.Empty:
            pass  # nothing is left to do
        except BaseException as raised:
            error = raised
        ended.put(error)

    for item in items:
        todo.put(item)
    workers = [threading.Thread(target=run, name="pull", daemon=True) for _ in items[:threads]]
    for worker in workers:
        worker.start()
    try:
        for _ in workers:
            if (error := ended.get()) is not None:
                raise error
    except BaseException:
        stop()
        raise
    finally:
        deadline_s = time.monotonic() + LEAVE_S
        for worker in workers:
            worker.join(max(deadline_s - time.monotonic(), 0))

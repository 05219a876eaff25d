"""From a rootfs to the image that it stands for, once in a session."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images.archives import import_image, is_layout
from pytest_isolate.sandbox.images.manifest import own_platform
from pytest_isolate.sandbox.images.progress import Progress
from pytest_isolate.sandbox.images.recipe import DIRECTORY
from pytest_isolate.sandbox.images.reference import Reference, naming, parse_reference
from pytest_isolate.sandbox.images.store import Image, Store, Stored, default_store
from pytest_isolate.spec import HostRootfs, ImageRootfs, PathRootfs, Rootfs
from pytest_isolate.values import Pull

__all__ = ["Images"]


class Images:
    """The images of one session."""

    def __init__(
        self,
        store: Store,
        pull: Pull = Pull.MISSING,
        progress: Callable[[str], AbstractContextManager[Progress | None]] = lambda name: nullcontext(),
    ) -> None:
        """``progress`` gets the name of an image that is about to be pulled."""
        self.store = store
        self._pull = pull
        self._progress = progress
        self._found: dict[Rootfs, Image | ImageError | None] = {}
        self._seen: dict[tuple[str, tuple[int, int]], Image | ImageError] = {}

    def get(self, rootfs: Rootfs) -> Image | None:
        """None for the host's root or a plain directory. Raises ImageError, for every test that asks."""
        if isinstance(rootfs, PathRootfs):
            with self._told(_asked(rootfs)):
                self._check(rootfs)  # each time: a fixture may make it yet
        if rootfs not in self._found:
            try:
                with self._told(_asked(rootfs)):
                    self._found[rootfs] = self._get(rootfs)
            except ImageError as error:
                self._found[rootfs] = error
        found = self._found[rootfs]
        if isinstance(found, ImageError):
            raise found
        return found

    def seen_as(self, image: Image, own: tuple[int, int]) -> Image:
        """The image for a caller who looks like ``own`` in it. Raises ImageError, as :meth:`get` does."""
        key = (image.digest, own)
        if key not in self._seen:
            try:
                with self._told(image.name):
                    self._seen[key] = self.store.seen_as(image, own)
            except ImageError as error:
                self._seen[key] = error
        found = self._seen[key]
        if isinstance(found, ImageError):
            raise found
        return found

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """What goes wrong with files is an error of those tests that ask: a full disk, another's store."""
        with naming(name):
            try:
                yield
            except OSError as error:
                where = f": {error.filename}" if error.filename else ""
                raise ImageError(
                    f"cannot use the store {self.store.directory}{where}: {error.strerror or error}; "
                    "see to that, or have the store elsewhere with --isolate-store"
                ) from None

    def _get(self, rootfs: Rootfs) -> Image | None:
        match rootfs:
            case HostRootfs():
                return None
            case PathRootfs(text, name):
                path, wanted = _split(text)
                if not path.exists() and (named := self._named(name)) is not None:
                    return self._image(named)
                if path.is_dir() and not is_layout(path):
                    return None
                return self._image(import_image(path, self.store, own_platform(), wanted=wanted))
            case ImageRootfs(name):
                return self._image(self._pulled(parse_reference(name)))

    def _image(self, stored: Stored) -> Image:
        where = stored.manifest.platform
        if where is not None and where.architecture and not where.runs_on(own_platform()):
            raise ImageError(f"it is for {where}, and this machine is {own_platform()}")
        return self.store.image(stored)

    def _check(self, rootfs: PathRootfs) -> None:
        path, _ = _split(rootfs.path)
        if path.exists() or self._named(rootfs.name) is not None:
            return
        missing = f"rootfs {rootfs.path} is not there"
        if rootfs.name:
            missing += f", and no image {rootfs.name} is in the store {self.store.directory}"
        if path.with_name(DIRECTORY).joinpath(f"{rootfs.name}.toml").is_file():
            raise ImageError(f"{missing}; run: {self._command('build', rootfs.name)}")
        raise ImageError(
            f"{missing}; name a directory, an archive, an OCI layout, a name from "
            "[tool.pytest-isolate.images] or of pytest-isolate image ls, or an image as in HOST/NAME:TAG"
        )

    def _command(self, action: str, name: str) -> str:
        elsewhere = self.store.directory != default_store()
        store = f" --store {shlex.quote(os.fspath(self.store.directory))}" if elsewhere else ""
        return f"pytest-isolate image {action} {name}{store}"

    def _named(self, name: str) -> Stored | None:
        return self.store.find(name, own_platform()) if name else None

    def _pulled(self, reference: Reference) -> Stored:
        name = str(reference)
        stored = self.store.find(name, own_platform())
        if stored is None and reference.digest is not None:  # got by its tag before it was pinned
            stored = next((s for s in self.store.images() if s.manifest.digest == reference.digest), None)
        if stored is not None and (self._pull is not Pull.ALWAYS or reference.digest is not None):
            return stored
        if self._pull is Pull.NEVER:
            raise ImageError(
                f"it is not in the store {self.store.directory}, and --isolate-pull=never forbids "
                f"to get it; run: {self._command('pull', name)}"
            )
        from pytest_isolate.sandbox.images.registry import pull

        with self._progress(name) as progress:
            pulled = pull(reference, self.store.blobs, own_platform(), progress=progress)
        return self.store.add(name, pulled)


def _asked(rootfs: Rootfs) -> str:
    """As the user has written it, if that is known."""
    match rootfs:
        case HostRootfs():
            return "host"
        case PathRootfs(path, name, asked):
            return asked or name or path
        case ImageRootfs(name, asked):
            return asked or name


def _split(text: str) -> tuple[Path, str]:
    """``FILE#NAME`` is one of several images of a file, unless there is a file of that name."""
    path, hash_sign, wanted = text.rpartition("#")
    if hash_sign and not os.path.exists(text):
        return Path(path), wanted
    return Path(text), ""

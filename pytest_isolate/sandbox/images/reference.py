"""Names of images in registries, such as ``registry.example/library/alpine:3.20@sha256:…``."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_isolate.errors import ImageError
from pytest_isolate.units import quoted

__all__ = ["Reference", "check_name", "looks_like_reference", "naming", "parse_reference", "toml_key"]

# The grammar of names and tags is that of the OCI distribution specification ("Pulling manifests").
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_FORM = re.compile(
    rf"(?P<host>{_HOST})/(?P<name>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_SHORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image of a registry. With a digest the tag is only for people."""

    registry: str  #: host, and port if one was named
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def wanted(self) -> str:
        """What the registry is asked for."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else "" if self.digest else ":latest"
        return f"{self.registry}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Errors say which image they are about, by the name that the user gave it."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"image {name}: {str(error).removeprefix(f'{name}: ')}") from None


def looks_like_reference(text: str) -> bool:
    """Whether the first part can only be the host of a registry: no directory is guessed to be one."""
    host, slash, _ = text.partition("/")
    return (
        bool(slash)
        and (host == "localhost" or ("." in host.strip(".") or ":" in host))
        and host[0] not in "./~"
    )


def parse_reference(text: str) -> Reference:
    """Raises ImageError."""
    found = _FORM.fullmatch(text) if len(text) <= 512 else None
    if found is None or not looks_like_reference(text):
        raise ImageError(
            f"{quoted(text)} is no name of an image; it is HOST[:PORT]/NAME[:TAG][@sha256:DIGEST], "
            "as in localhost:5000/library/alpine:3.20"
        )
    host, name, tag, digest = found.group("host", "name", "tag", "digest")
    return Reference(host, name, tag, digest)


def toml_key(name: str) -> str:
    """A name as a key of a TOML table, where a dot that is not quoted begins another table."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def check_name(text: str) -> str:
    """A name that a person may give an image: a short one, or one as of a registry. Raises ImageError."""
    if looks_like_reference(text):
        reference = parse_reference(text)
        if reference.digest is not None:
            raise ImageError(f"{text} names an image by its digest, so that no other can be given that name")
        return str(reference)
    if text == "host" or not _SHORT.fullmatch(text):
        raise ImageError(
            f"{quoted(text)} cannot be the name of an image; "
            "one is made of letters, digits, '.', '_' and '-', as in busybox or busybox:1.35"
        )
    return text

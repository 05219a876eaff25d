"""What a root that is not the host's says about its processes: their user, directory and environment.

An image's configuration says so (OCI image specification, "Image Configuration"), and the files in it; what
neither says is as container engines have it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_isolate.errors import ImageError
from pytest_isolate.kernel.tree import Tree
from pytest_isolate.units import quoted

if TYPE_CHECKING:
    from pytest_isolate.sandbox.images.manifest import Config

__all__ = ["Environ", "environ_of", "user_of"]

#: Names and values; None removes the variable.
Environ = tuple[tuple[str, "str | None"], ...]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Where distributions have all certificates in one file.
CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
#: Of the host, where they name files or locales that the root need not have.
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NIX_SSL_CERT_FILE")
#: Of an image, for its own Python: the host's, which runs the test, would not start.
OF_ITS_PYTHON = ("PYTHONHOME", "PYTHONPLATLIBDIR")
LOCALE = (
    "LC_ALL",
    "LC_CTYPE",
    "LC_COLLATE",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NUMERIC",
    "LC_TIME",
    "LANGUAGE",
)
MAX_FILE_BYTES = 2**20


def environ_of(tree: Tree, config: Config | None, uid: int, commands: str) -> Environ:
    """What becomes of the caller's environment. ``commands``: a directory of the interpreter's own commands,
    which come after the root's."""
    found: dict[str, str | None] = dict.fromkeys((*LOCALE, *CERTIFICATES))
    found["LANG"] = "C.UTF-8"
    found["HOME"] = _home(tree, uid)
    found["PATH"] = DEFAULT_PATH
    bundle = next((path for path in CA_BUNDLES if tree.find(path) is not None), None)
    found["SSL_CERT_FILE"] = bundle
    env = config.env if config is not None else ()
    found.update((name, value) for name, value in env if name not in OF_ITS_PYTHON)
    found["PATH"] = f"{found['PATH']}:{commands}"
    return tuple(found.items())


def user_of(tree: Tree, config: Config) -> tuple[int, int] | None:
    """(uid, gid) that the image wants, or None. Raises ImageError if it has no such user."""
    name, _, group = config.user.partition(":")
    if not name:
        return None
    entry = next((e for e in _entries(tree, "/etc/passwd", 4) if name in (e[0], e[2])), None)
    uid = _number(name) if entry is None else _number(entry[2])
    gid = _group(tree, group) if group else 0 if entry is None else _number(entry[3])
    if uid is None or gid is None:
        raise ImageError(
            f"the image wants the user {quoted(config.user)}, whom its /etc/passwd and /etc/group do not "
            "know; choose another with user="
        )
    return uid, gid


def _group(tree: Tree, name: str) -> int | None:
    entry = next((e for e in _entries(tree, "/etc/group", 3) if name in (e[0], e[2])), None)
    return _number(name if entry is None else entry[2])


def _home(tree: Tree, uid: int) -> str:
    homes = (e[5] for e in _entries(tree, "/etc/passwd", 6) if e[2] == str(uid))
    return next(homes, "") or "/"


def _entries(tree: Tree, path: str, least: int) -> Iterator[list[str]]:
    """Lines of passwd(5) or group(5) with at least so many fields."""
    found = tree.find(path)
    if found is None or not os.path.isfile(found) or not os.access(found, os.R_OK):
        return
    with open(found, encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read(MAX_FILE_BYTES).splitlines()
    yield from (fields for line in lines if len(fields := line.split(":")) >= least)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= 10 and int(text) < 2**32 - 1 else None

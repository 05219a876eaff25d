"""Who the user is at a registry, from the files and helpers that ``docker login`` and ``skopeo login`` write.

Files: docker's config.json, and containers-auth.json(5). Helpers: docker-credential-helpers' protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_isolate.errors import ImageError
from pytest_isolate.units import quoted

__all__ = ["Credentials", "Found", "find_credentials"]

DOCKER_HUB = "docker.io"
HELPER_TIMEOUT_S = 30  # one may ask the user to unlock a key ring
_MAX_BYTES = 2**20
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: What docker writes for Docker Hub, and hands to helpers.
_HUB_KEY = "https://index.docker.io/v1/"
_NOT_FOUND = "credentials not found"  # docker-credential-helpers, credentials/error.go


@dataclass(frozen=True, slots=True)
class Credentials:
    """Either a password or an identity token, which is changed for access tokens only."""

    user: str
    origin: str  #: the file or helper, for error texts
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Found:
    """``problems``: one line for each place that could not be read; the image may be free for all anyway."""

    credentials: Credentials | None = None
    problems: tuple[str, ...] = ()


def find_credentials(registry: str, repository: str) -> Found:
    """The first file that knows the registry, or a namespace in it, counts."""
    problems: list[str] = []
    for path in _files():
        try:
            if found := _from_file(path, registry, repository):
                return Found(found, tuple(problems))
        except ImageError as error:
            problems.append(str(error))
    return Found(None, tuple(problems))


def _files() -> Iterator[Path]:
    """In the order of containers-auth.json(5); docker's own where its variable says so."""
    home = Path(os.path.expanduser("~"))
    if only := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(only)
        return
    if docker := os.environ.get("DOCKER_CONFIG"):
        yield Path(docker, "config.json")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers/auth.json")
    yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "containers/auth.json")
    if not docker:
        yield home / ".docker/config.json"


def _from_file(path: Path, registry: str, repository: str) -> Credentials | None:
    """Raises ImageError."""
    try:
        with open(path, "rb") as file:
            config = json.loads(file.read(_MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ImageError(f"cannot read credentials from {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ImageError(f"cannot read credentials from {path}: it is not JSON") from None  # never its text
    if not isinstance(config, dict):
        raise ImageError(f"cannot read credentials from {path}: it is not a JSON object")
    auths, helpers = _table(config, "auths"), _table(config, "credHelpers")
    server = _HUB_KEY if registry == DOCKER_HUB else registry
    helper = helpers.get(registry) or helpers.get(server) or config.get("credsStore")
    if helper and (found := _from_helper(helper, server)):
        return found
    for key in _keys(auths, registry, repository):
        if found := _from_entry(auths[key], path):
            return found
    return None


def _table(config: dict[str, Any], key: str) -> dict[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def _keys(auths: dict[str, Any], registry: str, repository: str) -> Iterator[str]:
    """The most particular first: ``host/a/b``, ``host/a``, ``host``; then URLs, which old dockers wrote."""
    wanted = f"{registry}/{repository}"
    while wanted:
        if wanted in auths:
            yield wanted
        wanted = wanted.rpartition("/")[0]
    for key in auths:
        if key.startswith(("http://", "https://")):
            host = key.partition("://")[2].partition("/")[0]
            if host == registry or (registry == DOCKER_HUB and key == _HUB_KEY):
                yield key


def _from_entry(entry: object, path: Path) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    auth, token = entry.get("auth"), entry.get("identitytoken")
    try:
        text = base64.b64decode(auth, validate=True).decode() if isinstance(auth, str) else ""
    except (binascii.Error, UnicodeDecodeError):
        raise ImageError(f"cannot read credentials from {path}: an entry is not base64") from None
    user, _, password = text.rstrip("\0").partition(":")
    if isinstance(token, str) and token:
        return Credentials(user, str(path), identity_token=token)
    return Credentials(user, str(path), password) if user else None


def _from_helper(name: object, server: str) -> Credentials | None:
    """None if the helper knows no credentials. Raises ImageError, without what the helper has printed if that
    can be a secret."""
    if not isinstance(name, str) or not _HELPER.fullmatch(name):
        raise ImageError(f"{quoted(name)} is no name of a credential helper")
    program = shutil.which(f"docker-credential-{name}")
    if program is None:
        raise ImageError(f"docker-credential-{name} is not on PATH")
    try:
        ran = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            timeout=HELPER_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ImageError(f"{program} gave no answer in {HELPER_TIMEOUT_S} s") from None
    except OSError as error:
        raise ImageError(f"cannot run {program}: {error.strerror}") from None
    if ran.returncode != 0:
        text = ran.stdout.decode(errors="replace").strip()
        if _NOT_FOUND in text:
            return None
        raise ImageError(f"{program} failed: {quoted(text)}")
    try:
        answer = json.loads(ran.stdout)
        user, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ImageError(f"{program} answers with something that is no JSON of a helper") from None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise ImageError(f"{program} answers with something that is no JSON of a helper")
    if user == "<token>":  # "get" in the documentation of docker-credential-helpers
        return Credentials("", program, identity_token=secret)
    return Credentials(user, program, secret)

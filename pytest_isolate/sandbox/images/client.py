"""One repository of a registry: the pulling half of the OCI distribution specification 1.1.

Tokens are got as docs/spec/auth of the CNCF's project ``distribution`` describes.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlencode, urlsplit

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images.credentials import DOCKER_HUB, Credentials, Found, find_credentials
from pytest_isolate.sandbox.images.manifest import DOCUMENT_TYPES
from pytest_isolate.sandbox.images.reference import Reference
from pytest_isolate.sandbox.images.transport import Answer, Transport, asked_pause_s, is_loopback
from pytest_isolate.units import format_duration, quoted

__all__ = ["Client", "parse_challenges"]

API_HOSTS = {DOCKER_HUB: "registry-1.docker.io"}
#: RFC 9110, 11.6.1: a scheme, or a parameter of the scheme before it.
_CHALLENGE = re.compile(r"""([\w!#$%&'*+.^`|~-]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]+))?""", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")


class Client:
    """Used by several threads. All methods raise ImageError."""

    def __init__(self, reference: Reference, insecure: frozenset[str]) -> None:
        self._name = str(reference)
        self._registry = registry = reference.registry
        self._repository = reference.repository
        if registry == DOCKER_HUB and "/" not in reference.repository:
            self._repository = f"library/{reference.repository}"
        self._transport = Transport(
            API_HOSTS.get(registry, registry), may_be_plain=registry in insecure or is_loopback(registry)
        )
        self.stop, self.wait = self._transport.stop, self._transport.wait
        self._authorization: str | None = None
        self._renewing = threading.Lock()

    @functools.cached_property
    def _found(self) -> Found:
        """Looked for when the registry asks, and once: a helper may ask the user."""
        return find_credentials(self._registry, self._repository)

    def manifest(self, wanted: str) -> tuple[bytes, str, str]:
        """(document, its media type, digest that the registry names or "") of a tag or digest."""
        with self._get(f"manifests/{wanted}", {"Accept": ", ".join(DOCUMENT_TYPES)}) as answer:
            if answer.status != 200:
                raise self._refusal(answer, self._name + ("" if wanted in self._name else f" ({wanted})"))
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
            known = media_type if media_type in DOCUMENT_TYPES else ""
            return answer.body, known, answer.headers.get("Docker-Content-Digest", "")

    @contextlib.contextmanager
    def blob(self, digest: str, have_bytes: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """(where it goes on, chunks): at ``have_bytes``, or at 0 if the registry starts anew."""
        headers = {"Range": f"bytes={have_bytes}-"} if have_bytes else {}
        with self._get(f"blobs/{digest}", headers, is_blob=True) as answer:
            range_of_it = answer.headers.get("Content-Range", "")
            if answer.status == 206 and have_bytes and range_of_it.startswith(f"bytes {have_bytes}-"):
                yield have_bytes, answer.chunks
            elif answer.status == 200:
                yield 0, answer.chunks
            elif answer.status in (206, 416) and have_bytes:
                yield 0, iter(())  # another part, or there is none after that: nothing to go on from
            else:
                raise self._refusal(answer, f"blob {digest} of {self._name}")

    @contextlib.contextmanager
    def _get(self, path: str, headers: Mapping[str, str], *, is_blob: bool = False) -> Iterator[Answer]:
        url, used = f"{self._transport.base_url}/v2/{self._repository}/{path}", self._authorization
        with self._transport.get(url, headers, used, is_blob=is_blob) as answer:
            if answer.status != 401:
                yield answer
                return
        renewed = self._renew(answer, used)
        with self._transport.get(url, headers, renewed, is_blob=is_blob) as answer:
            yield answer

    def _renew(self, refused: Answer, used: str | None) -> str:
        """What to answer a refusal of ``used`` with; tokens are good for minutes."""
        with self._renewing:
            if self._authorization is None or self._authorization == used:
                challenges = parse_challenges(refused.challenges)
                who = self._found.credentials
                if "bearer" in challenges:
                    self._authorization = self._token(challenges["bearer"])
                elif "basic" in challenges and who is not None and who.password:
                    self._authorization = _basic(who)
                elif "basic" in challenges:
                    raise self._denied("it asks for user and password")
                else:
                    raise ImageError(f"{self._registry} asks for a login of a kind that is not known here")
            return self._authorization

    def _token(self, challenge: Mapping[str, str]) -> str:
        """For the credentials, or for nobody's, a token of the server that the registry trusts."""
        realm = challenge.get("realm", "")
        try:
            safe = bool(urlsplit(realm).hostname) and self._transport.is_safe(realm)
        except ValueError:
            safe = False
        if not safe:
            raise ImageError(f"{self._registry} wants a token from {quoted(realm)}, which is no https URL")
        query = {"scope": challenge.get("scope") or f"repository:{self._repository}:pull"}
        if "service" in challenge:
            query["service"] = challenge["service"]
        who = self._found.credentials
        if who is not None and who.identity_token:
            form = {"grant_type": "refresh_token", "client_id": "pytest-isolate", **query}
            answer = self._transport.exchange(realm, {}, {**form, "refresh_token": who.identity_token})
        else:
            headers = {"Authorization": _basic(who)} if who is not None else {}
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
            answer = self._transport.exchange(url, headers)
        if answer.status in (400, 401, 403):
            raise self._denied(f"its token server {urlsplit(realm).hostname} answers {answer.status}")
        document = _json(answer.body)
        token = document.get("token") or document.get("access_token")
        if answer.status != 200 or not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ImageError(f"{urlsplit(realm).hostname} answers {answer.status}, and with no token")
        return f"Bearer {token}"

    def _refusal(self, answer: Answer, what: str) -> ImageError:
        """The error for an answer that is not what was asked for."""
        said = _said(answer)
        match answer.status:
            case 401 | 403:
                return self._denied(said)
            case 404:
                return ImageError(f"{what} is not there: {said}")
            case 429:
                pause_s = asked_pause_s(answer)
                wait = f"in {format_duration(pause_s)}" if pause_s else "later"
                return ImageError(f"{self._registry} was asked for too much: {said}; try again {wait}")
            case _:
                return ImageError(f"cannot pull {what}: {said}")

    def _denied(self, why: str) -> ImageError:
        who = self._found.credentials
        if who is None:
            user = "anonymous users"
        else:
            user = f"user {quoted(who.user)} of {who.origin}" if who.user else f"the token of {who.origin}"
        notes = "".join(f" ({problem})" for problem in self._found.problems)
        return ImageError(
            f"{self._registry} does not let {user} pull {self._repository}: {why}{notes}; "
            f"run: docker login {self._registry}, or: skopeo login {self._registry}"
        )


def parse_challenges(headers: Sequence[str]) -> dict[str, dict[str, str]]:
    """Parameters by scheme, names in lower case, of all headers WWW-Authenticate (RFC 9110, 11.6.1)."""
    found: dict[str, dict[str, str]] = {}
    for header in headers:
        parameters: dict[str, str] = {}
        for name, value in _CHALLENGE.findall(header[:4096]):
            if not value:
                parameters = found.setdefault(name.lower(), {})
            else:
                bare = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
                parameters[name.lower()] = bare
    return found


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.user}:{credentials.password}".encode()
    return "Basic " + base64.b64encode(pair).decode()


def _json(data: bytes) -> dict[str, object]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _said(answer: Answer) -> str:
    """Status, and the first error of the document (specification, "Error codes")."""
    errors = _json(answer.body).get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    text = first.get("message") or first.get("code") if isinstance(first, dict) else None
    return f"{answer.status}, {quoted(text)}" if text else f"the registry answers {answer.status}"

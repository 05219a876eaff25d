"""Registries that trust the tokens of another server, as Docker Hub does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from pytest_isolate.sandbox.images import client
from pytest_isolate.sandbox.images import registry as registry_module
from pytest_isolate.sandbox.images.blobs import Blobs
from pytest_isolate.sandbox.images.client import parse_challenges
from pytest_isolate.sandbox.images.reference import parse_reference
from pytest_isolate.sandbox.images.registry import pull

from ...fake_registry import FakeRegistry, Reply, Request, serve_fake
from ...oci_layout import make_layout
from .pulling import ALICE, AMD64, assert_whole, basic, failure, log_in, pulled


class Tokens:
    """Rules for both servers: the registry takes the token that was given last, ``good_for`` times."""

    def __init__(self, fake: FakeRegistry, server: FakeRegistry, *, good_for: int = 10**6) -> None:
        self.given, self.uses, self.good_for = 0, 0, good_for
        self.wants = f"Basic {ALICE}"
        self.realm = f"http://{server.host}/token?a=1"
        fake.rules.append(self.registry)
        server.rules.append(self.token)

    def registry(self, request: Request) -> Reply | None:
        self.uses += 1
        if request.headers.get("authorization") == f"Bearer t{self.given}" and self.uses <= self.good_for:
            return None
        challenge = f'Bearer realm="{self.realm}",service="s p",scope="repository:a/b:pull"'
        return Reply(401, headers={"WWW-Authenticate": challenge})

    def token(self, request: Request) -> Reply | None:
        if self.wants and request.headers.get("authorization", "") != self.wants:
            return Reply(401)
        self.given, self.uses = self.given + 1, 0
        return Reply(200, json.dumps({"token": f"t{self.given}"}).encode())


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    with serve_fake(make_layout()) as server:
        yield server


def test_a_token_is_got_with_the_password_and_used_for_all(
    fake: FakeRegistry, server: FakeRegistry, blobs: Blobs
) -> None:
    Tokens(fake, server)
    log_in(fake.host)
    pulled(fake, blobs)
    (request,) = server.requests
    assert request.path == "/token?a=1&scope=repository%3Aa%2Fb%3Apull&service=s+p"
    assert {request.headers.get("authorization") for request in fake.requests} == {None, "Bearer t1"}
    assert_whole(blobs, fake)


def test_anonymous_users_get_a_token_too(fake: FakeRegistry, server: FakeRegistry, blobs: Blobs) -> None:
    Tokens(fake, server).wants = ""
    pulled(fake, blobs)
    (request,) = server.requests
    assert "authorization" not in request.headers


def test_a_token_that_has_expired_is_renewed(
    fake: FakeRegistry, server: FakeRegistry, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "THREADS", 1)
    tokens = Tokens(fake, server, good_for=2)
    log_in(fake.host)
    pulled(fake, blobs)
    assert tokens.given > 1
    assert_whole(blobs, fake)


def test_an_identity_token_is_changed_for_a_token(
    fake: FakeRegistry, server: FakeRegistry, blobs: Blobs
) -> None:
    Tokens(fake, server).wants = ""
    log_in(fake.host, auth="", identitytoken="very&secret")
    pulled(fake, blobs)
    (request,) = server.requests
    assert request.method == "POST"
    assert b"grant_type=refresh_token" in request.body
    assert b"refresh_token=very%26secret" in request.body


@pytest.mark.parametrize("logged_in", [True, False])
def test_a_refused_token_names_the_cure_and_no_secret(
    fake: FakeRegistry, server: FakeRegistry, blobs: Blobs, logged_in: bool
) -> None:
    Tokens(fake, server).wants = "something else"
    if logged_in:
        log_in(fake.host)
    text = failure(fake, blobs)
    user = f"user 'alice' of {os.environ['REGISTRY_AUTH_FILE']}" if logged_in else "anonymous users"
    assert text.startswith(f"{fake.host} does not let {user} pull a/b: its token server")
    assert text.endswith(f"; run: docker login {fake.host}, or: skopeo login {fake.host}")
    assert "secret" not in text.replace(os.environ["REGISTRY_AUTH_FILE"], "")
    assert ALICE not in text


def test_a_redirect_of_the_token_server_is_not_followed(
    fake: FakeRegistry, server: FakeRegistry, blobs: Blobs
) -> None:
    Tokens(fake, server)
    log_in(fake.host)
    server.rules.insert(0, lambda request: Reply(302, headers={"Location": f"http://{fake.host}/take"}))
    assert "answers 302, and with no token" in failure(fake, blobs)
    assert fake.asked("/take") == []


@pytest.mark.parametrize(
    "realm", ["ftp://127.0.0.1/", "http://[bad/", "", "/token"], ids=["scheme", "malformed", "none", "path"]
)
def test_a_realm_that_is_no_url_is_refused(
    fake: FakeRegistry, server: FakeRegistry, blobs: Blobs, realm: str
) -> None:
    Tokens(fake, server).realm = realm
    assert "which is no https URL" in failure(fake, blobs)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"token": 1}', b'{"token": "a\\r\\nX: 1"}', b"[" * 100_000],
    ids=["empty", "list", "number", "header", "deep"],
)
def test_a_token_that_is_none_is_refused(
    fake: FakeRegistry, server: FakeRegistry, blobs: Blobs, body: bytes
) -> None:
    Tokens(fake, server)
    log_in(fake.host)
    server.rules.insert(0, lambda request: Reply(200, body))
    assert "answers 200, and with no token" in failure(fake, blobs)


def test_a_kind_of_login_that_nobody_knows(fake: FakeRegistry, blobs: Blobs) -> None:
    fake.rules.append(lambda request: Reply(401, headers={"WWW-Authenticate": "Negotiate"}))
    assert failure(fake, blobs) == f"{fake.host} asks for a login of a kind that is not known here"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['Bearer realm="https://a/b",service="c"'], {"bearer": {"realm": "https://a/b", "service": "c"}}),
        (['basic REALM="a, \\"b\\""'], {"basic": {"realm": 'a, "b"'}}),
        (
            ['Basic realm="a"', "Bearer realm = b , scope=c"],
            {"basic": {"realm": "a"}, "bearer": {"realm": "b", "scope": "c"}},
        ),
        (['Negotiate, Basic realm="a"'], {"negotiate": {}, "basic": {"realm": "a"}}),
        (['realm="a"', "", '"""'], {}),
    ],
)
def test_challenges(headers: list[str], expected: dict[str, dict[str, str]]) -> None:
    assert parse_challenges(headers) == expected


def test_docker_hub_is_at_another_address_and_has_a_library(
    fake: FakeRegistry, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.API_HOSTS == {"docker.io": "registry-1.docker.io"}
    monkeypatch.setitem(client.API_HOSTS, "docker.io", fake.host)
    monkeypatch.setenv("PYTEST_ISOLATE_INSECURE_REGISTRIES", "docker.io")
    log_in("https://index.docker.io/v1/")
    fake.rules.append(basic)
    pull(parse_reference("docker.io/alpine"), blobs, AMD64)
    assert {request.path.rpartition("/")[0] for request in fake.requests} - {""} == {
        "/v2/library/alpine/manifests",
        "/v2/library/alpine/blobs",
    }

"""Cut and refused connections, redirects, TLS."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images import transport
from pytest_isolate.sandbox.images.blobs import Blobs
from pytest_isolate.sandbox.images.reference import parse_reference
from pytest_isolate.sandbox.images.registry import pull
from pytest_isolate.sandbox.images.transport import Transport, is_loopback

from ...fake_registry import FakeRegistry, Reply, Request, serve_fake
from ...oci_layout import make_layout
from ...registry_server import need_programs
from .pulling import AMD64, assert_whole, basic, failure, large, log_in, partial, pulled


def test_a_cut_download_goes_on_where_it_ended(fake: FakeRegistry, blobs: Blobs) -> None:
    digest = large(fake.layout)
    fake.once(digest, lambda request: Reply(200, fake.layout.blobs[digest], sent_bytes=100_000))
    pulled(fake, blobs)
    first, second = fake.asked(digest)
    assert "range" not in first.headers
    assert second.headers["range"] == "bytes=100000-"
    assert_whole(blobs, fake)


def test_a_download_that_is_cut_again_and_again_says_so(fake: FakeRegistry, blobs: Blobs) -> None:
    """What has come stays, and the next pull goes on from there."""
    digest = large(fake.layout)

    def cut(request: Request) -> Reply | None:
        if digest not in request.path:
            return None
        normal = fake.normal(request)
        return Reply(normal.status, normal.body, normal.headers, sent_bytes=1000)

    fake.rules.append(cut)
    data = fake.layout.blobs[digest]
    assert f"came 5000 of {len(data)} bytes, and then 5 times the end of the connection" in failure(
        fake, blobs
    )
    assert partial(blobs, digest).read_bytes() == fake.layout.blobs[digest][:5000]
    fake.rules.clear()
    fake.requests.clear()
    pulled(fake, blobs)
    assert [request.headers["range"] for request in fake.asked(digest)] == ["bytes=5000-"]
    assert_whole(blobs, fake)


def test_a_blob_may_come_in_chunks_and_be_cut(fake: FakeRegistry, blobs: Blobs) -> None:
    """Its length is not known then."""
    digest = large(fake.layout)
    chunked = {"Transfer-Encoding": "chunked"}
    fake.once(digest, lambda request: Reply(200, fake.layout.blobs[digest], chunked, sent_bytes=100_000))
    fake.once(
        digest, lambda request: replace(fake.normal(request), headers=fake.normal(request).headers | chunked)
    )
    pulled(fake, blobs)
    assert [request.headers.get("range") for request in fake.asked(digest)] == [None, "bytes=100000-"]
    assert_whole(blobs, fake)


@pytest.mark.parametrize("status", [200, 206, 416])
def test_a_registry_that_does_not_go_on_starts_anew(fake: FakeRegistry, blobs: Blobs, status: int) -> None:
    """It may ignore the range, send another one, or say that there is none."""
    digest = large(fake.layout)
    data = fake.layout.blobs[digest]
    other_range = {"Content-Range": f"bytes 7-{len(data) - 1}/{len(data)}"}
    reply = {200: Reply(200, data), 206: Reply(206, data[7:], other_range), 416: Reply(416)}[status]
    fake.once(digest, lambda request: Reply(200, data, sent_bytes=100_000))
    fake.rules.append(lambda request: reply if "range" in request.headers else None)
    pulled(fake, blobs)
    assert_whole(blobs, fake)


def test_what_was_left_and_is_wrong_is_got_from_the_start(fake: FakeRegistry, blobs: Blobs) -> None:
    digest = large(fake.layout)
    left = partial(blobs, digest)
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x" * 1000)
    pulled(fake, blobs)
    assert [request.headers.get("range") for request in fake.asked(digest)] == ["bytes=1000-", None]
    assert_whole(blobs, fake)


@pytest.mark.parametrize("extra_bytes", [0, 1])
def test_what_was_left_and_is_long_enough_is_checked(
    fake: FakeRegistry, blobs: Blobs, extra_bytes: int
) -> None:
    digest = large(fake.layout)
    left = partial(blobs, digest)
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x" * (len(fake.layout.blobs[digest]) + extra_bytes))
    pulled(fake, blobs)
    assert [request.headers.get("range") for request in fake.asked(digest)] == [None]
    assert_whole(blobs, fake)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_registry_is_asked_again(fake: FakeRegistry, blobs: Blobs, status: int) -> None:
    fake.once("/manifests/", lambda request: Reply(status, headers={"Retry-After": "0"}))
    fake.once("/blobs/", lambda request: Reply(status))
    pulled(fake, blobs)
    assert_whole(blobs, fake)


def test_a_manifest_that_is_cut_is_asked_for_again(fake: FakeRegistry, blobs: Blobs) -> None:
    data = fake.layout.blobs[fake.layout.top["digest"]]
    fake.once("/manifests/", lambda request: Reply(200, data, sent_bytes=10))
    pulled(fake, blobs)
    assert_whole(blobs, fake)


def test_a_registry_that_asks_to_wait_is_waited_for(
    fake: FakeRegistry, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(transport.Transport, "wait", lambda self, seconds: waited.append(seconds))
    fake.once("/manifests/", lambda request: Reply(429, headers={"Retry-After": "3"}))
    pulled(fake, blobs)
    assert max(waited) == 3


def test_too_long_a_pause_is_an_error_at_once(fake: FakeRegistry, blobs: Blobs) -> None:
    limit = b'{"errors": [{"message": "rate limit"}]}'
    fake.rules.append(lambda request: Reply(429, limit, {"Retry-After": "3600"}))
    text = failure(fake, blobs)
    assert text == f"{fake.host} was asked for too much: 429, 'rate limit'; try again in 3600.0 s"
    assert len(fake.asked("/manifests/")) == 1


def test_nobody_at_home(blobs: Blobs) -> None:
    with serve_fake(make_layout()) as fake:
        pass
    text = failure(fake, blobs)
    assert text.startswith(f"cannot pull from {fake.host}: ")
    assert "refused" in text


def test_an_insecure_registry_by_way_of_a_proxy(
    fake: FakeRegistry, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy, which is the fake, knows no tunnels: HTTPS fails. Neither name nor port need be there."""

    def proxy(request: Request) -> Reply | None:
        url = urlsplit(request.path)
        return fake.normal(replace(request, path=url.path)) if url.netloc == "registry.test:81" else None

    fake.rules.append(proxy)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://ann:word@{fake.host}")
    monkeypatch.setenv("no_proxy", "")
    reference = parse_reference("registry.test:81/a/b")
    with pytest.raises(ImageError, match=r"^cannot pull from registry\.test:81: .*501"):
        pull(reference, blobs, AMD64)
    assert fake.requests == []
    monkeypatch.setenv("PYTEST_ISOLATE_INSECURE_REGISTRIES", "registry.test:81")
    pull(reference, blobs, AMD64)
    assert {request.headers["proxy-authorization"] for request in fake.requests} == {"Basic YW5uOndvcmQ="}
    assert_whole(blobs, fake)


# --- redirects


def test_another_host_sees_no_credentials(fake: FakeRegistry, blobs: Blobs) -> None:
    log_in(fake.host)

    def redirect(request: Request) -> Reply | None:
        if "/blobs/" not in request.path:
            return None
        return Reply(307, headers={"Location": f"http://{other.host}{request.path}?signed=1"})

    with serve_fake(fake.layout) as other:
        fake.rules += [basic, redirect]
        pulled(fake, blobs)
    assert len(other.requests) == 4  # the configuration and three layers
    assert all("authorization" not in request.headers for request in other.requests)
    assert all("authorization" in request.headers for request in fake.asked("/blobs/"))
    assert_whole(blobs, fake)


def test_a_redirected_download_that_is_cut_goes_on(fake: FakeRegistry, blobs: Blobs) -> None:
    digest = large(fake.layout)
    with serve_fake(fake.layout) as other:
        target = f"http://{other.host}/v2/a/b/blobs/{digest}"
        redirect = Reply(302, headers={"Location": target})
        fake.rules.append(lambda request: redirect if digest in request.path else None)
        other.once(digest, lambda request: Reply(200, fake.layout.blobs[digest], sent_bytes=100_000))
        pulled(fake, blobs)
    assert other.requests[1].headers["range"] == "bytes=100000-"
    assert_whole(blobs, fake)


def test_another_host_that_wants_a_login_gets_none(fake: FakeRegistry, blobs: Blobs) -> None:
    log_in(fake.host)
    with serve_fake(fake.layout) as other:
        other.rules.append(basic)
        target = f"http://{other.host}/elsewhere"
        fake.rules += [basic, lambda request: Reply(302, headers={"Location": target})]
        assert "redirects to 127.0.0.1, which asks for a login" in failure(fake, blobs)
    assert all("authorization" not in request.headers for request in other.requests)


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://[bad/"])
def test_a_redirect_to_something_else_is_refused(fake: FakeRegistry, blobs: Blobs, target: str) -> None:
    fake.rules.append(lambda request: Reply(302, headers={"Location": f"{target}?secret=1"}))
    text = failure(fake, blobs)
    assert "redirects to" in text
    assert "secret" not in text


def test_redirects_without_end_are_ended(fake: FakeRegistry, blobs: Blobs) -> None:
    fake.rules.append(lambda request: Reply(302, headers={"Location": request.path}))
    assert "redirects more than 5 times" in failure(fake, blobs)


# --- TLS


@pytest.fixture(scope="module")
def certificate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself; its key beside it."""
    need_programs(request.config, "openssl")
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", f"{path}.key", "-out", path], check=True, capture_output=True)
    return path


@pytest.fixture
def encrypted(certificate: Path) -> Iterator[FakeRegistry]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, f"{certificate}.key")
    with serve_fake(make_layout(), context) as server:
        yield server


def test_tls_is_used_where_it_is_spoken(
    encrypted: FakeRegistry, blobs: Blobs, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    log_in(encrypted.host)
    encrypted.rules.append(basic)
    pulled(encrypted, blobs)
    assert_whole(blobs, encrypted)


def test_a_certificate_that_nobody_vouches_for_is_refused(encrypted: FakeRegistry, blobs: Blobs) -> None:
    """Also on loopback; nothing is sent without TLS instead."""
    text = failure(encrypted, blobs)
    assert "its certificate is not trusted" in text
    assert "let SSL_CERT_FILE name a file with its authority" in text
    assert encrypted.requests == []


def test_a_redirect_out_of_tls_is_refused(
    encrypted: FakeRegistry, blobs: Blobs, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    encrypted.rules.append(lambda request: Reply(302, headers={"Location": "http://127.0.0.1/x"}))
    assert "redirects to 'http://127.0.0.1/x', which is no https URL" in failure(encrypted, blobs)


def test_a_registry_elsewhere_is_asked_by_tls_only() -> None:
    assert Transport("registry.example", may_be_plain=False).base_url == "https://registry.example"
    assert not Transport("registry.example", may_be_plain=False).is_safe("http://registry.example/token")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("10.0.0.1", False),
        ("[fe80::1]", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected

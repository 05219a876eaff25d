"""Images pushed to a real registry by skopeo, and pulled by us. Faults: tests/unit/images."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images.blobs import Blobs
from pytest_isolate.sandbox.images.manifest import Descriptor, Platform, parse_config, parse_manifest
from pytest_isolate.sandbox.images.reference import parse_reference
from pytest_isolate.sandbox.images.registry import pull

from ..oci_layout import PLATFORMS, Layout, make_layout
from ..registry_server import PASSWORD, USER, RegistryServer

AMD64, ARM64 = PLATFORMS


@pytest.fixture(scope="module")
def pushed(registry: RegistryServer) -> Layout:
    layout = make_layout()
    registry.push(layout, "library/tiny:1")
    return layout


@pytest.fixture(scope="module")
def closed(closed_registry: RegistryServer) -> Layout:
    layout = make_layout()
    closed_registry.push(layout, "team/secret:1")
    return layout


@pytest.fixture(autouse=True)
def logins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where logins are kept: nowhere yet."""
    path = tmp_path / "logins/auth.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(path))
    path.parent.mkdir()
    return path


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "store")


def pulled(server: RegistryServer, name: str, blobs: Blobs, platform: Platform = AMD64) -> Descriptor:
    return pull(parse_reference(f"{server.host}/{name}"), blobs, platform)


def last_layer(blobs: Blobs, manifest: Descriptor) -> dict[str, bytes]:
    """Its files. That of the images of :func:`make_layout` names the platform."""
    digest = parse_manifest(blobs.read_document(manifest.digest)).layers[-1].digest
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blobs.path(digest).read_bytes()))) as archive:
        return {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]


@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
@pytest.mark.parametrize("named_by", ["tag", "digest", "both"])
def test_by_tag_and_by_digest(
    registry: RegistryServer, pushed: Layout, blobs: Blobs, platform: Platform, named_by: str
) -> None:
    digest = f"@{pushed.top['digest']}"
    name = {"tag": ":1", "digest": digest, "both": f":none{digest}"}[named_by]
    found = pulled(registry, f"library/tiny{name}", blobs, platform)
    assert found.digest == pushed.manifests[platform]["digest"]
    assert last_layer(blobs, found) == {"etc/platform": str(platform).encode()}
    manifest = parse_manifest(blobs.read_document(found.digest))
    assert parse_config(blobs.read_document(manifest.config.digest)).platform == platform
    assert all(blobs.is_whole(layer.digest) for layer in manifest.layers)


def test_the_manifest_of_one_platform_by_its_digest(
    registry: RegistryServer, pushed: Layout, blobs: Blobs
) -> None:
    digest = pushed.manifests[ARM64]["digest"]
    assert pulled(registry, f"library/tiny@{digest}", blobs, ARM64).digest == digest
    with pytest.raises(ImageError, match="is an image for linux/arm64/v8, and none for linux/amd64"):
        pulled(registry, f"library/tiny@{digest}", blobs, AMD64)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("library/tiny:2", "/library/tiny:2 is not there: 404, 'manifest unknown'"),
        ("library/none:1", "/library/none:1 is not there: 404, 'manifest unknown'"),
        (f"library/tiny@sha256:{'0' * 64}", "000 is not there: 404, 'manifest unknown'"),
    ],
)
def test_what_is_not_there(
    registry: RegistryServer, pushed: Layout, blobs: Blobs, name: str, error: str
) -> None:
    with pytest.raises(ImageError, match=f"^{registry.host}.*{error}$"):
        pulled(registry, name, blobs)


def test_a_layer_that_rots_in_the_registry_is_refused_and_the_store_stays_usable(
    registry: RegistryServer, blobs: Blobs
) -> None:
    layout = make_layout([{"only": b"here"}, {"other": b"layer"}])
    registry.push(layout, "library/rotten:1")
    digest = layout.layers[0]
    good = registry.blob(digest).read_bytes()
    registry.blob(digest).write_bytes(b"X" + good[1:])
    with pytest.raises(ImageError, match=f"^{digest} is damaged: it has the digest sha256:"):
        pulled(registry, "library/rotten:1", blobs)
    assert not blobs.has(digest)
    registry.blob(digest).write_bytes(good)
    assert pulled(registry, "library/rotten:1", blobs).digest == layout.manifests[AMD64]["digest"]
    assert blobs.path(digest).read_bytes() == good


def test_a_manifest_that_rots_in_the_registry_is_refused(registry: RegistryServer, blobs: Blobs) -> None:
    layout = make_layout([{"another": b"one"}], platforms=[AMD64])
    registry.push(layout, "library/changed:1")
    digest = layout.top["digest"]
    data = registry.blob(digest).read_bytes()
    registry.blob(digest).write_bytes(data.replace(b'"schemaVersion"', b'"schemaversion"'))
    for name in ("library/changed:1", f"library/changed@{digest}"):
        with pytest.raises(ImageError):
            pulled(registry, name, blobs)
    assert not blobs.has(digest)


def test_the_rest_of_a_blob_comes_from_a_real_registry(
    registry: RegistryServer, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that is there is sent: only the last 1000 bytes of it are right in the registry."""
    layout = make_layout([{"large": os.urandom(200_000)}], platforms=[AMD64])
    registry.push(layout, "library/large:1")
    (digest,) = layout.layers
    good = registry.blob(digest).read_bytes()
    partial = blobs.directory / "partial" / digest.replace(":", "-")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(good[:-1000])
    registry.blob(digest).write_bytes(bytes(len(good) - 1000) + good[-1000:])
    pulled(registry, "library/large:1", blobs)
    assert blobs.path(digest).read_bytes() == good


def test_an_image_of_docker_s_own_format(registry: RegistryServer, pushed: Layout, blobs: Blobs) -> None:
    """As old registries and builders have it: skopeo changes one into it."""
    converted = f"docker://{registry.host}/library/docker:1"
    source = f"docker://{registry.host}/library/tiny@{pushed.manifests[AMD64]['digest']}"
    command = ["skopeo", "--insecure-policy", "copy", "--format=v2s2", "--quiet"]
    tls = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    subprocess.run([*command, *tls, source, converted], check=True)
    found = pulled(registry, "library/docker:1", blobs)
    assert found.media_type == "application/vnd.docker.distribution.manifest.v2+json"
    assert last_layer(blobs, found) == {"etc/platform": b"linux/amd64"}


# --- logins


def test_the_login_of_skopeo_is_used(
    closed_registry: RegistryServer, closed: Layout, blobs: Blobs, logins: Path
) -> None:
    login = ["skopeo", "login", "--tls-verify=false", f"--authfile={logins}", f"--username={USER}"]
    command = [*login, "--password-stdin", closed_registry.host]
    subprocess.run(command, input=PASSWORD.encode(), check=True, capture_output=True)
    for name in ("team/secret:1", f"team/secret@{closed.top['digest']}"):
        found = pulled(closed_registry, name, blobs)
        assert found.digest == closed.manifests[AMD64]["digest"]


def test_a_credential_helper_is_asked(
    closed_registry: RegistryServer,
    closed: Layout,
    blobs: Blobs,
    logins: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = logins.parent / "docker-credential-mine"
    answer = json.dumps({"ServerURL": closed_registry.host, "Username": USER, "Secret": PASSWORD})
    program.write_text(
        f"#!/bin/sh\nread -r server\n[ $server = {closed_registry.host} ] && echo '{answer}'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    logins.write_text(json.dumps({"credHelpers": {closed_registry.host: "mine"}}))
    assert pulled(closed_registry, "team/secret:1", blobs).digest == closed.manifests[AMD64]["digest"]


def test_without_a_login(closed_registry: RegistryServer, closed: Layout, blobs: Blobs) -> None:
    host = closed_registry.host
    with pytest.raises(ImageError) as caught:
        pulled(closed_registry, "team/secret:1", blobs)
    assert str(caught.value) == (
        f"{host} does not let anonymous users pull team/secret: it asks for user and password; "
        f"run: docker login {host}, or: skopeo login {host}"
    )


def test_with_a_wrong_password(
    closed_registry: RegistryServer, closed: Layout, blobs: Blobs, logins: Path
) -> None:
    logins.write_text(json.dumps({"auths": {closed_registry.host: {"auth": "YWxpY2U6aHVudGVyMg=="}}}))
    with pytest.raises(ImageError) as caught:
        pulled(closed_registry, "team/secret:1", blobs)
    text = str(caught.value)
    assert text.startswith(
        f"{closed_registry.host} does not let user 'alice' of {logins} pull team/secret: "
        "401, 'authentication required'; run: docker login "
    )
    assert "hunter2" not in text


def test_a_helper_that_is_missing_is_named(
    closed_registry: RegistryServer, closed: Layout, blobs: Blobs, logins: Path
) -> None:
    logins.write_text(json.dumps({"credsStore": "none-of-that-name"}))
    with pytest.raises(ImageError, match=r"\(docker-credential-none-of-that-name is not on PATH\); run: "):
        pulled(closed_registry, "team/secret:1", blobs)

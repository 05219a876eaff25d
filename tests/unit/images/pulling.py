"""What tests of pulls do and look at."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images.blobs import Blobs
from pytest_isolate.sandbox.images.manifest import Descriptor, Platform
from pytest_isolate.sandbox.images.reference import parse_reference
from pytest_isolate.sandbox.images.registry import pull

from ...fake_registry import FakeRegistry, Reply, Request
from ...oci_layout import PLATFORMS, Layout

AMD64 = PLATFORMS[0]
ALICE = "YWxpY2U6c2VjcmV0"  # alice:secret


def pulled(
    fake: FakeRegistry, blobs: Blobs, wanted: str = ":latest", platform: Platform = AMD64
) -> Descriptor:
    return pull(parse_reference(f"{fake.host}/a/b{wanted}"), blobs, platform)


def failure(fake: FakeRegistry, blobs: Blobs, wanted: str = ":latest", platform: Platform = AMD64) -> str:
    """The text of the error."""
    with pytest.raises(ImageError) as caught:
        pulled(fake, blobs, wanted, platform)
    text = str(caught.value)
    assert "\n" not in text
    return text


def large(layout: Layout) -> str:
    """The digest of the largest layer."""
    return max(layout.layers, key=lambda digest: len(layout.blobs[digest]))


def partial(blobs: Blobs, digest: str) -> Path:
    return blobs.directory / "partial" / digest.replace(":", "-")


def assert_whole(blobs: Blobs, fake: FakeRegistry) -> None:
    """The image for AMD64 is there, and no half of anything."""
    manifest = fake.layout.manifests[AMD64]
    document = json.loads(fake.layout.blobs[manifest["digest"]])
    for each in (manifest, document["config"], *document["layers"]):
        assert blobs.path(each["digest"]).read_bytes() == fake.layout.blobs[each["digest"]]
    assert [path for path in (blobs.directory / "partial").iterdir() if path.suffix != ".lock"] == []


def basic(request: Request) -> Reply | None:
    """A rule: Alice may come in."""
    if request.headers.get("authorization") == f"Basic {ALICE}":
        return None
    return Reply(401, headers={"WWW-Authenticate": 'Basic realm="test"'})


def log_in(host: str, auth: str = ALICE, **more: object) -> None:
    entry = {"auth": auth, **more}
    Path(os.environ["REGISTRY_AUTH_FILE"]).write_text(json.dumps({"auths": {host: entry}}))

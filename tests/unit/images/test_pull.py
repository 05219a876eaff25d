"""What a pull gets, and what it refuses. From a real registry: tests/kernel/test_registry.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytest

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images.blobs import Blobs
from pytest_isolate.sandbox.images.manifest import OCI_INDEX, OCI_MANIFEST, Platform
from pytest_isolate.sandbox.images.reference import parse_reference
from pytest_isolate.sandbox.images.registry import Access, pull

from ...fake_registry import FakeRegistry, Reply, Request, serve_fake
from ...oci_layout import PLATFORMS, digest_of_bytes, make_layout
from .pulling import AMD64, assert_whole, failure, large, partial, pulled


def test_by_tag_the_manifest_of_the_platform_is_returned(fake: FakeRegistry, blobs: Blobs) -> None:
    found = pulled(fake, blobs)
    assert found.digest == fake.layout.manifests[AMD64]["digest"]
    assert (found.media_type, found.platform) == (OCI_MANIFEST, AMD64)
    assert_whole(blobs, fake)
    assert not blobs.has(fake.layout.manifests[PLATFORMS[1]]["digest"])


def test_by_digest_an_image_that_is_there_takes_no_request(fake: FakeRegistry, blobs: Blobs) -> None:
    name = f"@{fake.layout.top['digest']}"
    found = pulled(fake, blobs, name)
    fake.requests.clear()
    assert pulled(fake, blobs, name) == found
    assert fake.requests == []


@pytest.mark.parametrize("by_tag", [True, False])
@pytest.mark.parametrize("what", ["index", "manifest", "layer"])
def test_what_was_damaged_in_the_store_is_got_again(
    fake: FakeRegistry, blobs: Blobs, what: str, by_tag: bool
) -> None:
    name = ":latest" if by_tag else f"@{fake.layout.top['digest']}"
    manifest = pulled(fake, blobs, name)
    digests = {"index": fake.layout.top["digest"], "manifest": manifest.digest, "layer": large(fake.layout)}
    digest = digests[what]
    blobs.path(digest).write_bytes(b"x" * len(fake.layout.blobs[digest]))
    fake.requests.clear()
    pulled(fake, blobs, name)
    asked = {request.path.rpartition("/")[2] for request in fake.requests} - {""}
    assert asked - {"latest"} == ({digest} if what != "index" or not by_tag else set())
    assert blobs.is_whole(fake.layout.top["digest"])
    assert_whole(blobs, fake)


def test_offline_what_is_there_is_enough(
    fake: FakeRegistry, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"@{fake.layout.top['digest']}"
    pulled(fake, blobs, name)
    monkeypatch.setenv("PYTEST_ISOLATE_OFFLINE", "1")
    fake.requests.clear()
    pulled(fake, blobs, name)
    blobs.path(large(fake.layout)).unlink()
    text = failure(fake, blobs, name)
    assert "is not wholly in the store, and PYTEST_ISOLATE_OFFLINE is set; unset it, or run before: " in text
    assert fake.requests == []


def test_an_index_without_the_platform_says_what_it_has(fake: FakeRegistry, blobs: Blobs) -> None:
    text = failure(fake, blobs, platform=Platform("linux", "riscv64"))
    assert text == "there is no image for linux/riscv64; there is: linux/amd64, linux/arm64/v8"


def test_an_image_of_another_platform_is_refused_before_its_layers(blobs: Blobs) -> None:
    with serve_fake(make_layout(platforms=PLATFORMS[1:])) as fake:
        assert failure(fake, blobs).endswith("is an image for linux/arm64/v8, and none for linux/amd64")
        assert not any(blobs.has(layer) for layer in fake.layout.layers)


def test_a_layer_that_comes_twice_is_got_once(blobs: Blobs) -> None:
    with serve_fake(make_layout([{"a": b"1"}, {"a": b"2"}, {"a": b"1"}], platforms=[AMD64])) as fake:
        pulled(fake, blobs)
        assert len(fake.asked("/blobs/")) == 3  # with the configuration
        assert_whole(blobs, fake)


# --- refused


def test_a_corrupted_layer_is_refused_and_the_others_stay(fake: FakeRegistry, blobs: Blobs) -> None:
    digest = large(fake.layout)
    wrong = b"x" * len(fake.layout.blobs[digest])
    fake.rules.append(lambda request: Reply(200, wrong) if digest in request.path else None)
    text = failure(fake, blobs)
    assert text.startswith(f"{digest} is damaged: it has the digest {digest_of_bytes(wrong)}")
    assert not blobs.has(digest)
    assert not partial(blobs, digest).exists()
    fake.rules.clear()
    pulled(fake, blobs)
    assert_whole(blobs, fake)


@pytest.mark.parametrize("length", ["true", "less", "more"])
def test_more_bytes_than_promised_are_not_kept(fake: FakeRegistry, blobs: Blobs, length: str) -> None:
    digest = large(fake.layout)
    data = fake.layout.blobs[digest]
    body = data + b"x" * 10_000_000
    says = {"true": len(body), "less": len(data) + 1, "more": 2 * len(body)}[length]
    reply = Reply(200, body, {"Content-Length": str(says)}, sent_bytes=len(body))
    fake.rules.append(lambda request: reply if digest in request.path else None)
    assert f"sends more than the {len(data)} bytes" in failure(fake, blobs)
    assert not partial(blobs, digest).exists()


def test_an_index_that_is_not_what_its_digest_says(fake: FakeRegistry, blobs: Blobs) -> None:
    name = "sha256:" + "0" * 64
    reply = Reply(200, fake.layout.blobs[fake.layout.top["digest"]], {"Content-Type": OCI_INDEX})
    fake.rules.append(lambda request: reply if name in request.path else None)
    text = failure(fake, blobs, f"@{name}")
    assert text.endswith(f"has the digest {fake.layout.top['digest']}, and should have {name}")
    assert not blobs.has(fake.layout.top["digest"])


def test_a_manifest_by_tag_is_compared_with_what_the_registry_names(fake: FakeRegistry, blobs: Blobs) -> None:
    named = {"Content-Type": OCI_INDEX, "Docker-Content-Digest": "sha256:" + "0" * 64}
    data = fake.layout.blobs[fake.layout.top["digest"]]
    fake.once("/manifests/", lambda request: Reply(200, data, named))
    assert "should have sha256:000" in failure(fake, blobs)


def test_a_manifest_that_lies_about_a_size_removes_nothing_from_the_store(
    fake: FakeRegistry, blobs: Blobs
) -> None:
    pulled(fake, blobs)
    manifest = json.loads(fake.layout.blobs[fake.layout.manifests[AMD64]["digest"]])
    for layer in manifest["layers"]:
        layer["size"] += 1
    fake.layout.tag = "lying"
    fake.layout.top = fake.layout.add_json(manifest, OCI_MANIFEST)
    assert "gives blob sha256:" in failure(fake, blobs, ":lying")
    assert_whole(blobs, fake)


def test_a_manifest_of_absurd_length_is_not_read(fake: FakeRegistry, blobs: Blobs) -> None:
    reply = Reply(200, b" " * (5 * 2**20))
    fake.rules.append(lambda request: reply if "/manifests/" in request.path else None)
    assert "more than 4194304 bytes" in failure(fake, blobs)


def test_an_index_of_an_index_is_refused(fake: FakeRegistry, blobs: Blobs) -> None:
    inner = {**fake.layout.top, "platform": {"os": "linux", "architecture": "amd64"}}
    fake.layout.manifests[Platform("none", "none")] = inner
    fake.layout.top = fake.layout.add_json({"schemaVersion": 2, "manifests": [inner]}, OCI_INDEX)
    assert "names another index" in failure(fake, blobs)


def test_a_document_that_is_index_and_manifest_at_once_is_refused(fake: FakeRegistry, blobs: Blobs) -> None:
    manifest = json.loads(fake.layout.blobs[fake.layout.manifests[AMD64]["digest"]])
    fake.layout.top = fake.layout.add_json({**manifest, "manifests": []}, OCI_MANIFEST)
    assert "an index and a manifest at once" in failure(fake, blobs)


def test_a_store_that_cannot_be_written_is_named(fake: FakeRegistry, blobs: Blobs) -> None:
    blobs.directory.write_text("a file")
    name = f"{fake.host}/a/b:latest"
    assert failure(fake, blobs) == f"cannot pull {name} to {blobs.directory}: File exists"


# --- the process

PULL = """
import sys
from pathlib import Path
from pytest_isolate.sandbox.images.blobs import Blobs
from pytest_isolate.sandbox.images.manifest import Platform
from pytest_isolate.sandbox.images.reference import parse_reference
from pytest_isolate.sandbox.images.registry import pull
pull(parse_reference(sys.argv[1]), Blobs(Path(sys.argv[2])), Platform("linux", "amd64"))
"""


def puller(fake: FakeRegistry, blobs: Blobs) -> Sequence[str]:
    return [sys.executable, "-c", PULL, f"{fake.host}/a/b:latest", str(blobs.directory)]


def test_several_processes_bring_it_once(fake: FakeRegistry, blobs: Blobs) -> None:
    running = [subprocess.Popen(puller(fake, blobs)) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(fake.asked("/blobs/")) == 4  # the configuration and three layers
    assert_whole(blobs, fake)


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_an_ended_pull_leaves_what_the_next_one_needs(fake: FakeRegistry, blobs: Blobs, name: str) -> None:
    """It ends although the registry has stopped sending, and does not close the connection."""
    digest = large(fake.layout)
    data = fake.layout.blobs[digest]
    stalled = Reply(200, data[:50_000], {"Content-Length": str(len(data))})
    fake.rules.append(lambda request: stalled if digest in request.path else None)
    process = subprocess.Popen(puller(fake, blobs), stderr=subprocess.DEVNULL)
    while not partial(blobs, digest).exists() or partial(blobs, digest).stat().st_size < 50_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.Signals[name])
    assert process.wait(20) != 0
    fake.rules.clear()
    fake.requests.clear()
    pulled(fake, blobs)
    assert [request.headers["range"] for request in fake.asked(digest)] == ["bytes=50000-"]
    assert_whole(blobs, fake)


def test_a_failed_layer_ends_the_pull_although_another_hangs(blobs: Blobs) -> None:
    """And the thread of the other one ends with it."""
    layout = make_layout([{"hangs": os.urandom(100_000)}, {"fails": os.urandom(1000)}], platforms=[AMD64])
    hangs, fails = layout.layers
    reached = threading.Event()

    def rule(request: Request) -> Reply | None:
        if hangs in request.path:
            reached.set()
            return Reply(200, layout.blobs[hangs][:1000], {"Content-Length": str(10**6)})
        if fails in request.path:
            reached.wait(20)
            return Reply(404)
        return None

    with serve_fake(layout) as fake:
        fake.rules.append(rule)
        assert f"blob {fails} of {fake.host}/a/b:latest is not there" in failure(fake, blobs)
        left = [thread for thread in threading.enumerate() if thread.name == "pull"]
    assert left == []


def test_without_urllib3_the_error_says_what_to_install(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "urllib3", None)
    for name in ("client", "transport"):
        monkeypatch.delitem(sys.modules, f"pytest_isolate.sandbox.images.{name}", raising=False)
    with pytest.raises(ImageError, match=r"pip install 'pytest-isolate-ns\[images\]'$"):
        pull(parse_reference("localhost:1/a"), blobs, AMD64)


def test_urllib3_is_imported_for_a_pull_only() -> None:
    code = "import sys, pytest_isolate.sandbox.images.registry; assert 'urllib3' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Access.of_environment() == Access()
    monkeypatch.setenv("PYTEST_ISOLATE_INSECURE_REGISTRIES", "a.example:5000, b.example")
    monkeypatch.setenv("PYTEST_ISOLATE_OFFLINE", "1")
    assert Access.of_environment() == Access(frozenset({"a.example:5000", "b.example"}), offline=True)

"""A registry that misbehaves, an empty store, and nobody logged in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_isolate.sandbox.images import registry, transport
from pytest_isolate.sandbox.images.blobs import Blobs

from ...fake_registry import FakeRegistry, serve_fake
from ...oci_layout import make_layout


@pytest.fixture(autouse=True)
def _no_pauses_and_no_logins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(transport, "PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(registry, "PAUSE_S", 0.0)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    for name in ("PYTEST_ISOLATE_OFFLINE", "PYTEST_ISOLATE_INSECURE_REGISTRIES", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """One layer is longer than a chunk, also when it is compressed."""
    with serve_fake(make_layout([{"large": os.urandom(300_000)}, {"small": b"1"}])) as server:
        yield server


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "store")

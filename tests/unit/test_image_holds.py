"""Layers that sessions hold are not pruned, and no death and no fork keeps them held."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from pytest_isolate.sandbox.images.archives import import_image
from pytest_isolate.sandbox.images.holds import Holds, unless_held
from pytest_isolate.sandbox.images.manifest import own_platform
from pytest_isolate.sandbox.images.prune import Pruned, prune
from pytest_isolate.sandbox.images.store import Store

from ..archives import Layout, directory, file

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With one image, ``it``, whose layer is not unpacked."""
    layout = Layout(tmp_path / "layout")
    layout.add([directory("etc"), file("etc/name", "held")])
    store = Store(tmp_path / "store")
    import_image(layout.path, store, own_platform(), name="it")
    return store


@pytest.fixture
def holds() -> Iterator[Holds]:
    holds = Holds()
    yield holds
    holds.close()


def mounted(store: Store, holds: Holds | None) -> Path:
    """The layer of ``it``, as a session has it that was told to get it."""
    own = Store(store.directory, holds)
    stored = own.find("it", own_platform())
    assert stored is not None
    (layer,) = own.image(stored).layers
    return Path(layer)


def cleared(store: Store) -> Pruned:
    """After all names are gone, with all that nobody uses."""
    store.remove("it")
    return prune(store, in_use_s=0)


@pytest.mark.parametrize("is_unpacked", [False, True])
def test_a_held_layer_stays_until_it_is_let_go(store: Store, holds: Holds, is_unpacked: bool) -> None:
    if is_unpacked:
        mounted(store, None)
    layer = mounted(store, holds)
    pruned = cleared(store)
    assert pruned.held_bytes > 0
    assert pruned.freed_bytes > 0  # the blobs, which nobody mounts
    assert (layer / "etc/name").read_text() == "held"
    holds.close()
    assert prune(store, in_use_s=0).held_bytes == 0
    assert not layer.exists()


def test_each_session_holds_it(store: Store, holds: Holds) -> None:
    """As the workers of xdist do."""
    other = Holds()
    layer = mounted(store, holds)
    assert mounted(store, other) == layer
    other.close()
    assert cleared(store).held_bytes > 0
    assert layer.exists()


def _hold(directory: Path, held: Connection) -> None:
    mounted(Store(directory), Holds())
    held.send(True)
    time.sleep(60)


def test_a_kill_lets_go(store: Store) -> None:
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_hold, args=(store.directory, theirs))
    process.start()
    assert ours.recv()
    assert cleared(store).held_bytes > 0
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert prune(store, in_use_s=0).held_bytes == 0
    assert not [*(store.directory / "layers/sha256").glob("*.json")]


def test_a_fork_neither_keeps_it_nor_lets_it_go(store: Store, holds: Holds) -> None:
    """A process that a test has left behind, when pytest has ended."""
    layer = mounted(store, holds)
    survivor = FORK.Process(target=time.sleep, args=(60,))
    survivor.start()
    try:
        with unless_held(layer) as is_free:
            assert not is_free
        holds.close()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # it may not have come to run yet
            with unless_held(layer) as is_free:
                if is_free:
                    break
        assert is_free
        assert survivor.is_alive()
    finally:
        survivor.kill()
        survivor.join()


def test_what_is_executed_does_not_have_it(store: Store, holds: Holds) -> None:
    mounted(store, holds)
    assert [os.get_inheritable(fd) for fd in holds._fds.values()] == [False]


def test_a_layer_that_is_pruned_while_it_is_asked_for_is_unpacked_again(store: Store) -> None:
    """The hold comes before the look."""

    class Late(Holds):
        def add(self, layer: Path) -> None:
            layer.with_suffix(".json").unlink()
            shutil.rmtree(layer)
            super().add(layer)

    mounted(store, None)
    holds = Late()
    assert (mounted(store, holds) / "etc/name").read_text() == "held"
    holds.close()


def test_a_store_that_cannot_be_written_is_used_without(
    store: Store, holds: Holds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a read-only file system: for root too no mode says so."""
    layer = mounted(store, None)

    def refuse(path: Path, *args: object, **kwargs: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    for name in ("open", "utime"):
        monkeypatch.setattr(os, name, refuse)
    assert mounted(store, holds) == layer

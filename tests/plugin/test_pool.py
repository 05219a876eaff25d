"""Sandboxes made ahead, while another test runs: never to be noticed but by the clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]


@pytest.mark.vm
def test_each_test_has_a_sandbox_that_no_other_had(run: Runner) -> None:
    inner = run(
        """
        import os, pytest, time

        @pytest.mark.parametrize("i", range(6))
        def test_it(i):
            time.sleep(0.05)  # time enough to make the next one
            assert not os.path.exists("/tmp/mine")
            open("/tmp/mine", "w").close()
        """
    )
    assert inner.outcomes == {"passed": 6}
    assert len({r["sandbox"] for r in inner.records}) == 6


def test_a_test_holds_no_descriptor_of_the_next_sandbox(run: Runner) -> None:
    inner = run(
        """
        import os, pytest, time

        @pytest.mark.parametrize("i", range(4))
        def test_it(i):
            time.sleep(0.05)
            links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                     if os.path.lexists(f"/proc/self/fd/{fd}")]
            assert not [link for link in links if ":[" in link and not link.startswith(("pipe:", "socket:"))]
            assert "/" not in links
        """
    )
    assert inner.outcomes == {"passed": 4}


def test_one_that_could_not_be_made_ahead_is_made_when_it_is_due(run: Runner) -> None:
    inner = run(
        """
        import pathlib, pytest, time

        def test_first(): time.sleep(0.1)

        @pytest.fixture(scope="module")
        def data():
            pathlib.Path("data").mkdir()
            pathlib.Path("data/file").touch()

        @pytest.mark.isolated(binds={"data": "/data:ro"})
        def test_with_a_bind_that_a_fixture_makes(data):
            assert pathlib.Path("/data/file").exists()

        @pytest.mark.isolated(binds={"never": "/data"})
        def test_with_a_bind_that_nobody_makes(): pass
        """
    )
    assert inner.outcomes == {"passed": 2, "errors": 1}
    assert "never" in inner.out
    assert "No such file or directory" in inner.out


def test_tests_of_many_kinds_and_an_early_end_leave_nothing(run: Runner) -> None:
    inner = run(
        """
        import pytest

        @pytest.mark.parametrize(
            "i", [pytest.param(i, marks=pytest.mark.isolated(hostname=f"host-{i}")) for i in range(40)]
        )
        def test_it(i):
            import socket
            assert socket.gethostname() == f"host-{i}"
            assert i != 30
        """,
        "-x",
    )
    assert inner.outcomes == {"passed": 30, "failed": 1}

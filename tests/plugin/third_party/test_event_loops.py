"""Async tests: pytest-asyncio, anyio and pytest-trio, with fixtures of each scope."""

from __future__ import annotations

import pytest

from ..conftest import Both

pytestmark = pytest.mark.needs("user namespace")

ASYNCIO = """
    import asyncio, pytest, pytest_asyncio

    async def loop_in_use():
        await asyncio.sleep(0.01)
        return asyncio.get_running_loop()

    @pytest_asyncio.fixture(loop_scope="session", scope="session")
    async def of_session():
        yield await loop_in_use()
        await asyncio.sleep(0)

    @pytest_asyncio.fixture(loop_scope="module", scope="module")
    async def of_module():
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        server.close()

    @pytest_asyncio.fixture
    async def of_function(): return await loop_in_use()

    @pytest.mark.asyncio(loop_scope="session")
    async def test_session(of_session): assert of_session is await loop_in_use()

    @pytest.mark.asyncio(loop_scope="module")
    @pytest.mark.parametrize("i", range(2))
    async def test_module(of_module, i):
        reader, writer = await asyncio.open_connection("127.0.0.1", of_module)
        assert await reader.read() == b""
        writer.close()

    @pytest.mark.asyncio
    async def test_function(of_function): assert of_function is await loop_in_use()

    @pytest.mark.asyncio
    async def test_failure(of_function): assert await loop_in_use() is None

    def test_sync(): pass
"""


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_pytest_asyncio(both: Both, mode: str) -> None:
    pytest.importorskip("pytest_asyncio")
    options = ("-p", "asyncio", f"--asyncio-mode={mode}", "-o", "asyncio_default_fixture_loop_scope=function")
    plain, isolated = both(ASYNCIO, *options)
    assert plain.outcomes == isolated.outcomes == {"passed": 5, "failed": 1}


def test_anyio(both: Both) -> None:
    pytest.importorskip("trio")
    plain, isolated = both(
        """
        import anyio, pytest

        @pytest.fixture(scope="module", params=["asyncio", "trio"])
        def anyio_backend(request): return request.param

        @pytest.fixture(scope="module")
        async def of_module(anyio_backend):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 0.01)
                yield anyio.get_current_task().id

        @pytest.fixture
        async def of_function(anyio_backend):
            yield 1
            await anyio.sleep(0.01)

        @pytest.mark.anyio
        async def test_it(of_module, of_function):
            await anyio.sleep(0.01)
            assert of_module

        @pytest.mark.anyio
        async def test_failure(of_function): assert of_function == 2
        """,
        "-p",
        "anyio",
    )
    assert plain.outcomes == isolated.outcomes == {"passed": 2, "failed": 2}


def test_pytest_trio(both: Both) -> None:
    pytest.importorskip("pytest_trio")
    plain, isolated = both(
        """
        import pytest, trio

        @pytest.fixture
        async def started(nursery):
            nursery.start_soon(trio.sleep, 0.01)
            yield 5

        @pytest.mark.trio
        async def test_it(started):
            await trio.sleep(0.01)
            assert started == 5

        @pytest.mark.trio
        async def test_clock(autojump_clock):
            await trio.sleep(1000)
            assert 0
        """,
        "-p",
        "trio",
    )
    assert plain.outcomes == isolated.outcomes == {"passed": 1, "failed": 1}

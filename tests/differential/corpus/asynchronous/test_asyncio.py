"""asyncio without a plugin."""

import asyncio
import contextlib

import pytest


@pytest.fixture
def loop():
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        yield loop


def test_loop(loop):
    assert loop.run_until_complete(asyncio.sleep(0, "x")) == "x"


def test_run():
    async def serve():
        async def handle(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            line = await reader.readline()
            writer.close()
            return line

    assert asyncio.run(serve()) == b"hello\n"


def test_subprocess():
    async def run():
        process = await asyncio.create_subprocess_exec("echo", "x", stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        return out

    assert asyncio.run(run()) == b"x\n"


async def test_without_plugin():
    pass


def test_never_awaited():
    asyncio.sleep(0)

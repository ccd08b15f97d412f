"""The servers of tests leave no sockets."""

import asyncio
import contextlib
import gc
import socket

import pytest

from tests.listening import Listener


def ends(client: socket.socket) -> bool:
    with client, contextlib.suppress(ConnectionResetError):
        return client.recv(1) == b""
    return True


@pytest.mark.parametrize("turns", range(6))
def test_a_connection_is_closed_that_comes_at_the_end_of_the_server(turns: int) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def leave() -> socket.socket:
        async with Listener(handle) as listener:
            client = socket.create_connection(("127.0.0.1", listener.port))
            for _ in range(turns):
                await asyncio.sleep(0)
        return client

    client = asyncio.run(leave())
    gc.collect()  # a socket that is open warns
    client.settimeout(5)
    assert ends(client)


async def test_an_answer_arrives_whole_and_the_connection_ends() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 1_000_000)

    async with Listener(handle) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        assert len(await reader.read()) == 1_000_000
        writer.close()
        await writer.wait_closed()

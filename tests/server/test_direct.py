"""A direct connection whose client is quicker than the server."""

import asyncio

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from django_durable_streams.server.direct import DirectProtocol


class Connection(asyncio.Transport):
    """A connection that may have ended."""

    is_closed = False

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("lost_first", [True, False])
def test_a_live_read_learns_that_its_client_has_left(lost_first: bool) -> None:
    async def leave() -> None:
        protocol = DirectProtocol(
            prefix="/v1/stream/",
            config=Config(lambda scope: None, interface="asgi3", log_config=None),
            server_state=ServerState(),
            app_state={},
            _loop=asyncio.get_running_loop(),
        )
        connection = Connection()
        protocol.connection_made(connection)
        told: list[str] = []
        if lost_first:
            connection.close()
            protocol.connection_lost(None)
            assert told == []
            protocol.when_left(lambda: told.append("left"))
        else:
            protocol.when_left(lambda: told.append("left"))
            assert told == []
            connection.close()
            protocol.connection_lost(None)
        assert told == ["left"]

    asyncio.run(leave())

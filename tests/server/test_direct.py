"""A direct connection whose client is quicker than the server."""

import asyncio

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from django_durable_streams.server.direct import DirectProtocol


class Closed(asyncio.Transport):
    """A connection that has ended."""

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        """It is."""


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
        protocol.connection_made(Closed())
        if lost_first:
            protocol.connection_lost(None)
            left = protocol.left()
        else:
            left = protocol.left()
            protocol.connection_lost(None)
        assert left.done()

    asyncio.run(leave())

"""A client for what sockets do not do, and a look at what they have left."""

from collections.abc import Iterator

import pytest

from django_durable_streams.engine.engine import running_engines
from django_durable_streams.server import bodies, response_memory
from django_durable_streams.server.asgi import DurableStreams
from tests.access.conftest import make_user
from tests.asgi_client import AsgiClient

__all__ = ["make_user"]


@pytest.fixture
def client(engines: None, counted_generations: None) -> Iterator[AsgiClient]:
    """A client of the bare application. After the test no socket has left anything."""
    yield AsgiClient(DurableStreams())
    assert all(len(engine.live_reader_limit) == 0 for engine in running_engines())
    assert (response_memory.memory.held, bodies.memory.held) == (0, 0)

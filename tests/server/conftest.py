"""Both entry points, behind the same client: what is true of one has to be true of the other."""

import pytest
from django.core.asgi import get_asgi_application

from django_durable_streams.server.asgi import DurableStreams
from tests.asgi_client import AsgiClient


@pytest.fixture(params=["asgi", "django"])
def client(request: pytest.FixtureRequest, engines: None, counted_generations: None) -> AsgiClient:
    """A client of streams, served by the bare application, or by Django's views behind its usual middleware."""
    return AsgiClient(DurableStreams() if request.param == "asgi" else get_asgi_application())


@pytest.fixture
def direct(engines: None, counted_generations: None) -> AsgiClient:
    """A client of the bare application."""
    return AsgiClient(DurableStreams())

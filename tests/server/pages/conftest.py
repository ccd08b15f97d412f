"""A client of event sources, behind Django's usual middleware."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.test import override_settings

from django_durable_streams.server.asgi import DurableStreams
from tests.asgi_client import AsgiClient, Exchange, Reply
from tests.event_stream import Parsed, events_of
from tests.server.pages import renderers

TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [Path(__file__).parent / "templates"]}]


class PageClient(AsgiClient):
    """Follows streams as a page does, and changes them through the protocol."""

    def source(self, url: str, last_id: str = "", **headers: str) -> "EventSource":
        """Return a request for events that has not begun."""
        fields = {"accept": "text/event-stream", **headers}
        if last_id:
            fields["last-event-id"] = last_id
        pages = AsgiClient(self.application, root="/")
        return EventSource(pages.open("GET", url, fields))

    async def page(self, url: str, last_id: str = "", method: str = "GET", **headers: str) -> Reply:
        """Send a request for events, and return the whole response."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if last_id:
            fields["last-event-id"] = last_id
        return await AsgiClient(self.application, root="/").request(method, url, fields)

    async def data(self, url: str, last_id: str = "", **headers: str) -> list[str]:
        """Return the data of the unnamed events in a whole response."""
        reply = await self.page(url, last_id, **headers)
        assert reply.status == 200, reply.body
        return [event.data for event in events_of(reply.body).events if event.kind == "message"]


class EventSource:
    """An open event stream. Use it as an asynchronous context manager."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.raw = b""

    async def __aenter__(self) -> "EventSource":
        await self.exchange.__aenter__()
        return self

    async def __aexit__(self, *args: Any) -> None:
        await self.exchange.__aexit__(*args)

    async def until(self, count: int) -> list[str]:
        """Wait for a number of events from the beginning, and return their data."""
        while len(self.events().events) < count:
            chunk = await self.exchange.chunk()
            assert chunk is not None, f"the response has ended: {self.raw!r}"
            self.raw += chunk
        return [event.data for event in self.events().events]

    async def rest(self) -> Parsed:
        """Wait for the end of the response, and return all of its events."""
        while (chunk := await self.exchange.chunk()) is not None:
            self.raw += chunk
        return self.events()

    async def next_chunk(self) -> bytes | None:
        """Wait for the next chunk."""
        chunk = await self.exchange.chunk()
        self.raw += chunk or b""
        return chunk

    def events(self) -> Parsed:
        """Return the events that have come so far."""
        return events_of(self.raw)


@pytest.fixture
def pages(engines: None, counted_generations: None) -> Iterator[PageClient]:
    """A client of event sources and streams."""
    renderers.calls.clear()
    renderers.threads.clear()
    renderers.may_go_on.clear()
    with override_settings(ROOT_URLCONF="tests.server.pages.urls", TEMPLATES=TEMPLATES):
        yield PageClient(DurableStreams(fallback=get_asgi_application()))  # type: ignore[arg-type]
    renderers.may_go_on.set()

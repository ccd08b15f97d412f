"""The slots of readers of chats are free as soon as their requests have failed, without the garbage collector."""

import asyncio
import gc
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponseBase
from django.test import override_settings
from django.utils.deprecation import MiddlewareMixin

from django_durable_streams.contrib.ai.models import Chat
from django_durable_streams.engine import engine_for
from tests.ai.test_views import body, chunks, client_of, post
from tests.subscriptions.steps import USING

pytestmark = [pytest.mark.usefixtures("engines", "these_urls", "no_collector")]


@pytest.fixture
def these_urls() -> Iterator[None]:
    with override_settings(ROOT_URLCONF="tests.ai.test_views"):
        yield


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What holds itself stays, as in a server between two runs of the collector."""
    gc.disable()
    yield
    gc.enable()


MESSAGES = [{"id": "u2", "role": "user", "content": "Hi", "parts": [{"type": "text", "text": "Hi"}]}]


@pytest.mark.parametrize(
    ("url", "value", "status"),
    [
        ("/api/chat", body(messages=MESSAGES), 409),
        ("/api/agui", {"threadId": "c1", "runId": "r2", "messages": MESSAGES}, 409),
        ("/api/raced", body("c2"), 403),
        ("/api/broken", body("c3"), 500),
        ("/api/chat", body("-"), 400),
        ("/api/agui", {"threadId": "c1", "runId": "r2", "messages": []}, 400),
    ],
)
async def test_a_request_that_starts_no_answer_frees_its_slot_at_once(url: str, value: Any, status: int) -> None:
    client = await client_of("ann")
    client.raise_request_exception = False
    limit = engine_for(USING).live_reader_limit
    running = await post(client, "/api/chat", body(script={"count": 1000, "seconds": 0.02}))
    assert len(limit) == 1
    assert (await post(client, url, value)).status_code == status
    assert len(limit) == 1
    await client.post("/api/chat/c1/stop")
    await chunks(running)
    running.close()
    assert not len(limit)


class Slow(MiddlewareMixin):
    """Works on a streaming response in a thread, until it may go on."""

    works, goes_on = Event(), Event()

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if response.streaming:
            self.works.set()
            assert self.goes_on.wait(20)
        return response


@pytest.mark.parametrize("path", ["/api/chat/c1/stream", "/v1/stream/{}"])
async def test_a_client_that_leaves_before_its_response_begins_frees_its_slot_at_once(path: str) -> None:
    client = await client_of("ann")
    limit = engine_for(USING).live_reader_limit
    running = await post(client, "/api/chat", body(script={"count": 1000, "seconds": 0.02}))
    chat = await Chat.objects.select_related("stream").aget()
    middleware = [*settings.MIDDLEWARE, f"{__name__}.{Slow.__name__}"]
    Slow.works.clear()
    Slow.goes_on.clear()
    has_left = asyncio.Event()
    messages: list[Any] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await has_left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError("The client has left.")

    cookies = client.cookies.output(header="", sep=";").strip().encode()
    scope = {
        "type": "http",
        "method": "GET",
        "path": path.format(chat.path),
        "query_string": b"offset=-1&live=sse",
        "headers": [(b"host", b"testserver"), (b"cookie", cookies)],
    }
    with override_settings(MIDDLEWARE=middleware):
        request = asyncio.create_task(ASGIHandler()(scope, receive, send))
        assert await asyncio.to_thread(Slow.works.wait, 20)
        assert len(limit) == 2
        has_left.set()
        await asyncio.sleep(0)
        Slow.goes_on.set()
        await request
    assert len(limit) == 1
    await client.post("/api/chat/c1/stop")
    await chunks(running)
    running.close()
    assert not len(limit)

"""The slots of readers of chats are free as soon as their requests have failed, without the garbage collector."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

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

"""The URLs behind middleware that is synchronous only: its thread waits for the view."""

import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.test import override_settings

from tests.asgi_client import AsgiClient
from tests.overriding import override_streams


@pytest.fixture
def behind(engines: None) -> AsgiClient:
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, "tests.access.backends.UserOfHeader"]):
        return AsgiClient(get_asgi_application())


@override_streams(LONG_POLL_TIMEOUT=0.05)
async def test_every_kind_of_request_is_answered(behind: AsgiClient) -> None:
    await behind.create("a", b"abc")
    assert (await behind.append("a", b"def")).status == 204
    assert (await behind.get("a")).body == b"abcdef"
    assert (await behind.get("a?offset=now&live=long-poll")).status == 204
    async with behind.follow("a") as reader:
        assert await reader.chunk() is not None
        assert (await behind.append("a", b"x")).status == 204
        assert b"data:x" in (await reader.chunk() or b"")

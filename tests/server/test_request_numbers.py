"""Requests are counted once, at each entry point, with what they were and what they got."""

import pytest

from django_durable_streams.engine.numbers import numbers_for
from django_durable_streams.server import request_numbers
from tests.asgi_client import AsgiClient
from tests.metrics.numbers import Added, added_requests
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint

LABELS = {"asgi": "asgi", "django": "urls", "wsgi": "urls", "direct": "fast_path"}
TEXT = {"content-type": "text/plain"}


@pytest.mark.parametrize("name", ENTRY_POINTS)
@override_streams(LONG_POLL_TIMEOUT=0.02)
async def test_each_entry_point_counts_each_operation(name: str, engines: None) -> None:
    entry_point, label, counts = EntryPoint(name), LABELS[name], added_requests()
    errors = Added(lambda: request_numbers.stats().errors)
    await entry_point.request("PUT", "a", TEXT)
    await entry_point.request("PUT", "a", TEXT)
    for _ in range(3):
        await entry_point.request("POST", "a", TEXT, b"x")
    await entry_point.request("GET", "a")
    await entry_point.request("GET", "a?offset=-1")
    await entry_point.request("GET", "missing")
    await entry_point.request("HEAD", "a")
    await entry_point.request("GET", "a?offset=now&live=long-poll")
    await entry_point.request("GET", "a?live=long-poll")
    await entry_point.request("GET", "__ds/streams")
    await entry_point.request("DELETE", "a")
    got = {(operation, status): count for (at, operation, status), count in counts().items() if at == label}
    assert got == {
        ("create", 201): 1, ("create", 200): 1, ("append", 204): 3, ("read", 200): 2, ("read", 404): 1,
        ("head", 200): 1, ("long_poll", 204): 1, ("read", 400): 1, ("control", 200): 1, ("delete", 204): 1,
    }  # fmt: skip
    assert errors() == {"stream-not-found": 1, "invalid-offset": 1}


async def test_an_event_stream_is_counted_when_it_begins(direct: AsgiClient) -> None:
    await direct.create("a", b"abc")
    counts = added_requests()
    async with direct.follow("a", "-1", "sse") as reader:
        await reader.head()
        assert counts() == {("asgi", "sse", 200): 1}
    assert counts() == {("asgi", "sse", 200): 1}


async def test_clients_cannot_make_keys(direct: AsgiClient) -> None:
    counts = added_requests()
    for method in ("BREW", "PROPFIND"):
        await direct.request(method, "a")
    assert counts() == {("asgi", "other", 405): 2}


def test_numbers_of_a_database_are_the_same_object() -> None:
    assert numbers_for("of a test") is numbers_for("of a test")

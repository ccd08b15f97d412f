"""Requests are counted once, at each entry point, with what they were and what they got."""

from typing import Any

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


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"transfer-encoding": "chunked"}, "chunked"),
        ({"x-forwarded-for": "10.0.0.1"}, "proxy"),
        ({"expect": "100-continue"}, "expect"),
        ({"te": "trailers"}, "head"),
        ({"connection": "close"}, "head"),
    ],
)
async def test_requests_that_leave_the_fast_path_are_counted_by_reason(
    headers: dict[str, str], reason: str, engines: None
) -> None:
    exits = Added(lambda: request_numbers.stats().fast_path_exits)
    body = b"" if reason != "chunked" else b"0\r\n\r\n"
    if body:
        from tests.server.test_fast_path import connected

        protocol, _ = connected()
        protocol.data_received(
            b"POST /v1/stream/a HTTP/1.1\r\nhost: testserver\r\ntransfer-encoding: chunked\r\n\r\n" + body
        )
    else:
        await EntryPoint("direct").request("GET", "a", headers)
    assert exits() == {reason: 1}


async def test_other_paths_and_odd_bodies_leave_the_fast_path(engines: None) -> None:
    from tests.server.test_fast_path import connected

    async def exits_of(data: bytes) -> dict[Any, int]:
        exits = Added(lambda: request_numbers.stats().fast_path_exits)
        protocol, _ = connected()
        protocol.data_received(data)
        return exits()

    host = b"HTTP/1.1\r\nhost: testserver\r\n"
    assert await exits_of(b"GET /elsewhere " + host + b"\r\n") == {"path": 1}
    assert await exits_of(b"GET /v1/stream/a " + host + b"content-length: 3\r\n\r\n") == {"body": 1}
    assert await exits_of(b"GET /v1/stream/a HTT") == {"partial_head": 1}
    assert await exits_of(b"PUT /v1/stream/a " + host + b"content-length: 999999999999\r\n\r\n") == {"size": 1}


def test_numbers_of_a_database_are_the_same_object() -> None:
    assert numbers_for("of a test") is numbers_for("of a test")

"""Requests through proxies, with honest and forged headers: the fast path and plain ASGI show and answer the same."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Any

import pytest
from django.test import override_settings

from django_durable_streams.access.base import Permission
from django_durable_streams.server.asgi import DurableStreams
from tests.overriding import override_streams
from tests.server.client_end import LOCAL
from tests.server.uvicorn_pair import Pair, Peer, exits

pytestmark = pytest.mark.usefixtures("engines", "counted_generations")

PEERS: list[Peer] = [LOCAL, ("203.0.113.9", 4711), ("::1", 50_000), ("::ffff:127.0.0.1", 50_000), None]

FORWARDED_FOR = [
    b"198.51.100.7",
    b" 198.51.100.7\t",
    b"198.51.100.7, 10.0.0.1",
    b"6.6.6.6, 198.51.100.7, 127.0.0.1",
    b"127.0.0.1",
    b"127.0.0.1, 127.0.0.1",
    b"10.0.0.1, 6.6.6.6",
    b"198.51.100.7:4711",
    b"[2001:db8::1]:443",
    b"[2001:db8::1",
    b"2001:db8::1",
    b"::ffff:198.51.100.7",
    b"",
    b" ",
    b",",
    b", ,198.51.100.7,",
    b"unknown",
    b"_hidden, 198.51.100.7",
    b"testserver",
    b"\xff\xfe",
    b"198.51.100.7\x0b",
    b"198.51.100.7 10.0.0.1",
    b"6.6.6.6," * 200 + b"198.51.100.7",
    b"198.51.100.7" + b", 127.0.0.1" * 120,
    b"9" * 300,
]

PROTOS = [b"https", b"http", b"HTTPS", b" https ", b"https,http", b"wss", b"ws", b"ftp", b"", b"\xff", b"https" * 300]

TRUSTED = ["127.0.0.1", "*", "10.0.0.0/8, 127.0.0.1, ::1", "203.0.113.0/24", ""]


class Witness(Permission):
    """Allows everything, and records what it sees of the caller."""

    in_memory = True
    needs_user = False
    seen: list[Any] = []

    def can_read(self, user: Any, path: str, request: Any) -> bool:
        scope = dict(request.scope)
        scope["headers"] = sorted(scope["headers"])
        django_request = request.http_request
        self.seen.append(
            {
                "path": path,
                "address": request.address,
                "scope": scope,
                "secure": django_request.is_secure(),
                "meta": {name: value for name, value in django_request.META.items() if not name.startswith("wsgi")},
                "csrf": request.csrf_failure,
            }
        )
        return "refused" not in path

    can_create = can_append = can_close = can_delete = can_read


WITNESS = f"{__name__}.Witness"


def request(method: str, path: str, *lines: bytes, body: bytes = b"", host: bytes = b"testserver") -> bytes:
    """Return the bytes of a request for a stream."""
    head = [f"{method} /v1/stream/{path} HTTP/1.1".encode(), b"Host: " + host, *lines]
    if body:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def assert_same(pair: Pair, data: bytes, peer: Peer = LOCAL, *, status: int | None = None) -> None:
    """Both connections answer and log the same, and permissions see the same."""
    Witness.seen.clear()
    plain = await pair.plain(data, peer)
    seen_by_plain = [*Witness.seen]
    Witness.seen.clear()
    fast = await pair.fast(data, peer)
    assert fast == plain, (data, peer)
    assert Witness.seen == seen_by_plain, (data, peer)
    assert status is None or fast.status == status


@pytest.mark.parametrize(
    ("trusted", "proxies"),
    [(TRUSTED[0], ()), (TRUSTED[1], ()), *((trusted, ("127.0.0.1", "10.0.0.0/8")) for trusted in TRUSTED)],
)
async def test_the_same_caller_is_seen_whatever_the_headers_say(trusted: str, proxies: tuple[str, ...]) -> None:
    pair = Pair(DurableStreams(), forwarded_allow_ips=trusted)
    with override_streams(PERMISSION_CLASSES=WITNESS, TRUSTED_PROXIES=list(proxies)):
        assert (await pair.fast(request("PUT", "a"))).status == 201
        for peer, forwarded_for in product(PEERS, FORWARDED_FOR):
            lines = [b"X-Forwarded-For:" + forwarded_for, b"x-forwarded-proto: https"]
            await assert_same(pair, request("GET", "a", *lines), peer)
        for peer, proto in product(PEERS[:2], PROTOS):
            await assert_same(pair, request("GET", "a", b"X-Forwarded-Proto:" + proto), peer)


async def test_the_fast_path_serves_requests_of_proxies() -> None:
    pair = Pair(DurableStreams())
    lines = [b"X-Forwarded-For: 198.51.100.7", b"X-Forwarded-Proto: https", b"X-Real-IP: 198.51.100.7", b"TE: trailers"]
    with override_streams(PERMISSION_CLASSES=WITNESS):
        assert await pair.handed_over(request("PUT", "a", *lines)) == []
        assert await pair.handed_over(request("POST", "a", *lines, body=b"x")) == []
        assert await pair.handed_over(request("GET", "a", *lines)) == []
        assert await pair.handed_over(request("GET", "a", *lines, b"Connection: close")) == []
    assert Witness.seen[-1]["scope"]["client"] == ("198.51.100.7", 0)


async def test_a_header_in_several_lines_is_left_to_uvicorn() -> None:
    """HAProxy adds a line of its own to those of the client."""
    pair = Pair(DurableStreams())
    lines = [b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-For: 198.51.100.7"]
    with override_streams(PERMISSION_CLASSES=WITNESS, TRUSTED_PROXIES=["127.0.0.1"]):
        await pair.fast(request("PUT", "a"))
        for peer in PEERS:
            await assert_same(pair, request("GET", "a", *lines), peer)
        assert Witness.seen[-1]["address"] == "198.51.100.7"
        assert await pair.handed_over(request("GET", "a", *lines)) == ["repeated_header"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")},
        {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_TLS", "on"), "USE_X_FORWARDED_HOST": True},
        {"USE_X_FORWARDED_HOST": True, "ALLOWED_HOSTS": ["public.example"]},
        {"FORCE_SCRIPT_NAME": "/site"},
    ],
)
async def test_locations_and_host_checks_are_the_same(settings: dict[str, Any]) -> None:
    shapes = [
        [],
        [b"X-Forwarded-Proto: https"],
        [b"X-Forwarded-Proto: http", b"X-TLS: on"],
        [b"X-Forwarded-Host: public.example"],
        [b"X-Forwarded-Host: evil.example", b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-Proto: https"],
    ]
    with override_settings(**{"ALLOWED_HOSTS": ["testserver", "public.example"], **settings}):
        pair = Pair(DurableStreams())
        for number, (peer, shape) in enumerate(product(PEERS[:2], shapes)):
            answers = []
            for ask in (pair.plain, pair.fast):
                answers.append(await ask(request("PUT", f"{number}", *shape), peer))
                await pair.plain(request("DELETE", f"{number}", *shape), peer)
            assert answers[0] == answers[1]
            assert answers[0].status in (201, 400)
            await assert_same(pair, request("GET", "a", *shape, host=b"evil.example"), peer)


async def test_a_location_behind_a_proxy_has_its_scheme() -> None:
    pair = Pair(DurableStreams())
    answer = await pair.fast(request("PUT", "a", b"X-Forwarded-Proto: https"))
    assert answer.header("location") == b"https://testserver/v1/stream/a"
    answer = await pair.fast(request("PUT", "b", b"X-Forwarded-Proto: https"), ("203.0.113.9", 1))
    assert answer.header("location") == b"http://testserver/v1/stream/b"


async def test_a_forged_address_does_not_evade_a_limit() -> None:
    """Each address of the header would be another caller, but the client has written it."""
    pair = Pair(DurableStreams(), forwarded_allow_ips="*")
    with override_streams(RATE_LIMITS={"read": "3/d"}, TRUSTED_PROXIES=["127.0.0.1"]):
        await pair.fast(request("PUT", "a"))
        answers = [
            await pair.fast(request("GET", "a", b"X-Forwarded-For: 6.6.6.%d, 198.51.100.7" % number))
            for number in range(4)
        ]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert (await pair.plain(request("GET", "a", b"X-Forwarded-For: 198.51.100.7"))).status == 429
        assert (await pair.fast(request("GET", "a", b"X-Forwarded-For: 198.51.100.8"))).status == 200


async def test_refusals_are_the_same() -> None:
    pair = Pair(DurableStreams())
    with override_streams(PERMISSION_CLASSES=WITNESS):
        for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
            for lines in ([], [b"X-Forwarded-For: 6.6.6.6"], [b"Origin: https://evil.example", b"Cookie: a=b"]):
                await assert_same(pair, request(method, "refused", *lines), status=403)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("connection", [b"", b"Connection: close", b"Connection: keep-alive", b"Connection: Close"])
async def test_connections_that_end_are_the_same(version: str, connection: bytes) -> None:
    pair = Pair(DurableStreams())
    await pair.fast(request("PUT", "a", body=b"abc"))
    lines = [connection] if connection else []
    with override_streams(PERMISSION_CLASSES=WITNESS):
        for method in ("GET", "HEAD"):
            for path in ("a", "a?offset=now", "nowhere", "refused"):
                data = request(method, path, *lines).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
                await assert_same(pair, data)
                assert await pair.handed_over(data) == []
        data = request("GET", "a", *lines).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
        assert (await pair.fast(data)).is_closed == (version == "1.0" or b"lose" in connection)


async def test_requests_behind_one_that_ends_the_connection_are_dropped() -> None:
    pair = Pair(DurableStreams())
    await pair.fast(request("PUT", "a", body=b"abc"))
    last = request("GET", "a", b"Connection: close")
    for answer in (await pair.fast(last + request("DELETE", "a")), await pair.plain(last + request("DELETE", "a"))):
        assert (answer.body, answer.is_closed) == (b"abc", True)
    assert (await pair.plain(request("GET", "a"))).status == 200


async def test_a_prepared_answer_of_a_connection_that_ends_is_sent_to_nobody_else() -> None:
    pair = Pair(DurableStreams())
    await pair.fast(request("PUT", "a"))
    ends = [request("POST", "a", b"Connection: close", body=b"x"), request("POST", "a", body=b"x")] * 10
    with override_streams(PERMISSION_CLASSES=WITNESS):
        answers = await asyncio.gather(*(pair.fast(data) for data in ends))
    assert [answer.is_closed for answer in answers] == [True, False] * 10
    assert [answer.header("connection") for answer in answers] == [b"close", None] * 10


async def test_more_connections_than_the_limit_are_refused_by_both() -> None:
    pair = Pair(DurableStreams(), limit_concurrency=3)
    await pair.fast(request("PUT", "a"))
    with override_streams(PERMISSION_CLASSES=WITNESS):
        assert await pair.handed_over(request("GET", "a")) == []
        await assert_same(pair, request("GET", "a"), status=200)
        others: list[Any] = [object(), object()]
        pair.state.connections.update(others)
        await assert_same(pair, request("GET", "a"), status=503)
        assert await pair.handed_over(request("GET", "a")) == ["concurrency"]
        pair.state.connections.difference_update(others)
        await assert_same(pair, request("GET", "a"), status=200)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (request("OPTIONS", "a"), "method"),
        (request("PATCH", "a"), "method"),
        (request("GET", "a").replace(b"/v1", b"http://testserver/v1", 1), "target"),
        (b"GET / HTTP/1.1\r\nHost: testserver\r\n\r\n", "other_path"),
        (request("GET", "a", *[b"A%d: b" % number for number in range(70)]), "large_head"),
        (request("GET", "a", b"A: " + b"b" * 9000), "large_head"),
        (request("GET", "a", b"A: b", b"A: c"), "repeated_header"),
        (request("POST", "a", b"Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n\r\n", "chunked_body"),
        (request("POST", "a", b"Expect: 100-continue", body=b"x"), "expect"),
        (request("GET", "a", b"Connection: keep-alive, close"), "connection"),
        (request("POST", "a", b"Content-Length: 99999999999"), "length"),
    ],
)
async def test_requests_that_are_handed_over_are_counted_by_reason(data: bytes, reason: str) -> None:
    pair = Pair(DurableStreams())
    assert await pair.handed_over(data) == [reason]
    await assert_same(pair, data)


async def test_a_head_in_parts_is_counted_once() -> None:
    pair = Pair(DurableStreams())
    data = request("GET", "a")
    before = exits("head_in_parts")
    parts = [data[:20], data[20:30], data[30:]]
    assert await pair.fast(parts) == await pair.plain(parts)
    assert exits("head_in_parts") == before + 1

import pytest
from django.conf import settings
from django.test import override_settings

from tests.asgi_client import AsgiClient
from tests.overriding import override_streams

OURS = {"origin": "https://app.example"}
OTHERS = {"origin": "https://evil.example"}
ALLOWED = override_streams(CORS_ORIGINS=["https://app.example"])
ANYBODY = override_streams(CORS_ORIGINS=["*"])


async def test_pages_of_other_origins_may_do_nothing_by_default(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    for method in ("GET", "HEAD", "OPTIONS", "DELETE"):
        headers = (await client.request(method, "a", OURS)).headers
        assert not [name for name in headers if name.startswith("access-control-")]
    await client.create("a", b"abc")
    assert (await client.get("a")).headers["cross-origin-resource-policy"] == "same-origin"


@ALLOWED
async def test_only_the_pages_of_allowed_origins_may_read(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    ours, others = await client.request("GET", "a", OURS), await client.request("GET", "a", OTHERS)
    assert ours.headers["access-control-allow-origin"] == "https://app.example"
    assert "stream-next-offset" in ours.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in others.headers
    assert ours.headers["cross-origin-resource-policy"] == "cross-origin"
    assert "Origin" in ours.headers["vary"]
    assert "Origin" in others.headers["vary"]


@ANYBODY
async def test_every_page_may_read_and_none_with_credentials(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    for origin in (OURS, OTHERS):
        headers = (await client.request("GET", "a", origin)).headers
        assert headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in headers


@ALLOWED
async def test_errors_can_be_read_by_the_page_too(client: AsgiClient) -> None:
    for method, target in (("GET", "nowhere"), ("POST", "nowhere"), ("PUT", "a//b"), ("PATCH", "a")):
        reply = await client.request(method, target, OURS)
        assert reply.status >= 400
        assert reply.headers["access-control-allow-origin"] == "https://app.example"


@ALLOWED
async def test_a_preflight_allows_every_header_of_the_protocol(client: AsgiClient) -> None:
    asked = {**OURS, "access-control-request-method": "POST"}
    reply = await client.request("OPTIONS", "a", asked)
    assert (reply.status, reply.body) == (204, b"")
    allowed = set(reply.headers["access-control-allow-headers"].lower().split(", "))
    assert allowed >= {
        "content-type",
        "if-none-match",
        "authorization",
        "stream-seq",
        "stream-ttl",
        "stream-expires-at",
        "stream-closed",
        "producer-id",
        "producer-epoch",
        "producer-seq",
        "stream-forked-from",
        "stream-fork-offset",
        "stream-fork-sub-offset",
    }
    methods = set(reply.headers["access-control-allow-methods"].split(", "))
    assert methods >= {"GET", "HEAD", "POST", "PUT", "DELETE"}
    assert reply.headers["access-control-allow-origin"] == "https://app.example"


@pytest.mark.parametrize("allowed", [ALLOWED, ANYBODY], ids=["listed", "any"])
async def test_a_preflight_allows_what_pages_send_besides(client: AsgiClient, allowed: override_settings) -> None:
    async def headers_allowed() -> set[str]:
        reply = await client.request("OPTIONS", "a", {**OURS, "access-control-request-method": "POST"})
        return set(reply.headers["access-control-allow-headers"].lower().split(", "))

    with allowed:
        names = await headers_allowed()
        assert names >= {"x-csrftoken", "traceparent", "tracestate", "baggage", "sentry-trace", "last-event-id"}
        assert "x-api-key" not in names
        with override_settings(CSRF_HEADER_NAME="HTTP_X_XSRF_TOKEN"):
            assert "x-xsrf-token" in await headers_allowed()
        more = {**settings.DURABLE_STREAMS, "CORS_ALLOW_HEADERS": ["X-Api-Key", "x-trace"]}
        with override_settings(DURABLE_STREAMS=more):
            assert await headers_allowed() == names | {"x-api-key", "x-trace"}


@ALLOWED
async def test_credentials_are_for_origins_that_are_listed(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    for method in ("OPTIONS", "GET", "POST", "PUT", "DELETE"):
        ours = (await client.request(method, "a", {**OURS, "content-type": "text/plain"}, b"x")).headers
        assert ours["access-control-allow-credentials"] == "true"
        assert ours["access-control-allow-origin"] == "https://app.example"
        for origin in (
            "https://evil.example",
            "null",
            "http://app.example",
            "https://app.example:444",
            "https://app.example.evil",
        ):
            headers = (
                await client.request(method, "a", {"origin": origin, "content-type": "text/plain"}, b"x")
            ).headers
            assert not [name for name in headers if name.startswith("access-control-allow-")]


@ALLOWED
async def test_a_preflight_of_another_origin_is_not_granted(client: AsgiClient) -> None:
    reply = await client.request("OPTIONS", "a", OTHERS)
    assert not [name for name in reply.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("target", ["", "a//b", "nowhere", "__ds/x"])
async def test_options_answers_anywhere(client: AsgiClient, target: str) -> None:
    reply = await client.request("OPTIONS", target)
    assert reply.status == 204
    assert "GET" in reply.headers["allow"]

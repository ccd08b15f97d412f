import pytest

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


@ALLOWED
async def test_a_preflight_of_another_origin_is_not_granted(client: AsgiClient) -> None:
    reply = await client.request("OPTIONS", "a", OTHERS)
    assert not [name for name in reply.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("target", ["", "a//b", "nowhere", "__ds/x"])
async def test_options_answers_anywhere(client: AsgiClient, target: str) -> None:
    reply = await client.request("OPTIONS", target)
    assert reply.status == 204
    assert "GET" in reply.headers["allow"]

"""The listing of streams by HTTP, at every entry point, and who may have it."""

import json
import time
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser, User

from django_durable_streams.access.access_request import AccessRequest
from django_durable_streams.models import Stream
from django_durable_streams.permissions import Owner, Permission, sign
from django_durable_streams.server.asgi import DurableStreams
from tests.access.conftest import log_in_at_django
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint

PACKAGE = "django_durable_streams.permissions."
KEY = "a secret of at least 32 bytes, for tests"
BEARER = {"CLASS": PACKAGE + "BearerTokens", "KEY": KEY, "ALGORITHMS": ["HS256"]}
LIST = "__ds/streams"


@pytest.fixture
def streams(engines: None) -> None:
    for path in ("a/1", "a/2", "b/\u00e9"):
        Stream.objects.create(path=path, content_type="text/plain", data="abc")


@pytest.fixture
def client(streams: None) -> AsgiClient:
    return AsgiClient(DurableStreams())


@pytest.mark.parametrize("name", ENTRY_POINTS)
async def test_every_entry_point_lists(name: str, streams: None) -> None:
    entry_point = EntryPoint(name)
    reply = await entry_point.request("GET", LIST)
    assert reply.status == 200, reply.body
    assert (reply.headers["content-type"], reply.headers["cache-control"]) == ("application/json", "no-store")
    assert reply.headers["x-content-type-options"] == "nosniff"
    content = json.loads(reply.body)
    assert [stream["path"] for stream in content["streams"]] == ["a/1", "a/2", "b/\u00e9"]
    assert content["cursor"] is None
    row = content["streams"][0]
    read = await entry_point.request("HEAD", "a/1")
    assert row["next_offset"] == read.headers["stream-next-offset"]
    assert {name: row[name] for name in ("content_type", "size", "closed", "ttl", "expires_at")} == {
        "content_type": "text/plain",
        "size": 3,
        "closed": False,
        "ttl": None,
        "expires_at": None,
    }
    assert row["created_at"].endswith("Z")
    page = json.loads((await entry_point.request("GET", f"{LIST}?prefix=a/&limit=1")).body)
    assert [stream["path"] for stream in page["streams"]] == ["a/1"]
    rest = json.loads((await entry_point.request("GET", f"{LIST}?prefix=a/&limit=1&cursor={page['cursor']}")).body)
    assert ([stream["path"] for stream in rest["streams"]], rest["cursor"]) == (["a/2"], None)
    matching = json.loads((await entry_point.request("GET", f"{LIST}?pattern={quote('*/é')}")).body)
    assert [stream["path"] for stream in matching["streams"]] == ["b/\u00e9"]
    head = await entry_point.request("HEAD", LIST)
    assert (head.status, head.body) == (200, b"")
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        refused = await entry_point.request(method, LIST)
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (await entry_point.request("GET", f"{LIST}/a")).status == 404


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=1.5",
        "limit=%D9%A1",
        "limit=1&limit=2",
        "cursor=x",
        "prefix=%00",
        "prefix=a&prefix=b",
        "pattern=a*",
        "pattern=/",
        "prefix=%ff",
    ],
)
async def test_an_invalid_query_is_refused(client: AsgiClient, query: str) -> None:
    assert (await client.get(f"{LIST}?{query}")).status == 400


class Nothing(Permission):
    """Has no methods of its own."""


class BelowA(Permission):
    """Allows one prefix, in a thread."""

    def can_list(self, user: Any, prefix: str, request: AccessRequest) -> bool:
        return prefix.startswith("a/")


async def status(client: AsgiClient, query: str = "", **headers: str) -> int:
    return (await client.get(f"{LIST}{query}", **headers)).status


async def test_without_a_permission_nobody_lists(client: AsgiClient) -> None:
    for name in (PACKAGE + "ModelPermissions", PACKAGE + "ReadOnly", PACKAGE + "SignedURLs", f"{__name__}.Nothing"):
        with override_streams(PERMISSION_CLASSES=name):
            token = sign("a/1", "read", expires=60)
            assert [await status(client, query) for query in ("", "?prefix=a/", f"?token={token}")] == [403] * 3


async def test_the_refusal_does_not_depend_on_the_query(client: AsgiClient) -> None:
    with override_streams(PERMISSION_CLASSES=PACKAGE + "ModelPermissions"):
        replies = [await client.get(f"{LIST}?prefix={prefix}") for prefix in ("a/", "nothing/")]
        assert replies[0].body == replies[1].body


async def test_a_class_of_the_project_decides_by_prefix(client: AsgiClient) -> None:
    with override_streams(PERMISSION_CLASSES=f"{__name__}.BelowA"):
        queries = ("?prefix=a/", "?prefix=a/1", "?prefix=a", "", "?pattern=a/*")
        assert [await status(client, query) for query in queries] == [200, 200, 403, 403, 403]


async def test_a_user_who_may_view_streams_lists_them(client: AsgiClient) -> None:
    user = await sync_to_async(User.objects.create_superuser)("ann", password="x")
    django = await sync_to_async(log_in_at_django)(user)
    cookie = "; ".join(f"{key}={morsel.value}" for key, morsel in django.cookies.items())
    with override_streams(PERMISSION_CLASSES=PACKAGE + "ModelPermissions"):
        assert await status(client, cookie=cookie) == 200


async def test_a_token_names_patterns_that_match_all_below_a_prefix(client: AsgiClient) -> None:
    def bearer(*patterns: str) -> str:
        claims = {"exp": time.time() + 60, "streams": {"list": list(patterns)}}
        return f"Bearer {jwt.encode(claims, KEY, 'HS256')}"

    with override_streams(PERMISSION_CLASSES=BEARER):
        assert await status(client, "?prefix=a/", authorization=bearer("a/**")) == 200
        assert await status(client, authorization=bearer("**")) == 200
        for patterns in (("a/*",), ("b/**",), ("a/1",), ()):
            assert await status(client, "?prefix=a/", authorization=bearer(*patterns)) == 401


def test_owners_list_their_own_streams_only() -> None:
    user = User(username="ann", pk=42)
    owner = Owner(owner="users/{user.pk}/**")
    reasons: list[str] = []
    request: Any = SimpleNamespace(explain=reasons.append, explain_default=reasons.append)
    prefixes = ("users/42/", "users/42/x", "users/42", "users/4", "")
    assert [owner.can_list(user, prefix, request) for prefix in prefixes] == [True, True, False, False, False]
    assert len(reasons) == 3
    assert not owner.can_list(AnonymousUser(), "users/42/", request)
    reads = Owner(owner={"users/{user.pk}/**": ["read"], "open/**": ["list"], "open/*": ["list"]})
    assert [reads.can_list(user, prefix, request) for prefix in ("users/42/", "open/", "open")] == [False, True, False]


async def test_listings_are_counted(client: AsgiClient) -> None:
    with override_streams(RATE_LIMITS={"list": "2/h"}):
        assert [await status(client) for _ in range(3)] == [200, 200, 429]

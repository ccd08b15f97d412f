"""The registry over HTTP: who reads it, that no client writes to it, and that news come at once."""

import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User

from django_durable_streams.access.access_request import AccessRequest
from django_durable_streams.engine import engine_for
from django_durable_streams.models import Stream
from django_durable_streams.permissions import Permission, sign
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.store.operations import Append, Create, Delete
from django_durable_streams.subscriptions.service import service_for
from tests.access.conftest import log_in_at_django
from tests.asgi_client import AsgiClient, Reply
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint
from tests.server.waiting import elsewhere, until, watched

PACKAGE = "django_durable_streams.permissions."
REGISTRY = "__registry__"
JSON = {"content-type": "application/json"}


@pytest.fixture(autouse=True)
def _registry(engines: None) -> Any:
    with override_streams(REGISTRY_PATH=REGISTRY, LONG_POLL_TIMEOUT=10.0, POLL_INTERVAL=0.05):
        yield


@pytest.fixture
def client() -> AsgiClient:
    return AsgiClient(DurableStreams())


def told(body: bytes) -> list[tuple[str, str]]:
    return [(message["headers"]["operation"], message["key"]) for message in json.loads(body)]


async def there(request: Callable[[str, str], Any]) -> Reply:
    """Wait until the registry was created, and return the response to a GET."""
    reply = await request("GET", REGISTRY)
    while reply.status == 404:
        reply = await request("GET", REGISTRY)
    assert isinstance(reply, Reply)
    return reply


@pytest.mark.parametrize("name", ENTRY_POINTS)
async def test_every_entry_point_tells_and_refuses_writes(name: str) -> None:
    entry_point = EntryPoint(name)
    engine_for()
    reply = await there(entry_point.request)
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"[]", "application/json")
    assert (await entry_point.request("PUT", "a/b", JSON)).status == 201
    offset = reply.headers["stream-next-offset"]
    news = await entry_point.request("GET", f"{REGISTRY}?offset={offset}&live=long-poll")
    assert told(news.body) == [("insert", "a/b")]
    for method, headers, body in (
        ("PUT", JSON, b""),
        ("PUT", {**JSON, "stream-forked-from": "/v1/stream/a/b"}, b""),
        ("POST", JSON, b"{}"),
        ("POST", {"stream-closed": "true"}, b""),
        ("DELETE", {}, b""),
    ):
        refused = await entry_point.request(method, REGISTRY, headers, body)
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS"), (method, headers)
        assert json.loads(refused.body)["type"] == "urn:durable-streams:error:registry-read-only"
    assert (await entry_point.request("DELETE", "a/b")).status == 204
    offset = news.headers["stream-next-offset"]
    news = await entry_point.request("GET", f"{REGISTRY}?offset={offset}&live=long-poll")
    assert told(news.body) == [("delete", "a/b")]


async def test_an_event_stream_tells_what_other_processes_commit(client: AsgiClient) -> None:
    engine_for()
    await there(client.request)
    received = b""
    async with client.follow(REGISTRY, "now") as exchange:
        await until(lambda: watched() > 0)
        for kind, operation in (
            (b'"insert"', Create("a", "text/plain")),
            (b'"update"', Append("a", "text/plain", b"", close=True)),
            (b'"delete"', Delete("a")),
        ):
            await elsewhere(operation)
            while kind not in received:
                chunk = await exchange.chunk()
                assert chunk is not None
                received += chunk


class Readers(Permission):
    """Lets everybody read, and nobody list."""

    in_memory = True
    needs_user = False

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return True

    def can_create(self, user: Any, path: str, request: AccessRequest) -> bool:
        return True


class Listers(Permission):
    """Lets those list all streams who have a key."""

    allowed = True

    def can_list(self, user: Any, prefix: str, request: AccessRequest) -> bool:
        return prefix == "" and self.allowed and request.headers.get("authorization") == "key"


LISTED = f"{__name__}.Listers"


@pytest.mark.parametrize(
    "classes",
    [PACKAGE + "ModelPermissions", PACKAGE + "ReadOnly", PACKAGE + "SignedURLs", f"{__name__}.Readers", LISTED],
)
async def test_who_may_not_list_all_streams_does_not_read_it(client: AsgiClient, classes: str) -> None:
    engine_for()
    await there(client.request)
    with override_streams(PERMISSION_CLASSES=classes):
        token = sign(REGISTRY, "read", expires=60)
        for target in (
            REGISTRY,
            f"{REGISTRY}?token={token}",
            f"{REGISTRY}?offset=-1&live=sse",
            f"{REGISTRY}?offset=now&live=long-poll&token={token}",
            "%5f_registry__",
        ):
            for method in ("GET", "HEAD"):
                assert (await client.request(method, target)).status == 403, (method, target)


@pytest.mark.parametrize("name", ENTRY_POINTS)
@pytest.mark.parametrize("classes", [PACKAGE + "ReadOnly", f"{__name__}.Readers"])
async def test_no_entry_point_gives_it_to_who_may_read_all_else(name: str, classes: str) -> None:
    entry_point = EntryPoint(name)
    engine_for()
    tag = (await there(entry_point.request)).headers["etag"]
    await sync_to_async(Stream.objects.create)(path="a", content_type="application/json")
    with override_streams(PERMISSION_CLASSES=[classes, LISTED]):
        assert (await entry_point.request("GET", "a")).status == 200
        for target in (
            REGISTRY,
            f"{REGISTRY}?offset=-1",
            f"{REGISTRY}?offset=now",
            f"{REGISTRY}?offset=-1&live=long-poll",
            f"{REGISTRY}?offset=-1&%6cive=sse",
            f"{REGISTRY}?live=sse&offset=now",
            "__registr%79__?offset=-1",
        ):
            for method in ("GET", "HEAD"):
                for headers in ({}, {"if-none-match": tag}, {"last-event-id": "x"}):
                    reply = await entry_point.request(method, target, headers)
                    assert reply.status == 403, (method, target)
                    assert "stream-next-offset" not in reply.headers
        for source in (REGISTRY, "__registr%79__"):
            reply = await entry_point.request("PUT", "fork", {**JSON, "stream-forked-from": f"/v1/stream/{source}"})
            assert reply.status == 403, source
        assert (await entry_point.request("GET", REGISTRY, {"authorization": "key"})).status == 200


CLAIMS = "a secret that is long enough for HS256"


@pytest.mark.parametrize(
    ("patterns", "status"),
    [({"read": ["**"]}, 401), ({"list": ["a/**"], "read": ["**"]}, 401), ({"list": ["**"]}, 200)],
)
async def test_a_token_that_lists_some_streams_does_not_read_it(
    client: AsgiClient, patterns: dict[str, list[str]], status: int
) -> None:
    engine_for()
    await there(client.request)
    token = jwt.encode({"streams": patterns, "exp": time.time() + 60}, CLAIMS, "HS256")
    with override_streams(
        PERMISSION_CLASSES={"CLASS": PACKAGE + "BearerTokens", "key": CLAIMS, "algorithms": ["HS256"]}
    ):
        assert (await client.get(REGISTRY, authorization=f"Bearer {token}")).status == status


async def test_who_may_list_all_streams_reads_it_whatever_else_is_allowed(client: AsgiClient) -> None:
    engine_for()
    await there(client.request)
    with override_streams(PERMISSION_CLASSES=LISTED):
        for target in (REGISTRY, f"{REGISTRY}?offset=-1&live=long-poll"):
            if "live" in target:
                await sync_to_async(Stream.objects.create)(path="a")
            assert (await client.get(target, authorization="key")).status == 200
        assert (await client.get("a", authorization="key")).status == 403


async def test_a_fork_of_it_needs_the_same_permission(client: AsgiClient) -> None:
    engine_for()
    await there(client.request)
    fork = {"stream-forked-from": f"/v1/stream/{REGISTRY}"}
    with override_streams(PERMISSION_CLASSES=[f"{__name__}.Readers", LISTED]):
        assert (await client.request("PUT", "fork", fork)).status == 403
        assert (await client.request("PUT", "fork", {**fork, "authorization": "key"})).status == 201


async def test_a_live_read_ends_when_its_reader_may_not_list_any_more(
    client: AsgiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_for()
    await there(client.request)
    with override_streams(PERMISSION_CLASSES=LISTED, REAUTHORIZE_INTERVAL=0.05):
        async with client.follow(REGISTRY, authorization="key") as exchange:
            assert await exchange.chunk() is not None
            monkeypatch.setattr(Listers, "allowed", False)
            while await exchange.chunk() is not None:
                pass


async def test_a_user_who_may_view_streams_reads_it(client: AsgiClient) -> None:
    engine_for()
    await there(client.request)
    user = await sync_to_async(User.objects.create_superuser)("ann", password="x")
    django = await sync_to_async(log_in_at_django)(user)
    cookie = "; ".join(f"{key}={morsel.value}" for key, morsel in django.cookies.items())
    with override_streams(PERMISSION_CLASSES=PACKAGE + "ModelPermissions"):
        assert (await client.get(REGISTRY, cookie=cookie)).status == 200


async def test_no_shared_cache_keeps_it_for_readers_who_may_not_list(client: AsgiClient) -> None:
    engine_for()
    await there(client.request)
    assert (await client.request("PUT", "a", JSON)).status == 201
    with override_streams(PERMISSION_CLASSES=[PACKAGE + "ReadOnly", LISTED], CACHE_SCOPE="public"):
        for target in (REGISTRY, f"{REGISTRY}?offset=-1"):
            reply = await client.get(target, authorization="key")
            assert (reply.status, reply.headers["cache-control"]) == (200, "private, no-cache")
            assert "Authorization" in reply.headers["vary"]
        assert "private" not in (await client.get("a")).headers["cache-control"]


async def test_a_process_without_the_deliverys_thread_moves_the_entries_when_it_is_asked(client: AsgiClient) -> None:
    with override_streams(SUBSCRIPTION_DELIVERY=False):
        await sync_to_async(Stream.objects.create)(path="a")
        engine_for()
        assert (await client.get(REGISTRY)).status == 404
        await service_for().deliver()
        assert told((await client.get(REGISTRY)).body) == [("insert", "a")]


async def test_a_registry_that_cannot_be_written_is_logged_with_its_remedy(
    client: AsgiClient, caplog: pytest.LogCaptureFixture
) -> None:
    with override_streams(REGISTRY_PATH=""):
        closed = await sync_to_async(Stream.objects.create)(path=REGISTRY, content_type="application/json", closed=True)
    engine_for()
    await until(lambda: "cannot be written" in caplog.text)
    assert "REGISTRY_PATH" in caplog.text
    await sync_to_async(Stream.objects.create)(path="a")
    await sync_to_async(closed.delete)()
    assert told((await there(client.request)).body) == [("insert", "a")]

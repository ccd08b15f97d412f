"""What one reader was shown is shown to nobody else, and to nobody once it is gone: not by any cache either."""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client

from django_durable_streams.models import Stream
from django_durable_streams.permissions import AccessRequest, AllowAll, ModelPermissions, Permission, ReadOnly, sign
from tests.access.conftest import log_in_at_django
from tests.access.test_bearer_tokens import BEARER, token
from tests.asgi_client import AsgiClient
from tests.http_cache import HttpCache
from tests.overriding import override_streams

HERE = "tests.access.test_shown_to_one"
PACKAGE = "django_durable_streams.permissions"

Credentials = Callable[[str], Mapping[str, str]]


class ByName(Permission):
    """A project's own class that knows people by a header of their own."""

    varies_on = ("X-Name",)

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return request.headers.get("x-name") == "ann"


class NotForEverybody(ReadOnly):
    """A subclass of an open class that is not open."""

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return bool(user.is_authenticated and user.username == "ann")


class NotForAll(AllowAll):
    needs_user = True

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return bool(user.is_authenticated and user.username == "ann")


# Permissions by which Ann may read and nobody else, what of the request they look at, and what Ann and others send.
GUARDS: dict[str, tuple[Any, str | None, str]] = {
    "model": (f"{PACKAGE}.ModelPermissions", "Cookie, Authorization", "cookie"),
    "own subclass": (f"{HERE}.NotForEverybody", "Cookie, Authorization", "cookie"),
    "own subclass of all": (f"{HERE}.NotForAll", None, "cookie"),
    "bearer": (BEARER, "Authorization", "bearer"),
    "own header": (f"{HERE}.ByName", "X-Name", "name"),
    "drf": (
        {
            "CLASS": f"{PACKAGE}.RestFramework",
            "AUTHENTICATION": ["rest_framework.authentication.SessionAuthentication"],
        },
        "Cookie, Authorization",
        "cookie",
    ),
    "several": ([f"{PACKAGE}.SignedURLs", f"{PACKAGE}.ModelPermissions"], "Cookie, Authorization", "cookie"),
}


@pytest.fixture(autouse=True)
def streams(transactional_db: None) -> None:
    Stream.objects.create(path="a", content_type="text/plain").append("secret")


@pytest.fixture
def credentials(make_user: Callable[..., User]) -> Callable[[str], Credentials]:
    """What people send by a kind of permission: Ann, who may read, and Bob, who may not."""
    sessions: dict[str, Client] = {}

    def of(kind: str) -> Credentials:
        def send(name: str) -> Mapping[str, str]:
            if kind == "bearer":
                return {"authorization": f"Bearer {token({'read': ['a']} if name == 'ann' else {'read': ['b']})}"}
            if kind == "name":
                return {"x-name": name}
            if name not in sessions:
                sessions[name] = log_in_at_django(make_user(name, *(["view"] if name == "ann" else [])))
            return {"cookie": f"sessionid={sessions[name].cookies['sessionid'].value}"}

        return send

    return of


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.slow
async def test_the_next_who_uses_a_cache_is_not_shown_what_the_last_one_read(
    client: AsgiClient, credentials: Callable[[str], Credentials], guard: str
) -> None:
    permission, vary, kind = GUARDS[guard]
    send = credentials(kind)
    ann, bob = await sync_to_async(send)("ann"), await sync_to_async(send)("bob")
    for scope, shared in product(("private", "public"), (False, True)):
        cache = HttpCache(client, shared)
        with override_streams(PERMISSION_CLASSES=permission, CACHE_SCOPE=scope):
            for target in ("a", "a?offset=-1", "a?offset=-1&live=long-poll"):
                first = await cache.get(target, ann)
                assert (first.status, first.body) == (200, b"secret")
                assert first.headers["cache-control"] == "private, no-cache"
                if vary is not None:
                    assert set(vary.split(", ")) <= set(first.headers["vary"].split(", "))
                for other in (bob, {}):
                    reply = await cache.get(target, other)
                    status = 401 if kind == "bearer" else 403
                    assert (reply.status, reply.headers["cache-control"]) == (status, "no-store")
                assert (await cache.get(target, ann)).body == b"secret"


@pytest.mark.parametrize("permission", ["ModelPermissions", "AllowAll", "ReadOnly"])
@pytest.mark.slow
async def test_what_is_deleted_is_shown_by_no_cache(
    client: AsgiClient, credentials: Callable[[str], Credentials], permission: str
) -> None:
    ann = await sync_to_async(credentials("cookie"))("ann")
    anybody = override_streams(PERMISSION_CLASSES=f"{PACKAGE}.AllowAll")
    for seconds, shared in product((0, 30, 90, 400), (False, True)):
        cache = HttpCache(client, shared)
        with override_streams(PERMISSION_CLASSES=f"{PACKAGE}.{permission}"):
            assert (await cache.get("a", ann)).body == b"secret"
            with anybody:
                assert (await client.request("DELETE", "a")).status == 204
            cache.pass_by(seconds)
            assert (await cache.get("a", ann)).status == 404
            with anybody:
                await client.create("a", b"public")  # as long as the other one was
            assert (await cache.get("a", ann)).body == b"public"
            with anybody:
                await client.request("DELETE", "a")
                await client.create("a", b"secret")


@pytest.mark.parametrize("permission", [AllowAll, ReadOnly])
async def test_what_everybody_may_read_is_kept_where_the_project_says_so(
    client: AsgiClient, permission: type[ModelPermissions]
) -> None:
    with override_streams(PERMISSION_CLASSES=f"{PACKAGE}.{permission.__name__}", CACHE_SCOPE="public"):
        cache = HttpCache(client, shared=True)
        for _ in range(3):
            assert (await cache.get("a")).body == b"secret"
        assert cache.asked == 1


async def test_what_is_to_end_is_not_kept(client: AsgiClient) -> None:
    cache = HttpCache(client, shared=True)
    with override_streams(CACHE_SCOPE="public"):
        await client.create("short", b"abc", stream_ttl="100")
        await client.create("dated", b"abc", stream_expires_at="2999-01-01T00:00:00Z")
        for path in ("short", "dated"):
            for _ in range(3):
                assert (await cache.get(path)).body == b"abc"
    assert cache.asked == 6


async def test_whoever_may_read_is_told_cheaply_that_nothing_has_changed(
    client: AsgiClient, credentials: Callable[[str], Credentials]
) -> None:
    ann = await sync_to_async(credentials("cookie"))("ann")
    bob = await sync_to_async(credentials("cookie"))("bob")
    with override_streams(PERMISSION_CLASSES=f"{PACKAGE}.ModelPermissions"):
        first = await client.request("GET", "a", ann)
        again = await client.request("GET", "a", {**ann, "if-none-match": first.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        for name in ("cache-control", "vary", "etag"):
            assert again.headers[name] == first.headers[name]
        for tag in (first.headers["etag"], "*"):
            assert (await client.request("GET", "a", {**bob, "if-none-match": tag})).status == 403


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_refusals_and_news_are_not_kept(client: AsgiClient, method: str) -> None:
    await client.create("gone", b"abc")
    assert (await client.request("PUT", "fork", {"stream-forked-from": "/v1/stream/gone"})).status == 201
    assert (await client.request("DELETE", "gone")).status == 204
    for target, status in (("nowhere", 404), ("gone", 410), ("a?offset=x", 400), ("a//b", 400)):
        if method == "HEAD" and "?" in target:
            continue
        reply = await client.request(method, target)
        assert (reply.status, reply.headers["cache-control"]) == (status, "no-store")
    with override_streams(PERMISSION_CLASSES=f"{PACKAGE}.ModelPermissions"):
        assert (await client.request(method, "a")).headers["cache-control"] == "no-store"
    assert (await client.request("HEAD", "a")).headers["cache-control"] == "no-store"


async def test_a_signed_url_is_asked_for_each_time(client: AsgiClient) -> None:
    with override_streams(PERMISSION_CLASSES=f"{PACKAGE}.SignedURLs", CACHE_SCOPE="public"):
        cache = HttpCache(client, shared=False)
        target = f"a?token={sign('a', 'read', expires=60)}"
        for _ in range(2):
            assert (await cache.get(target)).body == b"secret"
        assert cache.asked == 2


@override_streams(CORS_ORIGINS=["https://app.example"], PERMISSION_CLASSES=f"{PACKAGE}.ModelPermissions")
async def test_the_origin_is_part_of_what_the_answer_depends_on(
    client: AsgiClient, credentials: Callable[[str], Credentials]
) -> None:
    ann = await sync_to_async(credentials("cookie"))("ann")
    for headers in (ann, {**ann, "origin": "https://app.example"}, {**ann, "origin": "https://other.example"}):
        vary = (await client.request("GET", "a", headers)).headers["vary"]
        assert {"Cookie", "Authorization", "Origin"} <= set(vary.split(", "))

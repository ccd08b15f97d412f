"""Permissions, credentials and origins of sockets: the rules of the other entry points."""

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from django.conf import settings
from django.contrib.auth.models import User
from django.test import override_settings

from django_durable_streams.channels import StreamsConsumer
from django_durable_streams.engine.engine import running_engines
from django_durable_streams.models import Stream
from django_durable_streams.permissions import AccessRequest, Permission, sign
from django_durable_streams.server import bodies
from tests.access.conftest import arevoke, log_in_at_django
from tests.overriding import override_streams
from tests.server.waiting import until, watched
from tests.websocket.socket import Closed, Socket

MODELS = "django_durable_streams.permissions.ModelPermissions"
SIGNED = "django_durable_streams.permissions.SignedURLs"
OFTEN = {"POLL_INTERVAL": 0.02, "REAUTHORIZE_INTERVAL": 0.05, "AUTH_CACHE_SECONDS": 0.05}
OWN = ("origin", "http://testserver")
TEXT = "text/plain"
SECRET = "a secret that is long enough for HS256"

APPLICATIONS: dict[str, Callable[[], Any]] = {
    "alone": StreamsConsumer.as_asgi,
    "channels": lambda: AuthMiddlewareStack(StreamsConsumer.as_asgi()),
}


@pytest.fixture(params=APPLICATIONS)
def application(request: pytest.FixtureRequest) -> Any:
    """The consumer alone, which finds the session itself, or behind Channels' middleware."""
    return APPLICATIONS[request.param]()


@pytest.fixture(autouse=True)
def streams(engines: None) -> None:
    for path in ("a", "b"):
        Stream.objects.create(path=path, content_type=TEXT).append("abc")


@pytest.fixture
def cookie(make_user: Callable[..., User]) -> tuple[str, str]:
    """The header with the session of a user who may read and append."""
    django = log_in_at_django(make_user("reader", "view", "change"))
    return "cookie", f"{settings.SESSION_COOKIE_NAME}={django.session.session_key}"


async def outcomes(socket: Socket) -> tuple[int, int]:
    """The status of a subscription and of an append. 200: it is allowed."""
    answer = await socket.subscribe("a")
    if answer["type"] == "subscribed":
        await socket.until("up-to-date")
    socket.send("append", path="a", contentType=TEXT, data="x")
    frame = await socket.next()
    while frame["type"] == "data":
        frame = await socket.next()
    return answer.get("status", 200), frame.get("status", 200)


@override_streams(PERMISSION_CLASSES=MODELS)
async def test_a_session_counts_for_pages_of_this_site(application: Any, cookie: tuple[str, str]) -> None:
    async with Socket(application, headers=[OWN, cookie]) as socket:
        assert await outcomes(socket) == (200, 200)
    async with Socket(application, headers=[OWN]) as socket:
        assert await outcomes(socket) == (403, 403)


@override_streams(PERMISSION_CLASSES=MODELS)
@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://testserver", "http://testserver:81", "null", "", "http://testserver.evil.example"],
)
async def test_a_page_of_another_site_opens_no_socket(application: Any, cookie: tuple[str, str], origin: str) -> None:
    with pytest.raises(Closed):
        await Socket(application, headers=[("origin", origin), cookie]).open()


@override_streams(PERMISSION_CLASSES=MODELS)
async def test_a_session_without_an_origin_does_not_count(application: Any, cookie: tuple[str, str]) -> None:
    async with Socket(application, headers=[cookie]) as socket:
        assert await outcomes(socket) == (403, 403)


@override_streams(PERMISSION_CLASSES="django_durable_streams.permissions.ReadOnly", REGISTRY_PATH="a")
async def test_the_registry_is_for_those_who_may_list_all_streams(application: Any) -> None:
    async with Socket(application, headers=[OWN]) as socket:
        assert (await socket.subscribe("a"))["status"] == 403
        assert (await socket.subscribe("a", "now"))["status"] == 403
        assert (await socket.subscribe("b"))["type"] == "subscribed"


@pytest.mark.parametrize(
    ("origins", "expected"),
    [(["http://app.example"], (200, 403)), (["*"], (403, 403)), (["http://other.example", "*"], (403, 403))],
)
async def test_pages_of_listed_origins_may_do_what_they_may_by_http(
    application: Any, cookie: tuple[str, str], origins: list[str], expected: tuple[int, int]
) -> None:
    with override_streams(PERMISSION_CLASSES=MODELS, CORS_ORIGINS=origins):
        async with Socket(application, headers=[("origin", "http://app.example"), cookie]) as socket:
            assert await outcomes(socket) == expected


@override_settings(CSRF_TRUSTED_ORIGINS=["https://*.example"])
@override_streams(PERMISSION_CLASSES=MODELS)
async def test_pages_of_trusted_origins_have_the_session(application: Any, cookie: tuple[str, str]) -> None:
    async with Socket(application, headers=[("origin", "https://app.example"), cookie]) as socket:
        assert await outcomes(socket) == (200, 200)


class Sees(Permission):
    """Allows everything, and remembers what it has seen."""

    in_memory = True
    seen: list[tuple[str, str | None, str | None, bool]] = []

    def _look(self, user: Any, request: AccessRequest) -> bool:
        names = (request.headers.get("cookie"), request.headers.get("x-remote-user"))
        assert request.http_request.path == "/v1/stream/a"
        assert request.http_request.method == request.method
        self.seen.append((request.method, *names, user.is_authenticated))
        return True

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return self._look(user, request)

    def can_append(self, user: Any, path: str, request: AccessRequest) -> bool:
        return self._look(user, request)


@pytest.mark.parametrize(
    ("origin", "shows_reads", "shows_changes"),
    [("http://testserver", True, True), ("http://app.example", True, False), (None, False, False)],
)
async def test_permissions_see_only_credentials_that_count(
    cookie: tuple[str, str], origin: str | None, shows_reads: bool, shows_changes: bool
) -> None:
    proxy = ("x-remote-user", "reader")
    headers = [cookie, proxy, *([("origin", origin)] if origin else [])]
    Sees.seen.clear()
    with override_streams(PERMISSION_CLASSES=f"{__name__}.Sees", CORS_ORIGINS=["http://app.example"]):
        async with Socket(headers=headers) as socket:
            await outcomes(socket)
    for (method, seen_cookie, seen_proxy, is_known), shows in zip(Sees.seen, (shows_reads, shows_changes), strict=True):
        assert (seen_cookie is not None, is_known) == (shows, shows), method
        assert (seen_proxy is not None) == (shows or origin is None), method


class Stubborn(Permission):
    """Goes on where it is cancelled."""

    waiting: list[str] = []

    async def can_append(self, user: Any, path: str, request: AccessRequest) -> bool:
        return await self.can_read(user, path, request)

    async def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        self.waiting.append(path)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return True
        raise AssertionError


@override_streams(PERMISSION_CLASSES=f"{__name__}.Stubborn")
async def test_a_permission_that_cannot_be_cancelled_leaves_no_subscription() -> None:
    Stubborn.waiting.clear()
    async with Socket() as socket:
        socket.send("subscribe", path="a", offset="-1")
        socket.send("subscribe", path="b", offset="-1")
        await until(lambda: sorted(Stubborn.waiting) == ["a", "b"])
        socket.send("unsubscribe", id="a")
        assert (await socket.next())["type"] == "unsubscribed"
        await until(lambda: sum(len(engine.live_reader_limit) for engine in running_engines()) == 1)
        assert not socket.has_more()
    assert watched() == 0
    assert all(len(engine.live_reader_limit) == 0 for engine in running_engines())


@override_streams(PERMISSION_CLASSES=f"{__name__}.Stubborn")
async def test_a_permission_that_cannot_be_cancelled_releases_a_body_once() -> None:
    Stubborn.waiting.clear()
    async with Socket() as socket:
        for _ in range(2):
            socket.send("append", path="a", contentType=TEXT, data="x" * 1000)
        await until(lambda: Stubborn.waiting == ["a"] and bodies.memory.held == 2000)
    assert bodies.memory.held == 0


@override_streams(PERMISSION_CLASSES=SIGNED)
async def test_a_signed_token_comes_with_its_frame_or_with_the_socket() -> None:
    async with Socket() as socket:
        assert (await socket.subscribe("a"))["status"] == 403
        token = sign("a", "read", expires=60)
        assert (await socket.subscribe("a", query={"token": token}))["type"] == "subscribed"
        await socket.take("data", "up-to-date")
        assert (await socket.subscribe("b", query={"token": token}))["status"] == 403
        appending = sign("a", "append", expires=60)
        socket.send("append", path="a", contentType=TEXT, data="x", query={"token": token})
        assert (await socket.next())["status"] == 403
        socket.send("append", path="a", contentType=TEXT, data="x", query={"token": appending})
        assert {(await socket.next())["type"] for _ in range(2)} == {"appended", "data"}
    async with Socket(query=f"token={sign('b', 'read', expires=60)}") as socket:
        assert (await socket.subscribe("b"))["type"] == "subscribed"


@override_streams(PERMISSION_CLASSES=SIGNED, POLL_INTERVAL=0.02)
async def test_a_subscription_ends_with_its_token_and_alone() -> None:
    async with Socket() as socket:
        await socket.subscribe("b", query={"token": sign("b", "read", expires=60)})
        await socket.until("up-to-date")
        await socket.subscribe("a", query={"token": sign("a", "read", expires=2)})
        await socket.until("up-to-date")
        error = await socket.next()
        assert (error["type"], error["id"], error["status"]) == ("error", "a", 403)
        socket.send("ping", n=1)
        await socket.take("pong")


class Silent(Permission):
    """Refuses everything, and gives no reason."""


@override_streams(PERMISSION_CLASSES=[SIGNED, f"{__name__}.Silent"], POLL_INTERVAL=0.02)
async def test_the_log_names_the_classes_that_refuse(caplog: pytest.LogCaptureFixture) -> None:
    async with Socket() as socket:
        await socket.subscribe("b")
        socket.send("append", path="a", contentType=TEXT, data="x")
        await socket.next()
        await socket.subscribe("a", query={"token": sign("a", "read", expires=1)})
        await socket.until("up-to-date")
        assert (await socket.next())["type"] == "error"
    lines = [entry.getMessage() for entry in caplog.records if entry.name == "django_durable_streams.access"]
    who, reason = (
        "is refused to user anonymous at 127.0.0.1",
        "The URL has no token of a signed URL. The request has no session cookie (sessionid).",
    )
    assert lines == [
        f"read of b {who} by {SIGNED}, {__name__}.Silent. Silent has no can_read, so it refuses. {reason}",
        f"append of a {who} by {SIGNED}, {__name__}.Silent. Silent has no can_append, so it refuses. {reason}",
        f"read of a {who}. The permission of the live read has expired.",  # no class was asked
    ]


@pytest.mark.parametrize("place", ["header", "frame", "socket"])
async def test_a_bearer_token_comes_in_a_header_a_frame_or_the_query(place: str) -> None:
    jwt = pytest.importorskip("jwt")
    token = jwt.encode({"exp": 4102444800, "streams": {"read": ["a"], "append": ["a"]}}, SECRET, "HS256")
    permission = {
        "CLASS": "django_durable_streams.permissions.BearerTokens",
        "KEY": SECRET,
        "ALGORITHMS": ["HS256"],
    }
    headers = [("authorization", f"Bearer {token}")] if place == "header" else []
    with override_streams(PERMISSION_CLASSES=permission):
        async with Socket(headers=headers, query=f"access_token={token}" if place == "socket" else "") as socket:
            query = {"access_token": token} if place == "frame" else None
            assert (await socket.subscribe("a", query=query))["type"] == "subscribed"
            await socket.take("data", "up-to-date")
            error = await socket.subscribe("b", query=query)
            assert (error["status"], error.get("authenticate")) == (401, "Bearer")


@override_streams(PERMISSION_CLASSES=MODELS, **OFTEN)
async def test_a_subscription_ends_when_its_permission_is_revoked(application: Any, cookie: tuple[str, str]) -> None:
    async with Socket(application, headers=[OWN, cookie]) as socket:
        for path in ("a", "b"):
            await socket.subscribe(path)
            await socket.take("data", "up-to-date")
        await arevoke(await User.objects.aget(username="reader"), "view")
        errors = [await socket.next() for _ in range(2)]
        assert {error["id"] for error in errors} == {"a", "b"}
        assert {error["status"] for error in errors} == {403}
        assert (await socket.subscribe("a"))["status"] == 403


@override_streams(PERMISSION_CLASSES=MODELS, **OFTEN)
async def test_logging_out_ends_a_subscription(application: Any, cookie: tuple[str, str]) -> None:
    async with Socket(application, headers=[OWN, cookie]) as socket:
        await socket.subscribe("a")
        await socket.take("data", "up-to-date")
        store = import_module(settings.SESSION_ENGINE).SessionStore(cookie[1].partition("=")[2])
        await sync_to_async(store.flush)()
        assert (await socket.next())["status"] == 403


@override_streams(RATE_LIMITS={"read": "2/h", "append": "1/h"})
async def test_frames_count_towards_the_limits() -> None:
    async with Socket() as socket:
        for number, kind in enumerate(("subscribed", "subscribed", "error")):
            socket.send("subscribe", path="a", offset="now", id=str(number))
            assert (frame := await socket.next())["type"] == kind
            await socket.take("up-to-date") if kind != "error" else None
        assert (frame["status"], frame["error"]) == (429, "too-many-requests")
        assert frame["retryAfter"] > 0
        for kind in ("appended", "error"):
            socket.send("append", path="b", contentType=TEXT, data="x")
            await socket.take(kind)


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([("host", "evil.example")], ""),
        ([("authorization", "Bearer a"), ("authorization", "Bearer b")], ""),
        ([], "token=1&token=2"),
        ([], "token=%ff"),
    ],
)
async def test_an_invalid_handshake_is_refused(headers: list[tuple[str, str]], query: str) -> None:
    socket = Socket(headers=headers, query=query)
    if headers and headers[0][0] == "host":
        socket.scope["headers"] = [(b"host", b"evil.example")]
    with pytest.raises(Closed):
        await socket.open()

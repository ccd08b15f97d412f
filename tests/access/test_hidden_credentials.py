"""A project's own permission classes do not see ambient credentials of requests that may be forged."""

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client

from django_durable_streams.permissions import AccessRequest, Permission
from django_durable_streams.server.asgi import DurableStreams, Receive, Scope, Send
from tests.access.forged import BASIC, BEARER, COOKIE, COOKIE_AND_TOKEN, CSRF, EVIL, OURS, TOKEN
from tests.access.operations import TEXT
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint

HERE = "tests.access.test_hidden_credentials"

pytestmark = pytest.mark.usefixtures("ann")


class OwnCookie(Permission):
    """Reads a cookie in every way that a request offers."""

    in_memory = True
    needs_user = False

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return self._has_cookie(request)

    can_create = can_append = can_close = can_delete = can_read

    def _has_cookie(self, request: AccessRequest) -> bool:
        scope = request.scope
        return any(
            (
                "jwt=ann" in request.headers.get("cookie", ""),
                b"jwt=ann" in (request.header(b"cookie") or b""),
                request.http_request.COOKIES.get("jwt") == "ann",
                scope is not None and any(b"jwt=ann" in value for _, value in scope["headers"]),
                scope is not None and scope.get("cookies", {}).get("jwt") == "ann",
            )
        )


class OwnSession(Permission):
    """Reads the user and the session that middleware has set on Django's request."""

    def can_append(self, user: Any, path: str, request: AccessRequest) -> bool:
        django_request = request.http_request
        return bool(django_request.user.is_authenticated or django_request.session.get("may"))


@pytest.mark.parametrize("entry", ENTRY_POINTS)
async def test_cookies_are_hidden(entry: str) -> None:
    point = EntryPoint(entry)
    with override_streams(PERMISSION_CLASSES=f"{HERE}.OwnCookie"):
        assert (await point.request("GET", "a", COOKIE)).status == 200
        for headers in (COOKIE, {**COOKIE, **EVIL}, {**COOKIE_AND_TOKEN, **EVIL}):
            reply = await point.request("POST", "a", {**headers, **TEXT}, b"x")
            assert (reply.status, "CSRF" in reply.json()["detail"]) == (403, True)
        assert (await point.request("POST", "a", {**COOKIE_AND_TOKEN, **TEXT}, b"x")).status == 204


PROXIES = (
    "x-forwarded-user",
    "x-ssl-client-s-dn",
    "cf-access-jwt-assertion",
    "x-forwarded-client-cert",
    "oidc-claim-sub",
)
"""Headers that proxies make of a cookie or of a client's certificate."""


class OwnHeader(Permission):
    """Reads a proxy's header in every way that a request offers."""

    in_memory = True
    needs_user = False
    credential_headers = ("X-Api-Key",)

    def can_append(self, user: Any, path: str, request: AccessRequest) -> bool:
        scope = request.scope
        return any(
            any(
                (
                    request.headers.get(name) == "ann",
                    request.header(name.encode()) == b"ann",
                    request.http_request.headers.get(name) == "ann",
                    scope is not None and (name.encode(), b"ann") in [*scope["headers"]],
                )
            )
            for name in (*PROXIES, "x-api-key")
        )


@pytest.mark.parametrize("entry", ENTRY_POINTS)
async def test_headers_of_proxies_are_hidden(entry: str) -> None:
    point = EntryPoint(entry)
    with override_streams(PERMISSION_CLASSES=f"{HERE}.OwnHeader"):
        for name in PROXIES:
            for headers in ({name: "ann", **EVIL}, {name: "ann", "origin": "null"}, {name: "ann", **OURS}):
                reply = await point.request("POST", "a", {**headers, **TEXT}, b"x")
                assert (reply.status, "CSRF" in reply.json()["detail"]) == (403, True)
            for headers in ({name: "ann"}, {name: "ann", **CSRF, **OURS}):
                assert (await point.request("POST", "a", {**headers, **TEXT}, b"x")).status == 204
        assert (await point.request("POST", "a", {"x-api-key": "ann", **EVIL, **TEXT}, b"x")).status == 204
        assert "X-Api-Key" in (await point.request("GET", "a")).headers["vary"].split(", ")


class OwnKey(Permission):
    """Reads keys that middleware and servers set in the scope or in the environment."""

    in_memory = True
    needs_user = False

    def can_append(self, user: Any, path: str, request: AccessRequest) -> bool:
        places = [request.scope or {}, getattr(request.http_request, "environ", {})]
        return any(
            place.get("account") == "ann" or place.get("OIDC_CLAIM_sub") == "ann" or place.get("state", {}).get("user")
            for place in places
        )


@pytest.mark.parametrize("key", [{"account": "ann"}, {"state": {"user": "ann"}}])
async def test_keys_of_middleware_are_hidden(key: dict[str, Any]) -> None:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        await DurableStreams()({**scope, **key}, receive, send)

    client = AsgiClient(middleware)
    with override_streams(PERMISSION_CLASSES=f"{HERE}.OwnKey"):
        assert (await client.request("POST", "a", TEXT, b"x")).status == 204
        assert (await client.request("POST", "a", {**TEXT, **CSRF, **OURS}, b"x")).status == 204
        assert (await client.request("POST", "a", {**TEXT, **EVIL}, b"x")).status == 403


@pytest.mark.parametrize("key", ["OIDC_CLAIM_sub", "account"])
async def test_keys_of_servers_are_hidden(key: str) -> None:
    def post_status(**more: str) -> int:
        client = Client(enforce_csrf_checks=True, **{key: "ann"}, **more)  # type: ignore[arg-type]
        return client.post("/v1/stream/a", b"x", content_type="text/plain").status_code

    with override_streams(PERMISSION_CLASSES=f"{HERE}.OwnKey"):
        assert await sync_to_async(post_status)() == 204
        assert await sync_to_async(post_status)(HTTP_ORIGIN="https://evil.example") == 403


@pytest.mark.parametrize("entry", ["django", "wsgi"])
async def test_sessions_are_hidden(entry: str) -> None:
    def log_in() -> str:
        client = Client()
        client.force_login(User.objects.get(username="ann"))
        session = client.session
        session["may"] = True
        session.save()
        return client.cookies["sessionid"].value

    cookie = f"sessionid={await sync_to_async(log_in)()}"
    point = EntryPoint(entry)
    with override_streams(PERMISSION_CLASSES=f"{HERE}.OwnSession"):
        assert (await point.request("POST", "a", {"cookie": cookie, **EVIL, **TEXT}, b"x")).status == 403
        token = {"cookie": f"{cookie}; csrftoken={TOKEN}", "x-csrftoken": TOKEN}
        assert (await point.request("POST", "a", {**token, **TEXT}, b"x")).status == 204


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"cookie": "other=1"}, 403),
        ({"cookie": "other=1", **BEARER}, 403),
        (BASIC, 403),
        (BEARER, 204),
        ({**CSRF, **BASIC}, 204),
        (CSRF, 204),
    ],
)
async def test_a_user_of_middleware_needs_the_csrf_token_unless_only_a_header_can_name_the_user(
    headers: dict[str, str], status: int
) -> None:
    ann = await User.objects.aget(username="ann")

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        await DurableStreams()({**scope, "user": ann}, receive, send)

    client = AsgiClient(middleware)
    with override_streams(PERMISSION_CLASSES="django_durable_streams.permissions.ModelPermissions"):
        assert (await client.request("POST", "a", {**headers, **TEXT}, b"x")).status == status

"""Credentials that a browser sends by itself do not count where another site may have made it send them."""

from base64 import b64encode
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, override_settings
from rest_framework.authentication import (
    BaseAuthentication,
    BasicAuthentication,
    RemoteUserAuthentication,
    SessionAuthentication,
    TokenAuthentication,
    get_authorization_header,
)
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied

from django_durable_streams.access.loading import make_permission
from django_durable_streams.models import Stream
from django_durable_streams.permissions import AccessRequest, Permission
from django_durable_streams.server.asgi import DurableStreams, Receive, Scope, Send
from tests.access.operations import CLOSE, TEXT
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint

HERE = "tests.access.test_ambient_credentials"
CLASS = "django_durable_streams.permissions.RestFramework"

TOKEN = "x" * 32
CSRF = {"cookie": f"csrftoken={TOKEN}", "x-csrftoken": TOKEN}
EVIL = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
OURS = {"origin": "http://testserver", "sec-fetch-site": "same-origin"}
BEARER = {"authorization": "Bearer ann"}
BASIC = {"authorization": "Basic " + b64encode(b"ann:x").decode()}


def user_named(name: str | None) -> User | None:
    return User.objects.filter(username=name).first() if name else None


class CookieToken(BaseAuthentication):
    """A token in a cookie, as packages for single-page applications have it."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        user = user_named(request.COOKIES.get("jwt"))
        return (user, None) if user is not None else None


class CookieOrHeaderToken(BaseAuthentication):
    """The same, which looks into the header first."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        scheme, _, value = get_authorization_header(request).decode().partition(" ")
        user = user_named(value if scheme == "Bearer" else request.COOKIES.get("jwt"))
        return (user, None) if user is not None else None


class CheckedCookieToken(CookieToken):
    """The same, which checks by itself, as Django REST framework's own class for sessions does."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        found = super().authenticate(request)
        if found is not None:
            SessionAuthentication().enforce_csrf(request)
        return found


class Bearer(BaseAuthentication):
    """A token in the header, and nothing else."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        scheme, _, value = get_authorization_header(request).decode().partition(" ")
        if scheme != "Bearer":
            return None
        user = user_named(value)
        if user is None:
            raise AuthenticationFailed("There is no such token.")
        return user, None


class BearerOnly(Bearer):
    """The same, which raises where there is none."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        found = super().authenticate(request)
        if found is None:
            raise PermissionDenied
        return found


class ProxyHeader(BaseAuthentication):
    """A header that a proxy makes of its own cookie, or of a client's certificate."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        user = user_named(request.headers.get("x-forwarded-user"))
        return (user, None) if user is not None else None


class Everybody(BaseAuthentication):
    """Knows people by their networks."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        return User.objects.get(username="ann"), None


COOKIE = {"cookie": "jwt=ann"}
COOKIE_AND_TOKEN = {"cookie": f"jwt=ann; csrftoken={TOKEN}", "x-csrftoken": TOKEN}
PROXY = {"x-forwarded-user": "ann"}

# By which authenticators somebody is found, what they send, and whether that may change something.
CASES: dict[str, tuple[list[type[BaseAuthentication]], dict[str, str], bool]] = {
    "a cookie, from anywhere": ([CookieToken], COOKIE, False),
    "a cookie, from another site": ([CookieToken], {**COOKIE, **EVIL}, False),
    "a cookie, from our own": ([CookieToken], {**COOKIE, **OURS}, False),
    "a cookie, with the token": ([CookieToken], {**COOKIE_AND_TOKEN, **OURS}, True),
    "a cookie, with the token, from a program": ([CookieToken], COOKIE_AND_TOKEN, True),
    "a cookie, with the token, from another site": ([CookieToken], {**COOKIE_AND_TOKEN, **EVIL}, False),
    "a cookie, checked by the class itself": ([CheckedCookieToken], COOKIE, False),
    "a cookie, checked by the class itself, with the token": ([CheckedCookieToken], {**COOKIE_AND_TOKEN, **OURS}, True),
    "a cookie where a header would do": ([CookieOrHeaderToken], {**COOKIE, **EVIL}, False),
    "a header where a cookie would do": ([CookieOrHeaderToken], {**BEARER, **EVIL}, True),
    "a header beside a cookie": ([CookieOrHeaderToken], {**COOKIE, **BEARER, **EVIL}, True),
    "another scheme beside a cookie": ([CookieOrHeaderToken], {**COOKIE, "authorization": "Token x", **EVIL}, False),
    "a cookie's class before a header's": ([CookieToken, Bearer], {**COOKIE, **BEARER, **EVIL}, True),
    "a header's class before a cookie's": ([Bearer, CookieToken], {**COOKIE, **EVIL}, False),
    "a header": ([Bearer], BEARER, True),
    "a header, from another site that CORS allows": ([Bearer], {**BEARER, **EVIL}, True),
    "a header, from a class that raises": ([BearerOnly], {**BEARER, **EVIL}, True),
    "a password, from a program": ([BasicAuthentication], BASIC, True),
    "a password, from another site": ([BasicAuthentication], {**BASIC, **EVIL}, False),
    "a password, from a page without origin": ([BasicAuthentication], {**BASIC, "origin": "null"}, False),
    "a password, from a page that says where it was": ([BasicAuthentication], {**BASIC, "referer": "http://x/"}, False),
    "a password, in other letters": (
        [BasicAuthentication],
        {"authorization": f"bAsIc {BASIC['authorization'][6:]}", **EVIL},
        False,
    ),
    "a password, with the token": ([BasicAuthentication], {**BASIC, **CSRF, **OURS}, True),
    "a proxy's header, from a program": ([ProxyHeader], PROXY, True),
    "a proxy's header, from another site": ([ProxyHeader], {**PROXY, **EVIL}, False),
    "a proxy's header, beside another header": ([ProxyHeader], {**PROXY, **BEARER, **EVIL}, False),
    "a proxy's header, with the token": ([ProxyHeader], {**PROXY, **CSRF, **OURS}, True),
    "an address, from another site": ([Everybody], EVIL, False),
}


@pytest.fixture(autouse=True)
def streams(transactional_db: None, engines: None) -> None:
    user = User.objects.create_user("ann", password="x", is_superuser=True)
    Client().force_login(user)
    Stream.objects.create(path="a", content_type="text/plain").append("abc")


@pytest.mark.parametrize("case", CASES)
async def test_what_a_browser_sends_by_itself_changes_nothing(case: str) -> None:
    classes, headers, allowed = CASES[case]
    permission = {"CLASS": CLASS, "AUTHENTICATION": classes}
    for entry in ENTRY_POINTS:
        point = EntryPoint(entry)
        with override_streams(PERMISSION_CLASSES=permission):
            assert (await point.request("GET", "a", headers)).status == 200, "reading is no change"
            for method, target, more, body in (
                ("PUT", f"made-{entry}", TEXT, b""),
                ("POST", f"made-{entry}" if allowed else "a", TEXT, b"x"),
                ("POST", f"made-{entry}" if allowed else "a", CLOSE, b""),
                ("DELETE", f"made-{entry}" if allowed else "a", {}, b""),
            ):
                reply = await point.request(method, target, {**headers, **more}, body)
                if allowed:
                    assert reply.status in (201, 204), reply.body
                else:
                    assert (reply.status, "CSRF" in reply.json()["detail"]) == (403, True)
    stream = await Stream.objects.aget(path="a")
    assert (stream.tail_position, stream.closed) == (3, False)


async def test_a_header_of_the_clients_own_is_named_in_the_settings() -> None:
    point = EntryPoint("asgi")
    options = {"CLASS": CLASS, "AUTHENTICATION": [ProxyHeader], "CREDENTIAL_HEADERS": ["X-Forwarded-User"]}
    with override_streams(PERMISSION_CLASSES=options):
        assert (await point.request("POST", "a", {**PROXY, **EVIL, **TEXT}, b"x")).status == 204
        assert "X-Forwarded-User" in (await point.request("GET", "a", PROXY)).headers["vary"].split(", ")
    with pytest.raises(ImproperlyConfigured, match="list"):
        make_permission({**options, "CREDENTIAL_HEADERS": "X-Api-Key"})


@pytest.mark.parametrize("entry", ENTRY_POINTS)
async def test_who_has_no_credentials_is_asked_for_them(entry: str) -> None:
    point = EntryPoint(entry)
    for classes, challenge in (([BasicAuthentication], "Basic"), ([TokenAuthentication], "Token")):
        with override_streams(PERMISSION_CLASSES={"CLASS": CLASS, "AUTHENTICATION": classes}):
            for headers in ({}, EVIL, {"cookie": "tracking=1"}, {"cookie": "tracking=1", **EVIL}):
                reply = await point.request("POST", "a", {**headers, **TEXT}, b"x")
                assert (reply.status, reply.headers["www-authenticate"][: len(challenge)]) == (401, challenge)


async def test_whom_the_server_knows_by_a_certificate_sends_no_token_from_a_program() -> None:
    def ask(**more: str) -> int:
        client = Client(enforce_csrf_checks=True, REMOTE_USER="ann", **more)  # type: ignore[arg-type]
        return client.post("/v1/stream/a", b"x", content_type="text/plain").status_code

    remote = override_settings(AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.RemoteUserBackend"])
    with remote, override_streams(PERMISSION_CLASSES={"CLASS": CLASS, "AUTHENTICATION": [RemoteUserAuthentication]}):
        assert await sync_to_async(ask)() == 204
        assert await sync_to_async(ask)(HTTP_ORIGIN="https://evil.example") == 403


class OwnCookie(Permission):
    """A project's own class that looks at cookies in every way that there is."""

    in_memory = True
    needs_user = False

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return self._knows(request)

    can_create = can_append = can_close = can_delete = can_read

    def _knows(self, request: AccessRequest) -> bool:
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
    """One that looks at what middleware has left on Django's request."""

    def can_append(self, user: Any, path: str, request: AccessRequest) -> bool:
        asked = request.http_request
        return bool(asked.user.is_authenticated or asked.session.get("may"))


@pytest.mark.parametrize("entry", ENTRY_POINTS)
async def test_no_class_of_a_project_is_shown_a_cookie_that_may_be_forged(entry: str) -> None:
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
    """A project's own class that believes its proxy, looking in every way that there is."""

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
async def test_no_class_of_a_project_is_shown_a_proxys_header_that_may_be_forged(entry: str) -> None:
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
    """One that looks at what middleware and servers leave in the scope, or in the environment."""

    in_memory = True
    needs_user = False

    def can_append(self, user: Any, path: str, request: AccessRequest) -> bool:
        places = [request.scope or {}, getattr(request.http_request, "environ", {})]
        return any(
            place.get("account") == "ann" or place.get("OIDC_CLAIM_sub") == "ann" or place.get("state", {}).get("user")
            for place in places
        )


@pytest.mark.parametrize("key", [{"account": "ann"}, {"state": {"user": "ann"}}])
async def test_no_class_of_a_project_is_shown_what_middleware_knows_and_may_be_forged(key: dict[str, Any]) -> None:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        await DurableStreams()({**scope, **key}, receive, send)

    client = AsgiClient(middleware)
    with override_streams(PERMISSION_CLASSES=f"{HERE}.OwnKey"):
        assert (await client.request("POST", "a", TEXT, b"x")).status == 204
        assert (await client.request("POST", "a", {**TEXT, **CSRF, **OURS}, b"x")).status == 204
        assert (await client.request("POST", "a", {**TEXT, **EVIL}, b"x")).status == 403


@pytest.mark.parametrize("key", ["OIDC_CLAIM_sub", "account"])
async def test_no_class_of_a_project_is_shown_what_a_server_knows_and_may_be_forged(key: str) -> None:
    def ask(**more: str) -> int:
        client = Client(enforce_csrf_checks=True, **{key: "ann"}, **more)  # type: ignore[arg-type]
        return client.post("/v1/stream/a", b"x", content_type="text/plain").status_code

    with override_streams(PERMISSION_CLASSES=f"{HERE}.OwnKey"):
        assert await sync_to_async(ask)() == 204
        assert await sync_to_async(ask)(HTTP_ORIGIN="https://evil.example") == 403


@pytest.mark.parametrize("entry", ["django", "wsgi"])
async def test_no_class_of_a_project_is_shown_a_session_that_may_be_forged(entry: str) -> None:
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
async def test_whom_middleware_in_front_knows_needs_the_token_unless_a_header_must_have_said_so(
    headers: dict[str, str], status: int
) -> None:
    ann = await User.objects.aget(username="ann")

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        await DurableStreams()({**scope, "user": ann}, receive, send)

    client = AsgiClient(middleware)
    with override_streams(PERMISSION_CLASSES="django_durable_streams.permissions.ModelPermissions"):
        assert (await client.request("POST", "a", {**headers, **TEXT}, b"x")).status == status

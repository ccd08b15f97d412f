"""Authentication classes: ambient credentials do not count if another site may have caused the request."""

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
from tests.access.forged import BASIC, BEARER, COOKIE, COOKIE_AND_TOKEN, CSRF, EVIL, OURS
from tests.access.operations import CLOSE, TEXT
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint

CLASS = "django_durable_streams.permissions.RestFramework"


def user_named(name: str | None) -> User | None:
    return User.objects.filter(username=name).first() if name else None


class CookieToken(BaseAuthentication):
    """Reads a token from a cookie, as packages for single-page applications do."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        user = user_named(request.COOKIES.get("jwt"))
        return (user, None) if user is not None else None


class CookieOrHeaderToken(BaseAuthentication):
    """Reads a token from the header, or else from a cookie."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        scheme, _, value = get_authorization_header(request).decode().partition(" ")
        user = user_named(value if scheme == "Bearer" else request.COOKIES.get("jwt"))
        return (user, None) if user is not None else None


class CheckedCookieToken(CookieToken):
    """Reads a token from a cookie, and checks for CSRF as REST framework's class for sessions does."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        result = super().authenticate(request)
        if result is not None:
            SessionAuthentication().enforce_csrf(request)
        return result


class Bearer(BaseAuthentication):
    """Reads a token from the header only."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        scheme, _, value = get_authorization_header(request).decode().partition(" ")
        if scheme != "Bearer":
            return None
        user = user_named(value)
        if user is None:
            raise AuthenticationFailed("There is no such token.")
        return user, None


class BearerOnly(Bearer):
    """Reads a token from the header, and raises without one."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        result = super().authenticate(request)
        if result is None:
            raise PermissionDenied
        return result


class ProxyHeader(BaseAuthentication):
    """Reads a header that a proxy makes of its own cookie, or of a client's certificate."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        user = user_named(request.headers.get("x-forwarded-user"))
        return (user, None) if user is not None else None


class Everybody(BaseAuthentication):
    """Authenticates all requests, as a class that reads addresses may do."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        return User.objects.get(username="ann"), None


PROXY = {"x-forwarded-user": "ann"}

# The authenticators, the headers of the request, and whether it may change a stream.
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


pytestmark = pytest.mark.usefixtures("ann")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
async def test_only_requests_that_cannot_be_forged_change_streams(case: str) -> None:
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


async def test_the_settings_name_headers_that_only_clients_send() -> None:
    point = EntryPoint("asgi")
    options = {"CLASS": CLASS, "AUTHENTICATION": [ProxyHeader], "CREDENTIAL_HEADERS": ["X-Forwarded-User"]}
    with override_streams(PERMISSION_CLASSES=options):
        assert (await point.request("POST", "a", {**PROXY, **EVIL, **TEXT}, b"x")).status == 204
        assert "X-Forwarded-User" in (await point.request("GET", "a", PROXY)).headers["vary"].split(", ")
    with pytest.raises(ImproperlyConfigured, match="list"):
        make_permission({**options, "CREDENTIAL_HEADERS": "X-Api-Key"})


@pytest.mark.parametrize("entry", ENTRY_POINTS)
async def test_a_request_without_credentials_gets_the_challenge(entry: str) -> None:
    point = EntryPoint(entry)
    for classes, challenge in (([BasicAuthentication], "Basic"), ([TokenAuthentication], "Token")):
        with override_streams(PERMISSION_CLASSES={"CLASS": CLASS, "AUTHENTICATION": classes}):
            for headers in ({}, EVIL, {"cookie": "tracking=1"}, {"cookie": "tracking=1", **EVIL}):
                reply = await point.request("POST", "a", {**headers, **TEXT}, b"x")
                assert (reply.status, reply.headers["www-authenticate"][: len(challenge)]) == (401, challenge)


async def test_a_program_with_a_certificate_needs_no_csrf_token() -> None:
    def post_status(**more: str) -> int:
        client = Client(enforce_csrf_checks=True, REMOTE_USER="ann", **more)  # type: ignore[arg-type]
        return client.post("/v1/stream/a", b"x", content_type="text/plain").status_code

    remote = override_settings(AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.RemoteUserBackend"])
    with remote, override_streams(PERMISSION_CLASSES={"CLASS": CLASS, "AUTHENTICATION": [RemoteUserAuthentication]}):
        assert await sync_to_async(post_status)() == 204
        assert await sync_to_async(post_status)(HTTP_ORIGIN="https://evil.example") == 403

"""The log names the reason of a refusal, and the client does not learn it."""

import logging
import time
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core.exceptions import PermissionDenied
from django.test import AsyncClient, Client, override_settings
from django.utils import timezone
from django.utils.translation import gettext_lazy

from django_durable_streams.access.access_request import AccessRequest
from django_durable_streams.access.identities import session_key
from django_durable_streams.access.users import User
from django_durable_streams.models import Stream
from django_durable_streams.permissions import Permission, sign
from tests.access.operations import send
from tests.access.test_bearer_tokens import BEARER, asked, token
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams

PACKAGE = "django_durable_streams.permissions"
SIGNED = override_streams(PERMISSION_CLASSES=f"{PACKAGE}.SignedURLs")


class Reasonable(Permission):
    """Refuses everything, with a reason that is no format."""

    async def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        request.explain("The room is 100% full.")
        return False


@pytest.fixture(autouse=True)
def streams(transactional_db: None) -> None:
    Stream.objects.create(path="a", content_type="text/plain").append("abc")


async def refused(
    client: AsgiClient, caplog: pytest.LogCaptureFixture, query: str = "", **headers: str
) -> tuple[str, bytes]:
    """The line in the log and the body of a read that is refused."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "django_durable_streams.access"):
        reply = await send(client, "read", query, headers)
    assert reply.status in (401, 403)
    (record,) = [entry for entry in caplog.records if entry.name == "django_durable_streams.access"]
    return record.getMessage(), reply.body


@SIGNED
async def test_the_log_tells_links_apart_that_the_client_cannot(
    client: AsgiClient, caplog: pytest.LogCaptureFixture
) -> None:
    expected = {
        f"token={sign('a', 'read', expires=-60)}": "The signed URL expired at 20",
        f"token={sign('a', 'append', 'close', expires=60)}": "The signed URL is for: append, close.",
        f"token={sign('b', 'read', expires=60)}": "The signature of the URL is wrong",
        "token=nonsense": "is not one of a signed URL",
        "": "The URL has no token",
    }
    outcomes = {query: await refused(client, caplog, query) for query in expected}
    for query, reason in expected.items():
        assert reason in outcomes[query][0]
    assert len({line for line, _ in outcomes.values()}) == len(expected)
    assert len({body for _, body in outcomes.values()}) == 1


@override_streams(PERMISSION_CLASSES=BEARER)
async def test_the_log_names_the_fault_of_a_bearer_token(client: AsgiClient, caplog: pytest.LogCaptureFixture) -> None:
    good = {"read": ["a"]}
    expected = {
        "": "There is no bearer token",
        "access_token=x": "no valid JWT",
        f"access_token={token(good, exp=int(time.time()) - 5)}": "has expired (exp)",
        f"access_token={token(good, nbf=int(time.time()) + 500)}": "not valid yet (nbf, iat)",
        f"access_token={token(good, aud='others')}": "another audience (aud)",
        f"access_token={token(good, iss='others')}": "another issuer (iss)",
        f"access_token={token(good, exp=None)}": "lacks the claim exp.",
        f"access_token={token(good, aud=None)}": "lacks the claim aud.",
        f"access_token={token(good, iss=None)}": "lacks the claim iss.",
        f"access_token={token(None)}": "lacks the claim streams.",
        f"access_token={token(['a'])}": "claim streams of the bearer token is invalid: It is not an object",
        f"access_token={token({'reads': ['a']})}": "claim streams of the bearer token is invalid: It has the action",
        f"access_token={token({'read': 'a'})}": "claim streams of the bearer token is invalid: The patterns",
        f"access_token={token({'read': ['**/a']})}": "claim streams of the bearer token is invalid: In '**/a'",
        f"access_token={token({'read': ['{user.pk}']})}": "is invalid: A pattern in a token cannot have a field",
        f"access_token={token(good, sub=7)}": "The claim sub of the bearer token is not a text.",
        f"access_token={token(good, jti=7)}": "The claim jti of the bearer token is not a text.",
        f"access_token={token(good, iat='x')}": "The claim iat of the bearer token is not a number.",
        f"access_token={token(good, key=64 * 'k')}": "The signature of the bearer token is wrong",
        f"access_token={token(good, key=64 * 'k', algorithm='HS512')}": "not one of ALGORITHMS",
        f"access_token={token({'read': ['b']})}": "no pattern for this action and path.",
        f"access_token={token({'read': ['b', '/a']})}": "No path matches '/a': a path has no slash at its ends, and no",
    }
    outcomes = {query: await refused(client, caplog, query) for query in expected}
    for query, reason in expected.items():
        assert reason in outcomes[query][0]
        assert "eyJ" not in outcomes[query][0]  # no part of a token
    assert len({body for _, body in outcomes.values()}) == 1


OWNED = {"CLASS": f"{PACKAGE}.Owner", "OWNER": "users/{user.pk}/**"}


class Readers(Permission):
    """Reads a token, but decides only on reads."""

    def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        return request.parameter("token") == "secret"


class Curious(Permission):
    """Looks at everything that a request has."""

    def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        return "none" in request.query


@pytest.mark.parametrize(
    ("classes", "query", "authorization", "carrier"),
    [
        ([OWNED], "token=x", "", "The URL"),
        ([OWNED, f"{PACKAGE}.ModelPermissions"], "access_token=x", "", "The URL"),
        ([OWNED], "", "Bearer x", "The header Authorization"),
        ([OWNED], "", "Basic dXNlcjpwYXNzd29yZA==", ""),
        ([BEARER], "token=x", "", "The URL"),
        ([f"{PACKAGE}.SignedURLs"], "access_token=x", "", "The URL"),
        ([OWNED], "", "", ""),
        ([OWNED, f"{PACKAGE}.SignedURLs"], "token=x", "", ""),
        ([OWNED, BEARER], "access_token=x", "", ""),
        ([OWNED, BEARER], "", "Bearer x", ""),
        ([OWNED, f"{__name__}.Curious"], "token=x", "", ""),
        ([{"CLASS": f"{PACKAGE}.RestFramework", "PERMISSION": OWNED}], "token=x", "", ""),
    ],
)
async def test_a_token_that_no_class_reads_is_named(
    client: AsgiClient, caplog: pytest.LogCaptureFixture, classes: Any, query: str, authorization: str, carrier: str
) -> None:
    with override_streams(PERMISSION_CLASSES=classes):
        line, body = await refused(client, caplog, query, **({"authorization": authorization} if authorization else {}))
    sentence = "has a token, and no class of PERMISSION_CLASSES reads it for this action."
    assert (f"{carrier} {sentence}" in line) if carrier else (sentence not in line)
    assert b"PERMISSION_CLASSES" not in body


@override_streams(PERMISSION_CLASSES=f"{__name__}.Readers")
async def test_a_class_that_reads_the_token_for_other_actions_is_not_denied(
    client: AsgiClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await send(client, "delete", "token=secret", {})).status == 403
    assert "has a token, and no class of PERMISSION_CLASSES reads it for this action." in caplog.text


def test_a_request_that_is_asked_very_often_keeps_no_more() -> None:
    request = asked(b"token=x", (b"authorization", b"Bearer x"))
    for number in range(1000):
        assert request.header(b"authorization") == b"Bearer x"
        assert request.parameter("token") == "x"
        assert request.parameter(f"other-{number}") is None
    assert len(request._asked) == 2
    assert request.unread_token == ""


@override_streams(PERMISSION_CLASSES=OWNED)
@pytest.mark.parametrize("query", ["token=x&token=y", "token=%ff"])
async def test_a_query_that_is_refused_elsewhere_changes_no_refusal(
    client: AsgiClient, caplog: pytest.LogCaptureFixture, query: str
) -> None:
    line, _ = await refused(client, caplog, query)
    assert "is refused" in line


async def test_reasons_of_all_classes_and_of_the_project_are_logged(
    client: AsgiClient, caplog: pytest.LogCaptureFixture
) -> None:
    classes = [{"CLASS": f"{PACKAGE}.Owner", "OWNER": "users/{user.pk}/**"}, f"{__name__}.Reasonable"]
    with override_streams(PERMISSION_CLASSES=classes):
        line, body = await refused(client, caplog, "")
    assert f" by {PACKAGE}.Owner, {__name__}.Reasonable. The room is 100% full. OWNER is for users who are" in line
    assert b"100%" not in body


class Members(Permission):
    """Has a misspelt method."""

    def can_reed(self, user: User, path: str, request: AccessRequest) -> bool:
        raise AssertionError("nothing calls it")


class MembersInMemory(Members):
    """The same on the way that needs no coroutine: see `MemoryChecks`."""

    in_memory = True
    needs_user = False


@pytest.mark.parametrize("members", [Members, MembersInMemory])
@pytest.mark.parametrize("is_inside", [False, True])
async def test_the_log_names_the_method_that_a_class_lacks(
    client: AsgiClient, caplog: pytest.LogCaptureFixture, members: type[Permission], is_inside: bool
) -> None:
    name = f"{__name__}.{members.__name__}"
    classes = {"CLASS": f"{PACKAGE}.RestFramework", "PERMISSION": name} if is_inside else name
    with override_streams(PERMISSION_CLASSES=classes):
        line, body = await refused(client, caplog)
    assert f" {members.__name__} has no can_read, so it refuses. Nothing calls its can_reed." in line
    assert b"can_re" not in body


async def test_a_read_of_the_registry_needs_the_method_for_listings(
    client: AsgiClient, caplog: pytest.LogCaptureFixture
) -> None:
    with override_streams(PERMISSION_CLASSES=f"{__name__}.Reasonable", REGISTRY_PATH="a"):
        line, _ = await refused(client, caplog)
    assert "Reasonable has no can_list, so it refuses." in line


async def test_a_class_that_has_something_to_decide_by_gives_the_first_reason(
    client: AsgiClient, caplog: pytest.LogCaptureFixture
) -> None:
    classes = [f"{PACKAGE}.SignedURLs", BEARER, OWNED, f"{__name__}.Members"]
    with override_streams(PERMISSION_CLASSES=classes):
        line, _ = await refused(client, caplog)
        assert ". Members has no can_read, so it refuses. Nothing calls its can_reed. The URL has no token" in line
        line, _ = await refused(client, caplog, f"token={sign('a', 'read', expires=-60)}")
    assert line.index("The signed URL expired") < line.index("There is no bearer token")


@override_streams(PERMISSION_CLASSES=[f"{PACKAGE}.AllowAll"])
@pytest.mark.parametrize("header", [("sec-fetch-dest", "script"), ("service-worker", "script")])
async def test_a_stream_that_a_page_wants_to_run_is_refused_with_a_line(
    client: AsgiClient, caplog: pytest.LogCaptureFixture, header: tuple[str, str]
) -> None:
    with caplog.at_level(logging.WARNING, "django_durable_streams.access"):
        assert (await send(client, "read", headers=dict([header]))).status == 403
    (record,) = [entry for entry in caplog.records if entry.name == "django_durable_streams.access"]
    assert record.getMessage().startswith("read of a is refused at 127.0.0.1. A page wants to run")


NO_COOKIE = "The request has no session cookie (sessionid)."
NO_USER = "The session cookie (sessionid) leads to no user here."


def session_of(case: str) -> str:
    """The `Cookie` header of a login at Django, after something has happened to it."""
    user = get_user_model().objects.create_user("ada", password="x")
    django_client = Client()
    django_client.force_login(user)
    if case == "an inactive user":
        get_user_model().objects.update(is_active=False)
    elif case == "another password":
        user.set_password("y")
        user.save()
    elif case == "a deleted user":
        user.delete()
    elif case == "an expired session":
        Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    elif case == "a session without a login":
        session = django_client.session
        session.clear()
        session["basket"] = 1
        session.save()
    elif case == "another database":
        Session.objects.all().delete()
    return f"csrftoken={'a' * 32}; sessionid={django_client.cookies['sessionid'].value}"


@pytest.mark.parametrize(
    "case",
    [
        "an inactive user",
        "another password",
        "a deleted user",
        "an expired session",
        "a session without a login",
        "another database",
        "another SECRET_KEY",
        "another SESSION_COOKIE_NAME",
        "no cookie",
        "an empty cookie",
        "a login",
    ],
)
@override_streams(PERMISSION_CLASSES=f"{__name__}.Silent")
async def test_the_log_tells_no_session_cookie_from_one_that_leads_to_no_user(
    client: AsgiClient, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    cookie = await sync_to_async(session_of)(case)
    other: dict[str, dict[str, Any]] = {
        "another SECRET_KEY": {"SECRET_KEY": "another", "SECRET_KEY_FALLBACKS": []},
        "another SESSION_COOKIE_NAME": {"SESSION_COOKIE_NAME": "mysite"},
    }
    cookie = {"no cookie": "csrftoken=sessionid", "an empty cookie": "sessionid="}.get(case, cookie)
    with override_settings(**other.get(case, {})):
        session_key.cache_clear()
        line = (await refused(client, caplog, cookie=cookie))[0]
        session_key.cache_clear()
    expected = {
        "another SESSION_COOKIE_NAME": "The request has no session cookie (mysite).",
        "no cookie": NO_COOKIE,
        "a login": "so it refuses.",
    }
    assert line.endswith(expected.get(case, NO_USER))
    assert ("anonymous" in line) is (case != "a login")


OTHER_SITE = (
    "Its page is of another site (app.other.com), and SESSION_COOKIE_SAMESITE = 'Lax' keeps the cookie from there."
)

BLOCKED = (
    "Its page is of another site (app.other.com), and the browser may block cookies of other sites. "
    "A signed URL or a token needs no cookie."
)


@pytest.mark.parametrize(
    ("origin", "host", "site", "is_told"),
    [
        ("https://app.other.com", "api.example.com", None, True),
        ("https://app.other.com:8443", "api.example.com:8000", None, True),
        ("https://app.other.com", "api.example.com", "cross-site", True),
        ("https://app.other.com", "backend.other.com", "cross-site", True),  # the browser knows what a proxy hides
        ("https://app.other.com", "api.example.com", "same-site", False),
        ("https://app.other.com", "api.other.com", None, False),
        ("https://app.other.com", "other.com", None, False),
        ("null", "api.example.com", "cross-site", False),
        ("https://[", "api.example.com", "cross-site", False),
        (None, "api.example.com", "cross-site", False),
    ],
)
@override_streams(PERMISSION_CLASSES=f"{__name__}.Silent")
@override_settings(ALLOWED_HOSTS=["*"])
async def test_the_log_says_that_a_page_of_another_site_has_no_session_cookie(
    client: AsgiClient, caplog: pytest.LogCaptureFixture, origin: str | None, host: str, site: str | None, is_told: bool
) -> None:
    headers = {"origin": origin, "host": host, "sec-fetch-site": site}
    sent = {name: value for name, value in headers.items() if value is not None}
    line, _ = await refused(client, caplog, **sent)
    assert line.endswith(f"{NO_COOKIE} {OTHER_SITE}" if is_told else NO_COOKIE)
    if is_told:
        assert (await refused(client, caplog, cookie="sessionid=abcdefgh", **sent))[0].endswith(NO_USER)
        for none in ("None", None, False):
            with override_settings(SESSION_COOKIE_SAMESITE=none):
                assert (await refused(client, caplog, **sent))[0].endswith(f"{NO_COOKIE} {BLOCKED}")
    else:
        with override_settings(SESSION_COOKIE_SAMESITE="None"):
            assert (await refused(client, caplog, **sent))[0].endswith(NO_COOKIE)


@SIGNED
async def test_the_session_is_no_reason_where_no_class_uses_it(
    client: AsgiClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert "session" not in (await refused(client, caplog, cookie="sessionid=abcdefgh"))[0]


class Silent(Permission):
    """Refuses everything, and gives no reason."""


class SilentInMemory(Silent):
    """The same on the way that needs no coroutine: see `MemoryChecks`."""

    in_memory = True
    needs_user = False


class SilentByException(Silent):
    """Refuses by Django's exception."""

    def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        raise PermissionDenied


@pytest.mark.parametrize(
    ("classes", "named"),
    [
        (f"{__name__}.Silent", f"{__name__}.Silent"),
        (f"{__name__}.SilentInMemory", f"{__name__}.SilentInMemory"),
        (f"{__name__}.SilentByException", f"{__name__}.SilentByException"),
        ([f"{PACKAGE}.SignedURLs", f"{__name__}.Silent"], f"{PACKAGE}.SignedURLs, {__name__}.Silent"),
        ([f"{__name__}.SilentInMemory", f"{PACKAGE}.SignedURLs"], f"{__name__}.SilentInMemory, {PACKAGE}.SignedURLs"),
        (
            {"CLASS": f"{PACKAGE}.RestFramework", "PERMISSION": f"{__name__}.Silent"},
            f"{PACKAGE}.RestFramework({__name__}.Silent)",
        ),
    ],
)
async def test_the_log_names_the_classes_that_refuse_also_without_a_reason(
    client: AsgiClient, caplog: pytest.LogCaptureFixture, classes: object, named: str
) -> None:
    with override_streams(PERMISSION_CLASSES=classes):
        line, body = await refused(client, caplog, "")
        assert f" at 127.0.0.1 by {named}." in line
        assert b"Silent" not in body
        caplog.clear()
        assert (await client.request("GET", "__ds/streams?prefix=")).status in (401, 403)
    (listing,) = [entry for entry in caplog.records if entry.name == "django_durable_streams.access"]
    assert f"list of all streams is refused to user anonymous at 127.0.0.1 by {named}." in listing.getMessage()


class Talkative(Permission):
    """Gives reasons with text of the client, of every length, and not always as `str`."""

    async def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        request.explain(gettext_lazy("Denied."))  # type: ignore[arg-type]
        request.explain("Key: " + request.query.get("key", ""))
        for number in range(10_000):
            request.explain(f"Rule {number}.")
        return False

    can_append = can_read


HOSTILE = ["\x1b[2J", "\x9b2J", "\r\nWARNING forged", "\x85forged", "\u2028forged", "\u202eforged", "\x00", "x" * 9999]


def is_one_visible_line(line: str) -> bool:
    return len(line.splitlines()) == 1 and not any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in line)


@pytest.mark.parametrize("text", HOSTILE)
@override_streams(PERMISSION_CLASSES=f"{__name__}.Talkative")
async def test_a_client_writes_no_lines_of_its_own_to_the_log(
    client: AsgiClient, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    line, _ = await refused(client, caplog, f"key={quote(text)}")
    assert is_one_visible_line(line)
    assert "Denied. Key: " in line
    assert len(line) < 4000


@pytest.mark.parametrize("text", ["\x9b2J", "\x85forged", "\u2028forged", "\u202eforged"])
@override_streams(PERMISSION_CLASSES=f"{PACKAGE}.ModelPermissions")
async def test_a_path_writes_no_lines_of_its_own_to_the_log(
    client: AsgiClient, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    with caplog.at_level(logging.WARNING, "django_durable_streams.access"):
        for target in (f"a{quote(text)}", f"__ds/streams?prefix={quote(text)}"):
            assert (await client.request("GET", target)).status == 403
    lines = [record.getMessage() for record in caplog.records if record.name == "django_durable_streams.access"]
    assert len(lines) == 2
    assert all(is_one_visible_line(line) and "\\u" in line for line in lines)


class Failing(Permission):
    """Fails with each request."""

    async def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        raise RuntimeError


@pytest.mark.parametrize("text", ["\x9b2J", "\x85forged", "\u2028forged", "\u202eforged"])
@override_streams(PERMISSION_CLASSES=f"{__name__}.Failing")
async def test_nor_does_the_path_of_a_request_that_fails(
    client: AsgiClient, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    assert (await client.request("GET", f"a{quote(text)}")).status == 500
    (line,) = [entry.getMessage() for entry in caplog.records if "failed" in entry.getMessage()]
    assert is_one_visible_line(line)
    assert "\\u" in line


@pytest.mark.parametrize(
    "headers",
    [
        {"referer": "https://evil.example/page?token=s3cret&x=?y"},
        {"referer": "https://evil.example/" + "x" * 30_000},
        {"origin": "https://evil.example\x9b2J"},
        {"origin": "https://" + "x" * 30_000},
    ],
)
@override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
@override_streams(PERMISSION_CLASSES=f"{PACKAGE}.ModelPermissions")
async def test_the_headers_of_a_forged_request_do_not_fill_the_log(
    client: AsgiClient, caplog: pytest.LogCaptureFixture, headers: dict[str, str]
) -> None:
    user = await sync_to_async(get_user_model().objects.create_user)("ada")
    django_client = AsyncClient()
    await sync_to_async(django_client.force_login)(user)
    cookie = f"sessionid={django_client.cookies['sessionid'].value}; csrftoken={'a' * 32}"
    sent = {"cookie": cookie, "content-type": "text/plain", "x-csrftoken": "a" * 32, "x-forwarded-proto": "https"}
    with caplog.at_level(logging.WARNING, "django_durable_streams.access"):
        reply = await client.request("POST", "a", {**sent, **headers}, b"x")
    assert reply.status == 403
    (line,) = [record.getMessage() for record in caplog.records if record.name == "django_durable_streams.access"]
    assert "CSRF: " in line
    assert is_one_visible_line(line)
    assert "s3cret" not in line
    assert len(line) < 2000

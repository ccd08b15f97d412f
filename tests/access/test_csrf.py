"""Requests that other sites may have made a browser send."""

from collections.abc import Callable

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.middleware.csrf import CSRF_SESSION_KEY, _get_new_csrf_string, _mask_cipher_secret  # type: ignore[attr-defined]
from django.test import override_settings

from django_durable_streams.access.guard import current_guard
from django_durable_streams.models import Stream
from django_durable_streams.permissions import sign
from tests.access.conftest import log_in_at_django
from tests.access.operations import OPERATIONS, send
from tests.access.visitors import Visitor
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams

CLOSED = override_streams(PERMISSION_CLASSES="django_durable_streams.permissions.ModelPermissions")
UNSAFE = [name for name, operation in OPERATIONS.items() if operation[0] not in ("GET", "HEAD")]


@pytest.fixture(autouse=True)
def streams(transactional_db: None) -> None:
    Stream.objects.create(path="a", content_type="text/plain").append("abc")


@pytest.fixture
def visitor(client: AsgiClient, make_user: Callable[..., User]) -> Visitor:
    return Visitor(client, log_in_at_django(make_user("writer", "add", "view", "change", "delete")))


@pytest.mark.parametrize("operation", UNSAFE)
async def test_a_session_changes_nothing_without_the_token(visitor: Visitor, operation: str) -> None:
    visitor.csrf = False
    with CLOSED:
        reply = await send(visitor, operation)
        assert (reply.status, "CSRF" in reply.json()["detail"]) == (403, True)
        visitor.csrf = True
        assert (await send(visitor, operation)).status in (200, 201, 204)


async def test_reads_need_no_token(visitor: Visitor) -> None:
    visitor.csrf = False
    with CLOSED:
        assert (await send(visitor, "read")).status == 200
        assert (await send(visitor, "state")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"x-csrftoken": _mask_cipher_secret(_get_new_csrf_string())},
        {"x-csrftoken": ""},
        {"x-csrftoken": "x" * 10_000},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://testserver.evil.example"},
        {"cookie": ""},
    ],
)
async def test_a_token_that_is_wrong_or_comes_from_elsewhere_does_not_do(
    visitor: Visitor, headers: dict[str, str]
) -> None:
    with CLOSED:
        assert (await send(visitor, "append", headers=headers)).status == 403


async def test_origins_that_are_trusted_and_our_own_pass(visitor: Visitor) -> None:
    with CLOSED:
        assert (await send(visitor, "append", headers={"origin": "http://testserver"})).status == 204
        other = {"origin": "https://app.example"}
        assert (await send(visitor, "append", headers=other)).status == 403
        with override_settings(CSRF_TRUSTED_ORIGINS=["https://app.example"]):
            assert (await send(visitor, "append", headers=other)).status == 204
        assert (await send(visitor, "append", headers=other)).status == 403


async def test_a_wrong_origin_is_named_and_no_token_is_asked_for(visitor: Visitor) -> None:
    with CLOSED:
        detail = (await send(visitor, "append", headers={"origin": "https://app.example"})).json()["detail"]
        assert "https://app.example does not match any trusted origins" in detail
        assert "CSRF_TRUSTED_ORIGINS" in detail
        assert "X-CSRFToken".lower() not in detail.lower()
        with override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")):
            secure = {"x-forwarded-proto": "https"}
            evil = {**secure, "referer": "https://evil.example/" + 1000 * "x"}
            detail = (await send(visitor, "append", headers=evil)).json()["detail"]
            assert "CSRF_TRUSTED_ORIGINS" in detail
            assert len(detail) < 500
            detail = (await send(visitor, "append", headers=secure)).json()["detail"]
            assert "no Referer" in detail
        visitor.csrf = False
        detail = (await send(visitor, "append")).json()["detail"]
        assert "Send the CSRF token in the header x-csrftoken" in detail


async def test_over_https_the_referer_is_looked_at_where_there_is_no_origin(visitor: Visitor) -> None:
    secure = {"x-forwarded-proto": "https"}
    with CLOSED, override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")):
        assert (await send(visitor, "append", headers=secure)).status == 403
        for referer, status in (("https://testserver/page", 204), ("https://evil.example/", 403), ("x", 403)):
            assert (await send(visitor, "append", headers={**secure, "referer": referer})).status == status


async def test_the_secret_may_be_in_the_session(visitor: Visitor) -> None:
    with CLOSED, override_settings(CSRF_USE_SESSIONS=True):
        assert (await send(visitor, "append")).status == 403  # the cookie does not count now

        def keep() -> None:
            session = visitor.django.session
            session[CSRF_SESSION_KEY] = visitor.secret
            session.save()

        await sync_to_async(keep)()
        # What another process writes into a session is seen when its time in memory is over.
        current_guard().identities.invalidate()  # type: ignore[union-attr]
        assert (await send(visitor, "append")).status == 204


async def test_other_names_of_cookie_and_header_are_djangos_settings(visitor: Visitor) -> None:
    with CLOSED, override_settings(CSRF_HEADER_NAME="HTTP_X_XSRF_TOKEN", CSRF_COOKIE_NAME="xsrf"):
        headers = visitor.headers
        assert (await send(visitor, "append")).status == 403
        assert (await send(visitor, "append", headers={"x-xsrf-token": headers["x-csrftoken"]})).status == 204


async def test_what_does_not_depend_on_the_session_needs_no_token(visitor: Visitor) -> None:
    visitor.csrf = False
    assert (await send(visitor, "append")).status == 204  # everybody may
    signed = f"token={sign('a', 'append', expires=60)}"
    names = [f"django_durable_streams.permissions.{name}" for name in ("ModelPermissions", "SignedURLs")]
    with override_streams(PERMISSION_CLASSES=names):
        assert (await send(visitor, "append")).status == 403
        assert (await send(visitor, "append", signed)).status == 204
        assert (await send(visitor, "append", signed, {"origin": "https://evil.example"})).status == 204


async def test_nobody_needs_a_token_who_is_not_logged_in(client: AsgiClient) -> None:
    with CLOSED:
        reply = await send(client, "append", headers={"origin": "https://evil.example"})
    assert (reply.status, "CSRF" in reply.json()["detail"]) == (403, False)


def test_djangos_test_client_checks_as_it_is_told(engines: None, make_user: Callable[..., User]) -> None:
    from django.test import Client

    user = make_user("writer", "change")
    for enforce, status in ((False, 204), (True, 403)):
        client = Client(enforce_csrf_checks=enforce)
        client.force_login(user)
        with CLOSED:
            reply = client.post("/v1/stream/a", b"x", content_type="text/plain")
        assert reply.status_code == status


def test_a_form_is_not_read_for_the_token(engines: None, make_user: Callable[..., User]) -> None:
    # The body is the stream's. Django's middleware would take it apart, and nothing would be left to append.
    from django.test import Client

    Stream.objects.create(path="form", content_type="application/x-www-form-urlencoded")
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user("writer", "change"))
    secret = _get_new_csrf_string()
    client.cookies["csrftoken"] = secret
    body = f"csrfmiddlewaretoken={secret}&x=1".encode()
    kind = "application/x-www-form-urlencoded"
    with CLOSED:
        assert client.post("/v1/stream/form", body, content_type=kind).status_code == 403
        token = {"x-csrftoken": secret}
        assert client.post("/v1/stream/form", body, content_type=kind, headers=token).status_code == 204
    assert b"".join(Stream.objects.get(path="form").read()) == body

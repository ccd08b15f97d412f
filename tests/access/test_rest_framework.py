"""Users whom Django REST framework's authentication classes find."""

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from rest_framework.authentication import BaseAuthentication, BasicAuthentication
from rest_framework.exceptions import AuthenticationFailed

from django_durable_streams.access.loading import make_permission
from django_durable_streams.models import Stream
from django_durable_streams.permissions import AccessRequest, Permission
from tests.access.conftest import arevoke, log_in_at_django
from tests.access.operations import OPERATIONS, send
from tests.access.visitors import Visitor
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams

CLASS = "django_durable_streams.permissions.RestFramework"
HERE = "tests.access.test_rest_framework"
UNSAFE = ["create", "append", "close", "delete"]


class Keys(BaseAuthentication):
    """A key in a header, which is a user's name."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        key = request.headers.get("x-key")
        if key is None:
            return None
        user = User.objects.filter(username=key).first()
        if user is None:
            raise AuthenticationFailed("There is no such key.")
        return user, key

    def authenticate_header(self, request: Any) -> str:
        return "Key"


@pytest.fixture(autouse=True)
def streams(transactional_db: None) -> None:
    Stream.objects.create(path="a", content_type="text/plain").append("abc")
    Stream.objects.create(path="closed", content_type="text/plain", closed=True, data="abc")


@pytest.mark.parametrize("operation", OPERATIONS)
@override_streams(PERMISSION_CLASSES={"CLASS": CLASS, "AUTHENTICATION": [f"{HERE}.Keys"]})
@pytest.mark.slow
async def test_who_is_found_may_do_what_the_other_permission_says(
    client: AsgiClient, make_user: Callable[..., User], operation: str
) -> None:
    await sync_to_async(make_user)("key", *OPERATIONS[operation][4])
    await sync_to_async(make_user)("useless")
    assert (await send(client, operation, headers={"x-key": "key"})).status in (200, 201, 204)
    for headers in ({}, {"x-key": "useless"}, {"x-key": "nobody"}):
        reply = await send(client, operation, headers=headers)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Key")


@override_streams(
    PERMISSION_CLASSES={"CLASS": CLASS, "AUTHENTICATION": [f"{HERE}.Keys"]},
    POLL_INTERVAL=0.02,
    REAUTHORIZE_INTERVAL=0.05,
)
async def test_a_live_read_ends_with_the_permission(client: AsgiClient, make_user: Callable[..., User]) -> None:
    user = await sync_to_async(make_user)("key", "view")
    async with client.open("GET", "a?offset=-1&live=sse", {"x-key": "key"}) as exchange:
        await exchange.chunk()
        await arevoke(user, "view")
        while await exchange.chunk() is not None:
            pass


@pytest.mark.parametrize("operation", UNSAFE)
@override_streams(
    PERMISSION_CLASSES={"CLASS": CLASS, "AUTHENTICATION": ["rest_framework.authentication.SessionAuthentication"]}
)
async def test_sessions_are_checked_against_other_sites(
    client: AsgiClient, make_user: Callable[..., User], operation: str
) -> None:
    user = await sync_to_async(make_user)("somebody", "add", "change", "delete")
    django = await sync_to_async(log_in_at_django)(user)
    assert (await send(Visitor(client, django, csrf=False), operation)).status == 403
    assert (await send(Visitor(client, django), operation)).status in (200, 201, 204)


@override_streams(PERMISSION_CLASSES={"CLASS": CLASS, "AUTHENTICATION": [BasicAuthentication]})
async def test_passwords_will_do_and_the_body_is_left_alone(client: AsgiClient, make_user: Callable[..., User]) -> None:
    from base64 import b64encode

    await sync_to_async(make_user)("ann", "add", "view", "change")
    basic = {"authorization": f"Basic {b64encode(b'ann:x').decode()}"}
    kind = "application/x-www-form-urlencoded"
    assert (await client.request("PUT", "form", {**basic, "content-type": kind}, b"a=1&")).status == 201
    assert (await client.request("POST", "form", {**basic, "content-type": kind}, b"b=2")).status == 204
    assert (await client.get("form", **basic)).body == b"a=1&b=2"
    refused = await client.get("form", authorization="Basic " + b64encode(b"ann:y").decode())
    assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Basic realm="api"')


class Asynchronous(Permission):
    async def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return True


def test_the_other_permission_must_not_be_asynchronous() -> None:
    with pytest.raises(ImproperlyConfigured, match="asynchronous"):
        make_permission({"CLASS": CLASS, "AUTHENTICATION": [Keys], "PERMISSION": f"{HERE}.Asynchronous"})

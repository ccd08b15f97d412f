"""Which permission allows which subscriptions."""

import json
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import jwt
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client

from django_durable_streams.access.base import ACTIONS, STREAM_ACTIONS, Action
from django_durable_streams.access.guard import current_guard
from django_durable_streams.access.loading import make_permission
from django_durable_streams.permissions import Permission, sign
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.subscriptions import routes
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams
from tests.subscriptions.fakes import FakeService

PACKAGE = "django_durable_streams.permissions."
KEY = "a secret of at least 32 bytes, for tests"
BEARER = {"CLASS": PACKAGE + "BearerTokens", "KEY": KEY, "ALGORITHMS": ["HS256"]}


class OnlyOne(Permission):
    """Allows one subscription, and asks where it is called."""

    async def can_subscribe(self, user: Any, subscription_id: str, request: Any) -> bool:
        return subscription_id == "mine" and request.header(b"authorization") == b"Bearer x"


class Everything:
    """A permission as it was before there were subscriptions."""

    in_memory = True

    def can_create(self, user: Any, path: str, request: Any) -> bool:
        return True

    can_read = can_append = can_close = can_delete = can_create


@pytest.fixture(autouse=True)
def service() -> Iterator[FakeService]:
    fake = FakeService()
    with patch.object(routes, "service_for", lambda using=None: fake):
        yield fake


@pytest.fixture
def client(engines: None) -> AsgiClient:
    return AsgiClient(DurableStreams())


async def status(client: AsgiClient, name: str, query: str = "", **headers: str) -> int:
    return (await client.get(f"__ds/subscriptions/{name}{query}", **headers)).status


def bearer(claim: dict[str, list[str]]) -> str:
    return f"Bearer {jwt.encode({'exp': time.time() + 60, 'streams': claim}, KEY, 'HS256')}"


async def test_by_default_nobody_may(client: AsgiClient) -> None:
    assert Permission().can_subscribe(None, "a", None) is False  # type: ignore[arg-type]
    for name in ("ModelPermissions", "ReadOnly", "SignedURLs"):
        with override_streams(PERMISSION_CLASSES=PACKAGE + name):
            assert await status(client, "a") == 403


async def test_allow_all_allows_all(client: AsgiClient) -> None:
    with override_streams(PERMISSION_CLASSES=PACKAGE + "AllowAll"):
        assert current_guard() is None
        assert await status(client, "a") == 200


async def test_paths_of_streams_decide_about_no_subscription(client: AsgiClient) -> None:
    user = await sync_to_async(User.objects.create_user)("ann", password="x")
    django = Client()
    await sync_to_async(django.force_login)(user)
    cookie = "; ".join(f"{key}={morsel.value}" for key, morsel in django.cookies.items())
    with override_streams(PERMISSION_CLASSES={"CLASS": PACKAGE + "Owner", "OWNER": "**"}):
        assert await status(client, "a", cookie=cookie) == 403
    with override_streams(PERMISSION_CLASSES=PACKAGE + "SignedURLs"):
        for path in ("a", "__dsa"):
            assert await status(client, "a", f"?token={sign(path, *STREAM_ACTIONS, expires=60)}") == 403


def test_no_path_can_be_given_to_subscribers() -> None:
    assert set(ACTIONS) - set(STREAM_ACTIONS) == {"subscribe", "list"}
    with pytest.raises(ValueError, match="actions"):
        sign("a", "subscribe", expires=60)
    with pytest.raises(Exception, match="actions"):
        make_permission({"CLASS": PACKAGE + "Owner", "OWNER": {"a": ["subscribe"]}})


async def test_a_token_names_the_ids(client: AsgiClient) -> None:
    with override_streams(PERMISSION_CLASSES=BEARER):
        token = bearer({"subscribe": ["workers-*", "one"]})
        assert [await status(client, name, authorization=token) for name in ("one", "workers-a", "two")] == [
            200,
            200,
            401,
        ]
        assert await status(client, "a", authorization=bearer({"subscribe": ["**"]})) == 200
        everything = bearer({action: ["**"] for action in STREAM_ACTIONS})
        assert await status(client, "a", authorization=everything) == 401


async def test_rest_framework_asks_the_inner_permission(client: AsgiClient) -> None:
    inner = {"CLASS": PACKAGE + "RestFramework", "AUTHENTICATION": [], "PERMISSION": PACKAGE + "AllowAll"}
    with override_streams(PERMISSION_CLASSES=inner):
        assert await status(client, "a") == 200
    with override_streams(PERMISSION_CLASSES={**inner, "PERMISSION": PACKAGE + "ReadOnly"}):
        assert await status(client, "a") == 403


async def test_a_class_of_the_project_decides(client: AsgiClient) -> None:
    with override_streams(PERMISSION_CLASSES=f"{__name__}.OnlyOne"):
        assert [await status(client, name, authorization="Bearer x") for name in ("mine", "other")] == [200, 403]
        assert await status(client, "mine") == 403


async def test_a_wake_stream_is_written_only_for_those_who_may_append_to_it(
    client: AsgiClient, service: FakeService
) -> None:
    config = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/pool"}

    async def create(claim: dict[str, list[str]], **changes: Any) -> int:
        body = json.dumps({**config, **changes}).encode()
        return (await client.request("PUT", "__ds/subscriptions/a", {"authorization": bearer(claim)}, body)).status

    with override_streams(PERMISSION_CLASSES=BEARER):
        assert await create({"subscribe": ["a"]}) == 401
        assert await create({"subscribe": ["a"], "append": ["wake/other"]}) == 401
        assert await create({"append": ["wake/pool"]}) == 401
        assert service.calls == []
        assert await create({"subscribe": ["a"], "append": ["wake/*"]}) == 201
        hook = {"type": "webhook", "webhook": {"url": "https://worker.example/"}}
        assert await create({"subscribe": ["a"]}, **hook) == 201


async def test_any_of_several_permissions_is_enough(client: AsgiClient) -> None:
    with override_streams(PERMISSION_CLASSES=[BEARER, f"{__name__}.OnlyOne"]):
        assert await status(client, "mine", authorization="Bearer x") == 200
        assert await status(client, "one", authorization=bearer({"subscribe": ["one"]})) == 200
        assert await status(client, "two", authorization=bearer({"subscribe": ["one"]})) == 401


def test_a_class_without_the_method_is_an_error_at_the_start() -> None:
    with pytest.raises(Exception, match="can_subscribe"):
        make_permission(f"{__name__}.Everything")
    assert Action.SUBSCRIBE.method == "can_subscribe"

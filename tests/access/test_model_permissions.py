"""Django's permissions on the model Stream, for every operation and through both entry points."""

from collections.abc import Callable

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User

from django_durable_streams.models import Stream
from tests.access.conftest import agrant, arevoke
from tests.access.operations import OPERATIONS, send
from tests.access.visitors import Visitor
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams

CLOSED = override_streams(PERMISSION_CLASSES="django_durable_streams.permissions.ModelPermissions")
ALL = ("add", "view", "change", "delete")

pytestmark = pytest.mark.usefixtures("streams")


@pytest.fixture
def streams(transactional_db: None) -> None:
    Stream.objects.create(path="a", content_type="text/plain").append("abc")
    Stream.objects.create(path="closed", content_type="text/plain", closed=True, data="abc")


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_those_who_are_not_logged_in_may_do_nothing(client: AsgiClient, operation: str) -> None:
    with CLOSED:
        reply = await send(client, operation)
    assert reply.status == 403
    assert reply.headers["cache-control"] == "no-store"
    assert not any(name.startswith("stream-") for name in reply.headers)
    if operation != "state":
        assert reply.json()["type"] == "urn:durable-streams:error:permission-denied"


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.slow
async def test_each_operation_needs_its_permissions_and_no_other(
    make_user: Callable[..., User], visit: Callable[[User], Visitor], operation: str
) -> None:
    needed = OPERATIONS[operation][4]
    anything_else = await sync_to_async(make_user)("anything-else", *(set(ALL) - set(needed)))
    enough = await sync_to_async(make_user)("enough", *needed)
    with CLOSED:
        assert (await send(await sync_to_async(visit)(anything_else), operation)).status == 403
        assert (await send(await sync_to_async(visit)(enough), operation)).status in (200, 201, 204)


async def test_a_fork_needs_both_permissions(make_user: Callable[..., User], visit: Callable[[User], Visitor]) -> None:
    for only in ("add", "view"):
        user = await sync_to_async(make_user)(only, only)
        with CLOSED:
            assert (await send(await sync_to_async(visit)(user), "fork")).status == 403


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.slow
async def test_a_refusal_does_not_tell_whether_there_is_a_stream(client: AsgiClient, operation: str) -> None:
    method, target, headers, body, _ = OPERATIONS[operation]
    path, _, query = target.partition("?")
    answers = []
    for asked in (path, f"no-{path}", "a", "no-a"):
        fields = dict(headers)
        if "stream-forked-from" in fields:
            fields["stream-forked-from"] = f"/v1/stream/{asked}"
        with CLOSED:
            reply = await client.request(method, f"{asked}?{query}", fields, body)
        answers.append((reply.status, reply.body, sorted(reply.headers)))
    assert all(answer == answers[0] for answer in answers)


async def test_superusers_may_do_everything(visit: Callable[[User], Visitor]) -> None:
    user = await sync_to_async(User.objects.create_superuser)("root")
    visitor = await sync_to_async(visit)(user)
    with CLOSED:
        for operation in ("read", "append", "close", "fork", "delete"):
            assert (await send(visitor, operation)).status in (200, 201, 204)


async def test_users_who_are_not_active_may_do_nothing(
    make_user: Callable[..., User], visit: Callable[[User], Visitor]
) -> None:
    user = await sync_to_async(make_user)("gone", *ALL)
    visitor = await sync_to_async(visit)(user)
    with CLOSED:
        assert (await send(visitor, "read")).status == 200
        user.is_active = False
        await user.asave()
        assert (await send(visitor, "read")).status == 403


async def test_what_is_granted_and_revoked_in_this_process_counts_at_once(
    make_user: Callable[..., User], visit: Callable[[User], Visitor]
) -> None:
    user = await sync_to_async(make_user)("somebody")
    visitor = await sync_to_async(visit)(user)
    with CLOSED:
        assert (await send(visitor, "read")).status == 403
        await agrant(user, "view")
        assert (await send(visitor, "read")).status == 200
        await arevoke(user, "view")
        assert (await send(visitor, "read")).status == 403


async def test_a_path_that_no_stream_can_have_is_a_bad_request_for_everybody(client: AsgiClient) -> None:
    with CLOSED:
        for path in ("", "a//b", "%00", "a%5Cb", "x" * 513):
            assert (await client.request("GET", path)).status in (400, 404)
        assert (await client.request("GET", "a//b")).status == 400
        assert (await client.request("PATCH", "a")).status == 405
        assert (await client.request("OPTIONS", "a")).status == 204


async def test_the_permissions_of_the_default_are_djangos(client: AsgiClient) -> None:
    from django.test import override_settings

    with override_settings(DURABLE_STREAMS={}):
        assert (await send(client, "read")).status == 403


async def test_everybody_may_read_where_streams_are_read_only(
    client: AsgiClient, make_user: Callable[..., User], visit: Callable[[User], Visitor]
) -> None:
    writer = await sync_to_async(visit)(await sync_to_async(make_user)("writer", "add", "change", "delete"))
    with override_streams(PERMISSION_CLASSES="django_durable_streams.permissions.ReadOnly"):
        for operation in OPERATIONS:
            allowed = OPERATIONS[operation][4] == ("view",)
            assert (await send(client, operation)).status == (200 if allowed else 403), operation
        for operation in ("append", "fork", "close", "delete"):
            assert (await send(writer, operation)).status in (200, 201, 204)

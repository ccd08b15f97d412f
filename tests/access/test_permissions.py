"""Classes of a project's own, and how several are combined."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core import exceptions
from django.http import HttpRequest

from django_durable_streams.models import Stream
from django_durable_streams.permissions import AccessRequest, AllowAll, Permission, sign
from tests.access.operations import OPERATIONS, TEXT, send
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint

HERE = "tests.access.test_permissions"
PACKAGE = "django_durable_streams.permissions"


@pytest.fixture(autouse=True)
def streams(transactional_db: None) -> None:
    Stream.objects.create(path="a", content_type="text/plain").append("abc")
    Stream.objects.create(path="closed", content_type="text/plain", closed=True, data="abc")
    Seen.calls.clear()


class Seen(Permission):
    """Allows everything and notes what it was asked."""

    calls: list[tuple[str, Any, str, AccessRequest, threading.Thread]] = []

    def _note(self, name: str, user: Any, path: str, request: AccessRequest) -> bool:
        Seen.calls.append((name, user, path, request, threading.current_thread()))
        return True

    def can_create(self, user: Any, path: str, request: AccessRequest) -> bool:
        return self._note("create", user, path, request)

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        # Synchronous methods may use the database: this would fail in an event loop.
        return Stream.objects.filter(path__contains="").exists() and self._note("read", user, path, request)

    async def can_append(self, user: Any, path: str, request: AccessRequest) -> bool:
        await asyncio.sleep(0)
        return self._note("append", user, path, request)

    def can_close(self, user: Any, path: str, request: AccessRequest) -> bool:
        return self._note("close", user, path, request)

    def can_delete(self, user: Any, path: str, request: AccessRequest) -> bool:
        return self._note("delete", user, path, request)


ASKED = {
    "create": [("create", "made")],
    "create-closed": [("create", "made")],
    "fork": [("create", "made"), ("read", "a")],
    "read": [("read", "a")],
    "state": [("read", "a")],
    "long-poll": [("read", "a")],
    "sse": [("read", "closed")],
    "append": [("append", "a")],
    "close": [("close", "a"), ("append", "a")],
    "append-and-close": [("close", "a"), ("append", "a")],
    "delete": [("delete", "a")],
}


@pytest.mark.parametrize("operation", OPERATIONS)
@override_streams(PERMISSION_CLASSES=f"{HERE}.Seen")
async def test_each_operation_asks_for_what_it_does(client: AsgiClient, operation: str) -> None:
    assert (await send(client, operation)).status in (200, 201, 204)
    assert [(call[0], call[2]) for call in Seen.calls] == ASKED[operation]


@override_streams(PERMISSION_CLASSES=f"{HERE}.Seen")
async def test_synchronous_methods_run_in_threads_and_asynchronous_ones_do_not(client: AsgiClient) -> None:
    await send(client, "read")
    await send(client, "append")
    assert [call[4] is threading.main_thread() for call in Seen.calls] == [False, True]


@override_streams(PERMISSION_CLASSES=f"{HERE}.Seen")
async def test_a_permission_sees_the_request(client: AsgiClient) -> None:
    await send(client, "read", "x=1&x=2&y=%C3%BC", {"x-thing": "value"})
    (_, user, path, request, _) = Seen.calls[0]
    assert (user.is_authenticated, path, request.method) == (False, "a", "GET")
    assert request.headers["x-thing"] == "value"
    assert (request.query.getlist("x"), request.query["y"]) == (["1", "2"], "ü")
    assert request.address == "127.0.0.1"
    assert isinstance(request.http_request, HttpRequest)
    assert request.http_request.META["HTTP_X_THING"] == "value"
    assert request.scope is not None
    assert request.scope["type"] == "http"


class OnlyClose(Permission):
    in_memory = True

    def can_close(self, user: Any, path: str, request: AccessRequest) -> bool:
        return True


@override_streams(PERMISSION_CLASSES=f"{HERE}.OnlyClose")
async def test_whoever_may_only_close_brings_no_data_along(client: AsgiClient) -> None:
    close = {"stream-closed": "TRUE"}
    assert (await client.request("POST", "a", {**close, **TEXT}, b"x")).status == 403
    assert (await client.request("POST", "a", {**close, **TEXT}, [b"", b"x"])).status == 403
    # Its length is said to be nothing, and nothing is what is believed only when the body is there.
    assert (await client.request("POST", "a", {**close, **TEXT, "content-length": "0"}, b"x")).status in (204, 403)
    assert (await Stream.objects.aget(path="a")).tail_position == 3
    assert (await client.request("POST", "a", close)).status == 204


@pytest.mark.parametrize("value", ["false", "1", "yes", ""])
@override_streams(PERMISSION_CLASSES=f"{HERE}.OnlyClose")
async def test_a_header_that_does_not_close_is_an_append(client: AsgiClient, value: str) -> None:
    assert (await client.request("POST", "a", {"stream-closed": value, **TEXT}, b"x")).status == 403


class Raising(Permission):
    in_memory = True

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        raise exceptions.PermissionDenied("no")

    async def can_append(self, user: Any, path: str, request: AccessRequest) -> bool:
        raise RuntimeError("a bug")


@override_streams(PERMISSION_CLASSES=[f"{HERE}.Raising", f"{PACKAGE}.SignedURLs"])
async def test_djangos_permission_denied_is_a_no_and_another_error_lets_nobody_in(
    client: AsgiClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await send(client, "read")).status == 403
    assert (await send(client, "read", f"token={sign('a', 'read', expires=60)}")).status == 200
    with caplog.at_level(logging.CRITICAL, "django_durable_streams.server.failures"):
        assert (await send(client, "append")).status == 500
    assert (await Stream.objects.aget(path="a")).tail_position == 3


@override_streams(PERMISSION_CLASSES=[f"{PACKAGE}.ModelPermissions", f"{HERE}.OnlyClose", f"{PACKAGE}.SignedURLs"])
async def test_of_several_it_is_enough_that_one_allows_it(client: AsgiClient) -> None:
    assert (await send(client, "read")).status == 403
    assert (await send(client, "read", f"token={sign('a', 'read', expires=60)}")).status == 200
    # One of them allows the closing, another one the data.
    assert (await send(client, "append-and-close", f"token={sign('a', 'append', expires=60)}")).status == 204


class Challenging(Permission):
    in_memory = True
    challenge = 'Bearer realm="streams"'


@override_streams(PERMISSION_CLASSES=[f"{PACKAGE}.ModelPermissions", f"{HERE}.Challenging"])
async def test_where_a_token_would_help_it_is_asked_for(client: AsgiClient) -> None:
    reply = await send(client, "append")
    assert (reply.status, reply.headers["www-authenticate"]) == (401, 'Bearer realm="streams"')
    assert reply.json()["type"] == "urn:durable-streams:error:not-authenticated"


@override_streams(PERMISSION_CLASSES=[f"{PACKAGE}.ModelPermissions", f"{PACKAGE}.SignedURLs"])
async def test_a_refusal_is_logged_once_and_without_what_must_stay_secret(
    client: AsgiClient, caplog: pytest.LogCaptureFixture
) -> None:
    secret = sign("b", "read", expires=60)
    headers = {"authorization": "Bearer hunter2", "cookie": "sessionid=hunter2hunter2"}
    with caplog.at_level(logging.DEBUG):
        assert (await send(client, "read", f"token={secret}", headers)).status == 403
    (record,) = [entry for entry in caplog.records if entry.name == "django_durable_streams.access"]
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "read of a is refused to user anonymous at 127.0.0.1 by django_durable_streams.permissions.ModelPermissions, "
        "django_durable_streams.permissions.SignedURLs. "
        "The user has no permission durable_streams.view_stream. "
        "The signature of the URL is wrong: it is for another path, or was made with another SECRET_KEY. "
        "The session cookie (sessionid) leads to no user here."
    )
    assert not any(secret in entry.getMessage() or "hunter2" in entry.getMessage() for entry in caplog.records)


@pytest.mark.parametrize(
    "permission",
    [
        "no.such.Permission",
        "os.path.join",
        "django.http.HttpRequest",
        5,
        None,
        [],
        {},
        {"OWNER": "x"},
        {"CLASS": f"{PACKAGE}.Owner"},
        {"CLASS": f"{PACKAGE}.AllowAll", "WHAT": 1},
        [f"{PACKAGE}.AllowAll", "no.such.Permission"],
    ],
)
async def test_a_setting_that_means_nothing_lets_nobody_in(
    client: AsgiClient, permission: object, caplog: pytest.LogCaptureFixture
) -> None:
    with override_streams(PERMISSION_CLASSES=permission), caplog.at_level(logging.CRITICAL):
        try:
            status = (await send(client, "read")).status
        except exceptions.ImproperlyConfigured:
            status = 500
    assert status == 500


class Failing(Permission):
    """Fails in a thread, as long as it has something to fail with: what it asks, or what it prepares."""

    error: BaseException | None = None
    prepares: BaseException | None = None

    def prepare(self, user: Any) -> None:
        if Failing.prepares is not None:
            raise Failing.prepares

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        if Failing.error is not None:
            raise Failing.error
        return True


@pytest.mark.parametrize("kind", [RuntimeError, StopIteration, SystemExit, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("where", ["error", "prepares"])
@override_streams(PERMISSION_CLASSES=f"{HERE}.Failing", AUTH_CACHE_SECONDS=0)
@pytest.mark.slow
async def test_whatever_a_permission_raises_in_a_thread_its_request_is_answered_and_the_next_too(
    client: AsgiClient, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException], where: str
) -> None:
    monkeypatch.setattr(Failing, where, kind("what a project has written"))
    for _ in range(6):  # more than there are threads
        assert (await asyncio.wait_for(send(client, "read"), 10)).status == 500
    monkeypatch.setattr(Failing, where, None)
    for _ in range(6):
        assert (await asyncio.wait_for(send(client, "read"), 10)).status == 200


def noting(method: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as many projects have one, which hides what the method is."""

    @wraps(method)
    def noted(*args: Any) -> Any:
        return method(*args)

    return noted


def only_staff(method: Callable[..., bool]) -> Callable[..., bool]:
    """One that narrows what the method allows."""

    @wraps(method)
    def narrowed(self: Permission, user: Any, path: str, request: AccessRequest) -> bool:
        return bool(getattr(user, "is_staff", False)) and method(self, user, path, request)

    return narrowed


class Narrowed(AllowAll):
    """Allows what an open class allows, to some."""

    can_create = only_staff(AllowAll.can_create)
    can_read = only_staff(AllowAll.can_read)
    can_append = only_staff(AllowAll.can_append)
    can_close = only_staff(AllowAll.can_close)
    can_delete = only_staff(AllowAll.can_delete)


class AnonymousCaller(Permission):
    """Refuses everything, without looking asynchronous."""

    @noting
    async def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        await asyncio.sleep(0)
        return False

    can_create = can_append = can_close = can_delete = can_read


class NobodyAtOnce(AnonymousCaller):
    """The same, asking nothing but memory."""

    in_memory = True


class NobodyInAThread(Permission):
    """The same by a function that asgiref has made asynchronous."""

    @sync_to_async
    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return False

    can_create = can_append = can_close = can_delete = can_read


class NobodyDenied(Permission):
    """The same by an exception."""

    @noting
    async def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        raise exceptions.PermissionDenied

    can_create = can_append = can_close = can_delete = can_read


REFUSING = ["Narrowed", "AnonymousCaller", "NobodyAtOnce", "NobodyInAThread", "NobodyDenied"]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", REFUSING)
@pytest.mark.slow
async def test_a_decorated_method_that_refuses_refuses(client: AsgiClient, name: str, operation: str) -> None:
    with override_streams(PERMISSION_CLASSES=f"{HERE}.{name}"):
        assert (await send(client, operation)).status == 403


@pytest.mark.parametrize("name", REFUSING)
async def test_behind_rest_framework_too(client: AsgiClient, name: str) -> None:
    options = {"CLASS": f"{PACKAGE}.RestFramework", "AUTHENTICATION": [], "PERMISSION": f"{HERE}.{name}"}
    with suppress(exceptions.ImproperlyConfigured), override_streams(PERMISSION_CLASSES=options):
        assert (await send(client, "read")).status in (403, 500)


class Somebody(Permission):
    """Allows everything, without looking asynchronous."""

    @noting
    async def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        await asyncio.sleep(0)
        return True


@pytest.mark.parametrize("entry", ENTRY_POINTS)
async def test_a_decorated_method_decides_at_every_entry_point(entry: str, engines: None) -> None:
    for name, status in (("Somebody", 200), *((name, 403) for name in REFUSING)):
        with override_streams(PERMISSION_CLASSES=f"{HERE}.{name}"):
            assert (await EntryPoint(entry).request("GET", "a")).status == status

"""What a page gets instead of events, so that no browser asks for ever."""

import json

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.template import TemplateDoesNotExist
from django.test import AsyncRequestFactory, Client

from django_durable_streams.access.grants import Grant
from django_durable_streams.engine.engine import running_engines
from django_durable_streams.models import Stream
from tests.access.conftest import arevoke, grant, log_in_at_django
from tests.event_stream import events_of
from tests.overriding import override_streams
from tests.server.pages.conftest import PageClient
from tests.server.waiting import until, watched
from tests.tokens import token

JSON = "application/json"
MODELS = "django_durable_streams.permissions.ModelPermissions"
OFTEN = {"POLL_INTERVAL": 0.02, "REAUTHORIZE_INTERVAL": 0.05, "AUTH_CACHE_SECONDS": 0.05}


async def assert_ends(pages: PageClient, url: str, last_id: str, status: int, reason: str) -> None:
    """Check a refusal as a status, as an event, and after the event."""
    reply = await pages.page(url, last_id)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
    assert reply.headers["cache-control"] == "no-store"
    query = "&" if "?" in url else "?"
    reply = await pages.page(f"{url}{query}refusals=event", last_id)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
    (event,) = events_of(reply.body).events
    assert (event.kind, event.last_id) == ("end", "end")
    fields = json.loads(event.data)
    assert (fields["reason"], fields["status"]) == (reason, status)
    assert (await pages.page(f"{url}{query}refusals=event", "end")).status == 204


@pytest.mark.parametrize("last_id", ["x", "0", "-2", "../..", "9" * 40, f"{token(1)};{token(1)}", "END"])
async def test_an_id_that_is_none_is_a_400(pages: PageClient, last_id: str) -> None:
    await pages.create("a", b"1", JSON)
    await assert_ends(pages, "plain/a", last_id, 400, "invalid-offset")


@pytest.mark.parametrize("offset", ["x", "", "end"])
async def test_an_offset_that_is_none_is_a_400(pages: PageClient, offset: str) -> None:
    await pages.create("a", b"1", JSON)
    await assert_ends(pages, f"plain/a?offset={offset}", "", 400, "invalid-offset")


async def test_an_id_of_an_earlier_stream_is_a_410(pages: PageClient) -> None:
    await pages.create("a", b"[1,2]", JSON)
    await pages.request("DELETE", "a")
    await pages.create("a", b"[1,2]", JSON)
    await assert_ends(pages, "plain/a", token(2), 410, "offset-gone")


async def test_an_id_after_the_data_is_a_410(pages: PageClient) -> None:
    await pages.create("a", b"[1,2]", JSON)
    await assert_ends(pages, "plain/a", token(40), 410, "offset-gone")


async def test_no_stream_is_a_404(pages: PageClient) -> None:
    await assert_ends(pages, "plain/nowhere", "", 404, "stream-not-found")


@pytest.mark.parametrize("path", ["__ds/subscriptions/a", "__ds/jwks.json"])
async def test_an_event_source_leads_to_no_control_api(pages: PageClient, path: str) -> None:
    reply = await pages.page(f"plain/{path}")
    assert reply.status == 404
    assert reply.headers["content-type"] == "application/problem+json"


async def test_a_deleted_stream_ends_its_readers_without_an_end(pages: PageClient) -> None:
    await pages.create("a", b"[1,2]", JSON)
    async with pages.source("plain/a") as source:
        await source.until(2)
        await pages.request("DELETE", "a")
        assert [event.kind for event in (await source.rest()).events] == ["message", "message"]
    await assert_ends(pages, "plain/a", token(2), 404, "stream-not-found")


async def test_an_instance_whose_stream_was_deleted_is_a_404(pages: PageClient) -> None:
    await pages.create("a", b"1", JSON)
    stream = await Stream.objects.aget(path="a")
    await pages.request("DELETE", "a")
    await pages.create("a", b"2", JSON)
    response = await stream.aevent_source(AsyncRequestFactory().get("/"))
    assert response.status_code == 404
    await sync_to_async(stream.refresh_from_db)(fields=["path"])
    assert stream.path is None
    assert (await stream.aevent_source(AsyncRequestFactory().get("/"))).status_code == 404


@override_streams(PERMISSION_CLASSES=MODELS)
async def test_the_permissions_of_streams_decide_unless_the_view_does(pages: PageClient) -> None:
    await sync_to_async(Stream.objects.create)(path="a", content_type="text/plain", closed=True, data="x")
    await assert_ends(pages, "plain/a", "", 403, "permission-denied")
    assert (await pages.page("sync/a")).status == 403
    assert await pages.data("by-path/a") == ["x"]


@override_streams(PERMISSION_CLASSES="django_durable_streams.permissions.ReadOnly", REGISTRY_PATH="registry")
async def test_the_registry_is_for_those_who_may_list_all_streams(pages: PageClient) -> None:
    with override_streams(REGISTRY_PATH=""):
        await sync_to_async(Stream.objects.create)(path="registry", content_type=JSON, closed=True, data=[1])
    await assert_ends(pages, "plain/registry", "", 403, "permission-denied")
    with override_streams(REGISTRY_PATH=""):
        assert await pages.data("plain/registry") == ["[1]"]


@override_streams(PERMISSION_CLASSES=MODELS, **OFTEN)
async def test_a_response_ends_with_its_permission(pages: PageClient) -> None:
    def set_up() -> str:
        Stream.objects.create(path="a", content_type="text/plain", data="x")
        user = User.objects.create_user("reader", password="x")
        grant(user, "view")
        return "; ".join(f"{name}={one.value}" for name, one in log_in_at_django(user).cookies.items())

    cookie = await sync_to_async(set_up)()
    async with pages.source("plain/a", cookie=cookie) as source:
        assert await source.until(1) == ["x"]
        assert dict(source.exchange.header_list)[b"Vary"].startswith(b"Cookie")
        await arevoke(await User.objects.aget(username="reader"), "view")
        assert [event.kind for event in (await source.rest()).events] == ["message"]
    assert (await pages.page("plain/a", cookie=cookie)).status == 403


@override_streams(PERMISSION_CLASSES=MODELS, **OFTEN)
async def test_a_closed_stream_does_not_say_so_to_a_reader_without_permission(
    pages: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sync_to_async(Stream.objects.create)(path="a", content_type="text/plain", data="x")

    async def allow(*args: object) -> bool:
        return True

    monkeypatch.setattr("django_durable_streams.access.guard.Guard.is_allowed", allow)
    async with pages.source("plain/a") as source:
        await source.until(1)
        monkeypatch.setattr(Grant, "holds", lambda self, now: False)
        await sync_to_async((await Stream.objects.aget(path="a")).close)()
        assert [event.kind for event in (await source.rest()).events] == ["message"]


@override_streams(RATE_LIMITS={"read": "1/h"})
async def test_an_event_source_that_asks_too_often_comes_back_later(pages: PageClient) -> None:
    await pages.create("a", b"1", JSON, stream_closed="true")
    assert await pages.data("plain/a") == ["1"]
    reply = await pages.page("plain/a")
    assert (reply.status, "retry-after" in reply.headers) == (429, True)
    reply = await pages.page("plain/a", accept="text/event-stream")
    assert (reply.status, events_of(reply.body).events) == (200, [])
    retry, told = reply.body.split(b"\n\n", 1)
    seconds = int(retry.removeprefix(b"retry:")) / 1000
    assert seconds > 2
    assert told == (b"event:keep-alive\ndata:%d\n\n" % seconds if seconds >= 30 else b"")


@override_streams(MAX_LIVE_READERS=1)
async def test_readers_are_limited_and_their_places_are_given_back(pages: PageClient) -> None:
    await pages.create("a", b"1", JSON)
    async with pages.source("plain/a") as source:
        await source.until(1)
        assert (await pages.page("plain/a")).status == 503
        reply = await pages.page("plain/a", accept="text/event-stream")
        assert (reply.status, reply.body) == (200, b"retry:5000\n\n")
    (engine,) = running_engines()
    await until(lambda: len(engine.live_reader_limit) == 0)
    async with pages.source("plain/a") as source:
        await source.until(1)


async def test_other_methods(pages: PageClient) -> None:
    await pages.create("a", b"1", JSON)
    head = await pages.page("plain/a", method="HEAD")
    assert (head.status, head.headers["content-type"], head.body) == (200, "text/event-stream", b"")
    assert (await pages.page("plain/nowhere", method="HEAD")).status == 404
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        reply = await pages.page("plain/a", method=method)
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert watched() == 0


@override_streams(CORS_ORIGINS=["https://app.example.com"])
async def test_pages_of_listed_origins_may_read(pages: PageClient) -> None:
    await pages.create("a", b"1", JSON, stream_closed="true")
    origin = "https://app.example.com"
    reply = await pages.page("plain/a", origin=origin)
    assert reply.headers["access-control-allow-origin"] == origin
    preflight = await pages.page("plain/a", method="OPTIONS", origin=origin, access_control_request_method="GET")
    assert preflight.status == 204
    assert "last-event-id" in preflight.headers["access-control-allow-headers"]


def test_wsgi_cannot_hold_an_event_stream_open(pages: PageClient) -> None:
    client = Client()
    Stream.objects.create(path="a", content_type="text/plain")
    for view in ("plain", "sync", "async", "by-path"):
        response = client.get(f"/{view}/a")
        assert (response.status_code, response["Content-Type"]) == (501, "application/problem+json")
        assert client.get(f"/{view}/a", headers={"last-event-id": "end"}).status_code == 204


async def test_a_template_that_is_not_there_is_an_error_of_the_view(
    pages: PageClient, caplog: pytest.LogCaptureFixture
) -> None:
    await pages.create("a", b"1", JSON)
    assert (await pages.page("missing/a")).status == 500
    (record,) = [record for record in caplog.records if record.name == "django.request"]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], TemplateDoesNotExist)

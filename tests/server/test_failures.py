"""Failures of the server: what the log has, what the client gets, and the id that joins the two."""

import json
import logging
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_durable_streams.protocol.messages import Request
from django_durable_streams.server import failures, handlers, url_prefix
from django_durable_streams.server.asgi import DurableStreams
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint


def failing(error: Exception) -> Any:
    def parse(request: Request) -> Any:
        raise error

    return handlers.Handler(parse, lambda *_: pytest.fail("It was answered."))


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.ERROR, "django_durable_streams")
    return caplog


def fields(record: logging.LogRecord, *names: str) -> list[Any]:
    """Attributes of a record that `extra` has set."""
    return [getattr(record, name) for name in names]


@pytest.mark.parametrize("name", ENTRY_POINTS)
@pytest.mark.parametrize("sent", ["req-1.2:3/a", "x" * 128])
async def test_the_id_of_a_request_is_in_the_log_and_in_the_answer(
    name: str, sent: str, engines: None, monkeypatch: pytest.MonkeyPatch, records: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(handlers.HANDLERS, "GET", failing(KeyError("a bug")))
    reply = await EntryPoint(name).request("GET", "a/b", {"x-request-id": sent})
    assert (reply.status, reply.headers["x-request-id"]) == (500, sent)
    (record,) = [record for record in records.records if record.name == failures.__name__]
    assert fields(record, "request_id", "method", "stream_path") == [sent, "GET", "a/b"]
    assert b"a bug" not in reply.body


@pytest.mark.parametrize("sent", [None, "", "with space", "ümlaut", "x" * 129, "a\tb", "<script>"])
async def test_a_request_without_a_valid_id_gets_a_new_one(
    sent: str | None, engines: None, monkeypatch: pytest.MonkeyPatch, records: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(handlers.HANDLERS, "GET", failing(KeyError("a bug")))
    headers = {} if sent is None else {"x-request-id": sent}
    replies = [await EntryPoint("asgi").request("GET", "a", headers) for _ in range(2)]
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert [record.request_id for record in records.records] == ids  # type: ignore[attr-defined]
    assert len(set(ids)) == 2
    assert all(len(made) == 32 and made.isalnum() for made in ids)


async def test_answers_that_many_requests_share_have_no_id(engines: None) -> None:
    reply = await EntryPoint("direct").request("GET", "missing", {"x-request-id": "mine"})
    assert reply.status == 404
    assert "x-request-id" not in reply.headers


@pytest.mark.parametrize("name", ENTRY_POINTS)
async def test_settings_that_cannot_work_are_logged_once_and_clients_are_sent_to_the_log(
    name: str, engines: None, monkeypatch: pytest.MonkeyPatch, records: pytest.LogCaptureFixture
) -> None:
    problem = ImproperlyConfigured(f"KEY of {name} must be a list.")
    monkeypatch.setitem(handlers.HANDLERS, "GET", failing(problem))
    entry_point = EntryPoint(name)
    replies = [await entry_point.request("GET", "a") for _ in range(3)]
    assert [reply.status for reply in replies] == [500] * 3
    assert "Its log says what to do." in json.loads(replies[2].body)["detail"]
    assert b"KEY" not in replies[0].body
    logged = [record.getMessage() for record in records.records if record.name == failures.__name__]
    assert logged == [f"Streams cannot be served with these settings. {problem}"]


async def test_views_refuse_when_permissions_cannot_be_made(
    engines: None, monkeypatch: pytest.MonkeyPatch, records: pytest.LogCaptureFixture
) -> None:
    def current_guard() -> None:
        raise ImproperlyConfigured("PERMISSION_CLASSES of the views is wrong.")

    monkeypatch.setattr("django_durable_streams.server.views.current_guard", current_guard)
    reply = await EntryPoint("django").request("GET", "a")
    assert reply.status == 500
    assert "PERMISSION_CLASSES of the views is wrong." in records.text


@pytest.mark.parametrize(
    ("prefix", "is_warned"),
    [
        ("", False),
        ("/v1/stream/", False),
        ("https://streams.example.com/v1/stream/", False),
        ("/behind/a/proxy/v1/stream/", False),
        ("/streams/", True),
        ("https://streams.example.com/", True),
        ("/v1/stream", True),
    ],
)
@pytest.mark.parametrize("way", ["lifespan", "urls"])
async def test_links_that_lead_elsewhere_are_found(
    prefix: str, is_warned: bool, way: str, engines: None, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(url_prefix, "_is_checked", False)
    with override_streams(URL_PREFIX=prefix):
        if way == "urls":
            for _ in range(2):
                await EntryPoint("django").request("GET", "a")
        else:
            url_prefix.check_at_start("/v1/stream/")
    warnings = [record for record in caplog.records if record.name == url_prefix.__name__]
    assert len(warnings) == is_warned
    if is_warned:
        assert "/v1/stream/" in warnings[0].getMessage()


async def test_the_urls_count_too_when_the_application_starts(
    engines: None, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    with override_streams(URL_PREFIX="/v1/stream/"):
        url_prefix.check_at_start("/elsewhere/")  # streams are served at both
        url_prefix.check_at_start(None)
    assert not [record for record in caplog.records if record.name == url_prefix.__name__]


@pytest.mark.parametrize("urls", [None, "no.such.module"])
async def test_a_project_without_urls_starts(urls: str | None, settings: Any, caplog: Any) -> None:
    settings.ROOT_URLCONF = urls
    with override_streams(URL_PREFIX="/v1/stream/"):
        url_prefix.check_at_start("/v1/stream/")
    with override_streams(URL_PREFIX="/streams/"):
        url_prefix.check_at_start("/v1/stream/")
    assert [record.levelname for record in caplog.records if record.name == url_prefix.__name__] == ["WARNING"]


async def test_a_server_that_starts_checks_the_prefix(
    engines: None, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    with override_streams(URL_PREFIX="/streams/"):
        await DurableStreams()({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert "URL_PREFIX is '/streams/'" in caplog.text


@pytest.mark.parametrize("name", ENTRY_POINTS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_request_for_a_missing_stream_has_a_line_in_the_log(
    name: str, method: str, engines: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "django_durable_streams")
    headers = {"content-type": "text/plain", "x-request-id": "mine"}
    reply = await EntryPoint(name).request(method, "a/missing", headers, b"x" if method == "POST" else b"")
    assert reply.status == 404
    (record,) = [one for one in caplog.records if one.name == failures.__name__]
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith(f"{method} of a/missing gets 404: There is no stream at this path.")
    assert fields(record, "request_id", "stream_path") == ["mine", "a/missing"]

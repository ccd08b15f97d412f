"""The URLs under WSGI: every request has an event loop of its own, which ends with it."""

import json
from typing import Any

import pytest
from django.db import connections
from django.test import Client, override_settings

from tests.overriding import override_streams

ROOT = "/v1/stream/"
QUICK = override_streams(LONG_POLL_TIMEOUT=0.05)


@pytest.fixture
def wsgi(engines: None) -> Client:
    return Client()


def put(client: Client, path: str, body: bytes = b"", kind: str = "text/plain", **headers: str) -> Any:
    reply = client.put(ROOT + path, body, content_type=kind, headers=named(headers))
    assert reply.status_code == 201, reply.content
    return reply


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def test_a_stream_is_made_appended_to_read_and_deleted(wsgi: Client) -> None:
    made = put(wsgi, "a/b", b"abc")
    assert made["Location"] == "http://testserver/v1/stream/a/b"
    appended = wsgi.post(ROOT + "a/b", b"def", content_type="text/plain")
    assert (appended.status_code, appended["Stream-Next-Offset"][-1]) == (204, "6")
    read = wsgi.get(ROOT + "a/b")
    assert (read.content, read["Stream-Up-To-Date"], read["Content-Type"]) == (b"abcdef", "true", "text/plain")
    assert wsgi.head(ROOT + "a/b")["Stream-Next-Offset"] == read["Stream-Next-Offset"]
    assert wsgi.delete(ROOT + "a/b").status_code == 204
    assert wsgi.get(ROOT + "a/b").status_code == 404


def test_event_streams_are_refused_clearly(wsgi: Client) -> None:
    put(wsgi, "a", b"abc")
    reply = wsgi.get(ROOT + "a?live=sse&offset=-1")
    assert reply.status_code == 501
    assert "long-poll" in json.loads(reply.content)["detail"]


@QUICK
def test_a_long_poll_returns_what_is_there_and_ends_where_nothing_comes(wsgi: Client) -> None:
    put(wsgi, "a", b"abc")
    assert wsgi.get(ROOT + "a?live=long-poll&offset=-1").content == b"abc"
    reply = wsgi.get(ROOT + "a?live=long-poll&offset=now")
    assert (reply.status_code, reply["Stream-Next-Offset"][-1]) == (204, "3")


def test_known_tags_are_answered_with_304_by_the_protocols_rules(wsgi: Client) -> None:
    put(wsgi, "a", b"abc")
    tag = wsgi.get(ROOT + "a")["ETag"]
    middleware = ["django.middleware.http.ConditionalGetMiddleware", "django.middleware.common.CommonMiddleware"]
    with override_settings(MIDDLEWARE=middleware):
        reply = Client().get(ROOT + "a", headers={"if-none-match": f'"x", W/{tag}'})
    assert (reply.status_code, reply["Stream-Next-Offset"][-1]) == (304, "3")


def test_atomic_requests_are_no_matter(wsgi: Client) -> None:
    put(wsgi, "a", b"abc")
    connections["default"].settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert wsgi.get(ROOT + "a").content == b"abc"
    finally:
        connections["default"].settings_dict["ATOMIC_REQUESTS"] = False


@override_streams(MAX_APPEND_BYTES=1000)
def test_the_limit_of_bodies(wsgi: Client) -> None:
    put(wsgi, "a", b"0")
    assert wsgi.post(ROOT + "a", b"x" * 1001, content_type="text/plain").status_code == 413
    assert wsgi.post(ROOT + "a", b"x" * 1000, content_type="text/plain").status_code == 204


def test_forms_from_other_sites_need_no_token_as_streams_have_no_cookies(engines: None) -> None:
    client = Client(enforce_csrf_checks=True)
    put(client, "a", b"0")
    assert client.post(ROOT + "a", b"x", content_type="text/plain").status_code == 204


@pytest.mark.parametrize("method", ["patch", "trace"])
def test_other_methods_are_not_allowed(wsgi: Client, method: str) -> None:
    reply = getattr(wsgi, method)(ROOT + "a")
    assert reply.status_code == 405
    assert "GET" in reply["Allow"]
    assert reply["X-Content-Type-Options"] == "nosniff"

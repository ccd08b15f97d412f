"""Under WSGI everything works but SSE, which is refused with the reason."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.entry_points.exchange import live
from tests.entry_points.probed import ProbedServer

LONG_POLL_SECONDS = 2.0


class WsgiServer(ProbedServer):
    """The example project under wsgiref."""

    def _command(self) -> list[str]:
        return [sys.executable, str(Path(__file__).with_name("wsgi_server.py")), str(self.port)]


@pytest.fixture(scope="module")
def server() -> Iterator[WsgiServer]:
    with WsgiServer(entry_point="urls", long_poll_timeout=LONG_POLL_SECONDS) as server:
        yield server


def test_a_stream_is_created_appended_to_read_and_closed(server: WsgiServer) -> None:
    path = server.create(b"one ")
    tail = server.append(path, b"two")
    read = httpx.get(server.url(path), params={"offset": "-1"})
    assert read.content == b"one two"
    assert read.headers["Stream-Next-Offset"] == tail
    assert read.headers["Stream-Up-To-Date"] == "true"
    closed = httpx.post(server.url(path), headers={"Stream-Closed": "true"})
    assert closed.headers["Stream-Closed"] == "true"
    refused = httpx.post(server.url(path), content=b"late", headers={"Content-Type": "text/plain"})
    assert refused.status_code == 409


def test_json_messages_come_back_as_they_went_in(server: WsgiServer) -> None:
    path = server.create(b'[{"n":12345678901234567890}]', kind="application/json")
    server.append(path, b'[1.0,"x"]', kind="application/json")
    assert httpx.get(server.url(path)).content == b'[{"n":12345678901234567890},1.0,"x"]'


def test_producers_are_exactly_once(server: WsgiServer) -> None:
    path = server.create()
    headers = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0", "Content-Type": "text/plain"}
    statuses = [httpx.post(server.url(path), content=b"once", headers=headers).status_code for _ in range(2)]
    assert statuses == [200, 204]
    assert httpx.get(server.url(path)).content == b"once"


def test_a_read_can_be_revalidated(server: WsgiServer) -> None:
    url = server.url(server.create(b"data"))
    first = httpx.get(url)
    again = httpx.get(url, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Stream-Next-Offset"] == first.headers["Stream-Next-Offset"]


def test_head_delete_and_options_answer(server: WsgiServer) -> None:
    url = server.url(server.create(b"data"))
    head = httpx.head(url)
    assert (head.status_code, head.headers["Content-Type"]) == (200, "text/plain")
    options = httpx.options(url, headers={"Origin": "http://elsewhere.example"})
    assert options.status_code == 204
    assert "PUT" in options.headers["Access-Control-Allow-Methods"]
    assert httpx.delete(url).status_code == 204
    assert httpx.get(url).status_code == 404


def test_a_location_is_absolute_and_percent_encoded(server: WsgiServer) -> None:
    made = httpx.put(server.url("gr%C3%BC%C3%9Fe%20100%25"), content=b"x", headers={"Content-Type": "text/plain"})
    assert made.headers["Location"] == server.url("gr%C3%BC%C3%9Fe%20100%25")
    assert httpx.get(made.headers["Location"]).content == b"x"


def test_a_long_poll_is_woken_by_another_thread(server: WsgiServer) -> None:
    path = server.create()
    began = time.monotonic()
    with live(server.port, path, "long-poll") as first, live(server.port, path, "long-poll") as second:
        server.append(path, b"news")
        assert [first.response.read(), second.response.read()] == [b"news", b"news"]
    assert time.monotonic() - began < LONG_POLL_SECONDS / 2


def test_a_long_poll_without_news_ends_after_its_timeout(server: WsgiServer) -> None:
    path = server.create()
    began = time.monotonic()
    with live(server.port, path, "long-poll") as waiter:
        assert waiter.response.status == 204
        assert waiter.response.headers["Stream-Up-To-Date"] == "true"
    assert LONG_POLL_SECONDS <= time.monotonic() - began < LONG_POLL_SECONDS + 1


def test_a_body_over_the_limit_is_refused(server: WsgiServer) -> None:
    path = server.create(kind="application/octet-stream")
    headers = {"Content-Type": "application/octet-stream"}
    response = httpx.post(server.url(path), content=bytes(17 * 1024 * 1024), headers=headers, timeout=30)
    assert response.status_code == 413


def test_sse_is_refused_with_the_reason(server: WsgiServer) -> None:
    response = httpx.get(server.url(server.create()), params={"live": "sse", "offset": "-1"})
    assert response.status_code == 501
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "WSGI" in response.json()["detail"]
    assert "long-poll" in response.json()["detail"]

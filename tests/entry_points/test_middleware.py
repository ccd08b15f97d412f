"""The URLs behind all of Django's middleware, with ATOMIC_REQUESTS."""

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.entry_points.exchange import Event, Exchange
from tests.entry_points.probed import ProbedServer

TEXT = "text/plain"
LONG = b"compressible " * 1000


@pytest.fixture(scope="module")
def server() -> Iterator[ProbedServer]:
    env = {"DJANGO_SETTINGS_MODULE": "tests.entry_points.middleware_settings"}
    with ProbedServer(entry_point="urls", env=env, long_poll_timeout=0.5) as server:
        yield server


def test_the_middleware_is_there(server: ProbedServer) -> None:
    response = httpx.get(f"{server.base_url}/admin/login/", headers={"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert "Content-Language" in response.headers


def test_events_arrive_one_by_one_and_uncompressed(server: ProbedServer) -> None:
    path = server.create(LONG)
    headers = {"Accept-Encoding": "gzip, deflate, br"}
    with Exchange(server.port, "GET", f"/v1/stream/{path}?live=sse&offset=-1", headers) as reader:
        assert reader.response.headers["Content-Type"] == "text/event-stream"
        assert reader.response.headers.get("Content-Encoding", "identity") == "identity"
        assert reader.response.headers["Cache-Control"] == "no-cache"
        events = reader.events()
        assert [next(events).data, next(events).kind] == [LONG.decode(), "control"]
        for number in range(5):
            server.append(path, b"%d" % number)
            assert next(events) == Event("data", str(number))
            assert next(events).kind == "control"
        server.append(path, b"last", Stream_Closed="true")
        assert next(events) == Event("data", "last")
        assert json.loads(next(events).data)["streamClosed"] is True
        assert list(events) == []


def test_a_304_keeps_its_headers(server: ProbedServer) -> None:
    url = server.url(server.create(b"short"))
    first = httpx.get(url)
    again = httpx.get(url, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("ETag", "Stream-Next-Offset", "Stream-Up-To-Date", "Cache-Control"):
        assert again.headers[name] == first.headers[name]


def test_a_compressed_read_keeps_its_headers_and_can_be_revalidated(server: ProbedServer) -> None:
    url = server.url(server.create(LONG))
    first = httpx.get(url, headers={"Accept-Encoding": "gzip"})
    assert first.headers["Content-Encoding"] == "gzip"
    assert first.content == LONG
    assert first.headers["Stream-Next-Offset"].endswith(f"_{len(LONG):016d}")
    again = httpx.get(url, headers={"If-None-Match": first.headers["ETag"], "Accept-Encoding": "gzip"})
    assert again.status_code == 304
    assert again.headers["Stream-Next-Offset"] == first.headers["Stream-Next-Offset"]


def test_no_read_comes_from_djangos_cache(server: ProbedServer) -> None:
    path = server.create()
    for number in range(3):
        assert httpx.get(server.url(path)).content == b"x" * number
        assert httpx.head(server.url(path)).headers["Stream-Next-Offset"].endswith(f"_{number:016d}")
        server.append(path, b"x")


def test_a_post_of_ten_megabytes_does_not_meet_djangos_own_limit(server: ProbedServer) -> None:
    path = server.create(kind="application/octet-stream")
    assert server.append(path, bytes(10_000_000), kind="application/octet-stream").endswith("_0000000010000000")


def test_forms_and_cookies_mean_nothing_to_an_append(server: ProbedServer) -> None:
    kind = "application/x-www-form-urlencoded"
    path = server.create(kind=kind)
    server.append(path, b"a=1&b=2", kind=kind, Cookie="csrftoken=x; sessionid=y")
    assert httpx.get(server.url(path)).content == b"a=1&b=2"


def test_a_long_poll_waits_and_is_woken(server: ProbedServer) -> None:
    path = server.create()
    with Exchange(server.port, "GET", f"/v1/stream/{path}?live=long-poll&offset=-1") as waiter:
        assert waiter.response.status == 204
        assert waiter.response.headers["Stream-Up-To-Date"] == "true"
    with Exchange(server.port, "GET", f"/v1/stream/{path}?live=long-poll&offset=-1") as waiter:
        server.append(path, b"news")
        assert waiter.response.read() == b"news"
        assert "Stream-Cursor" in waiter.response.headers


def test_errors_are_the_protocols_own(server: ProbedServer) -> None:
    response = httpx.get(server.url("nowhere"), headers={"Referer": f"{server.base_url}/", "Accept-Language": "de"})
    assert (response.status_code, response.headers["Content-Type"]) == (404, "application/problem+json")
    assert response.headers["X-Content-Type-Options"] == "nosniff"

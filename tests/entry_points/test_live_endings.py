"""How live responses end: with the stream's close, its deletion, or its expiry."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.entry_points.exchange import Event, live
from tests.entry_points.probed import ProbedServer, wait_until

SOON = 1.0


@pytest.fixture(scope="module", params=["asgi", "urls"])
def timed(request: pytest.FixtureRequest) -> Iterator[ProbedServer]:
    """One server for each entry point: time passes in the same way under all programs."""
    with ProbedServer(entry_point=request.param) as server:
        yield server


def test_the_final_append_of_a_close_reaches_live_readers_before_the_end(served: ProbedServer) -> None:
    path = served.create()
    with live(served.port, path, "sse") as reader, live(served.port, path, "long-poll") as waiter:
        events = reader.events()
        assert next(events).kind == "control"
        tail = served.append(path, b"the end", Stream_Closed="true")
        assert next(events) == Event("data", "the end")
        assert json.loads(next(events).data) == {"streamNextOffset": tail, "streamClosed": True, "upToDate": True}
        assert list(events) == []
        assert waiter.response.read() == b"the end"
        assert waiter.response.headers["Stream-Closed"] == "true"


def test_a_close_without_data_ends_live_readers(served: ProbedServer) -> None:
    path = served.create(b"all")
    with live(served.port, path, "sse", "now") as reader, live(served.port, path, "long-poll", "now") as waiter:
        events = reader.events()
        assert next(events).kind == "control"
        httpx.post(served.url(path), headers={"Stream-Closed": "true"})
        assert json.loads(next(events).data)["streamClosed"] is True
        assert list(events) == []
        assert waiter.response.status == 204
        assert waiter.response.headers["Stream-Closed"] == "true"


def test_deleting_a_stream_ends_its_live_readers_soon(served: ProbedServer) -> None:
    path = served.create()
    before = served.probe().listeners
    with live(served.port, path, "sse") as reader, live(served.port, path, "long-poll") as waiter:
        events = reader.events()
        assert next(events).kind == "control"
        wait_until(lambda: served.probe().listeners == before + 2, 5, "both listen")
        began = time.monotonic()
        assert httpx.delete(served.url(path)).status_code == 204
        assert list(events) == []
        assert waiter.response.status == 404
        assert time.monotonic() - began < SOON


def test_a_stream_made_anew_under_its_path_is_not_mixed_up_with_the_deleted_one(served: ProbedServer) -> None:
    path = served.create(b"old")
    with live(served.port, path, "sse") as reader:
        events = reader.events()
        assert [next(events).data, next(events).kind] == ["old", "control"]
        httpx.delete(served.url(path))
        httpx.put(served.url(path), content=b"new", headers={"Content-Type": "text/plain"})
        assert list(events) == []
    assert httpx.get(served.url(path)).text == "new"


def test_a_stream_with_a_live_reader_outlives_its_ttl(timed: ProbedServer) -> None:
    path = timed.create(Stream_TTL="1")
    began = time.monotonic()
    with live(timed.port, path, "sse") as reader:
        events = reader.events()
        assert next(events).kind == "control"
        wait_until(lambda: time.monotonic() - began > 3, 4, "three times its TTL has passed")
        timed.append(path, b"still here")
        assert next(events) == Event("data", "still here")
    wait_until(lambda: httpx.head(timed.url(path)).status_code == 404, 4, "it has expired without its reader")


def test_an_absolute_expiry_ends_live_readers(timed: ProbedServer) -> None:
    end = datetime.now(UTC) + timedelta(seconds=1.5)
    path = timed.create(Stream_Expires_At=end.isoformat())
    with live(timed.port, path, "sse") as reader, live(timed.port, path, "long-poll") as waiter:
        events = reader.events()
        assert next(events).kind == "control"
        assert list(events) == []
        assert waiter.response.status == 404
        late = (datetime.now(UTC) - end).total_seconds()
        assert 0 <= late < 2.5
    assert httpx.get(timed.url(path)).status_code == 404

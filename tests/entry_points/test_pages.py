"""Event sources on real servers, behind all of Django's middleware and with ATOMIC_REQUESTS."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.entry_points.exchange import Exchange
from tests.entry_points.probed import ProbedServer, wait_until
from tests.entry_points.test_shutdown import CUTS_OFF, SECONDS, end
from tests.event_stream import Event, events_of
from tests.servers import Kind

JSON = "application/json"
KINDS: tuple[Kind, ...] = ("uvicorn", "daphne", "granian")


def new_server(kind: Kind) -> ProbedServer:
    env = {"DJANGO_SETTINGS_MODULE": "tests.entry_points.pages_settings"}
    return ProbedServer(kind, env=env, patient=True)


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[ProbedServer]:
    with new_server(request.param) as server:
        yield server


class Page(Exchange):
    """A browser's `EventSource` without its reconnection."""

    def __init__(self, server: ProbedServer, url: str, last_id: str = "") -> None:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip, br"}
        super().__init__(server.port, "GET", url, {**headers, **({"Last-Event-ID": last_id} if last_id else {})})
        self.raw = b""

    def take(self, count: int) -> list[Event]:
        """Wait for a number of events from the beginning."""
        while len(events := events_of(self.raw).events) < count:
            piece = self.response.read1(65536)
            assert piece, f"the response has ended: {self.raw!r}"
            self.raw += piece
        return events

    def rest(self) -> list[Event]:
        """Wait for the proper end of the response."""
        while piece := self.response.read1(65536):
            self.raw += piece
        return events_of(self.raw).events


@pytest.mark.parametrize("view", ["events", "view"])
def test_events_arrive_one_by_one_and_go_on_after_a_cut(server: ProbedServer, view: str) -> None:
    path = server.create(b'["a","b"]', kind=JSON)
    with Page(server, f"/{view}/{path}") as page:
        assert page.response.headers["Content-Type"] == "text/event-stream"
        assert page.response.headers["Cache-Control"] == "no-store"
        assert page.response.headers.get("Content-Encoding", "identity") == "identity"
        first = page.take(2)
        assert [event.data for event in first] == ["<li>a\n</li>", "<li>b\n</li>"]
        for number in range(3):
            server.append(path, b"%d" % number, kind=JSON)
            assert page.take(3 + number)[-1].data == f"<li>{number}\n</li>"
    with Page(server, f"/{view}/{path}", first[0].last_id) as page:
        assert [event.data for event in page.take(4)] == [f"<li>{one}\n</li>" for one in "b012"]
        server.append(path, b'"end"', kind=JSON, Stream_Closed="true")
        assert [event.kind for event in page.rest()] == ["message"] * 5 + ["end"]
    reply = httpx.get(f"{server.base_url}/{view}/{path}", headers={"Last-Event-ID": "end"})
    assert (reply.status_code, reply.content) == (204, b"")


def test_a_page_that_is_left_ends_its_reader(server: ProbedServer) -> None:
    path = server.create(b"1", kind=JSON)
    before = server.probe()
    with Page(server, f"/events/{path}") as page, Page(server, f"/events/{path}") as other:
        page.take(1)
        other.take(1)
        assert server.probe().listeners == before.listeners + 2
        page.reset()
    wait_until(lambda: server.probe().listeners == before.listeners, 2, "the readers are gone")
    wait_until(lambda: server.probe().places == before.places, 2, "their places are free")


def test_a_waiting_page_holds_no_thread_and_no_connection(server: ProbedServer) -> None:
    path = server.create(b"1", kind=JSON)
    with Page(server, f"/view/{path}") as first:
        first.take(1)
        before = server.probe()
        with ExitStack() as stack:
            for _ in range(10):  # one after the other: SQLite keeps the files of connections at the same time
                stack.enter_context(Page(server, f"/view/{path}")).take(1)
            after = server.probe()
        assert after.listeners == before.listeners + 10
        assert after.threads <= before.threads + 2
        assert after.databases <= before.databases + 2


def test_a_page_that_takes_nothing_is_cut_off(server: ProbedServer) -> None:
    if server.kind == "daphne":
        pytest.skip("Daphne buffers what a client does not take")
    path = server.create(kind="application/octet-stream")
    for _ in range(12):
        server.append(path, bytes(1_000_000), kind="application/octet-stream")
    before = server.probe()
    with Exchange(server.port, "GET", f"/bytes/{path}", receive_buffer=4096) as reader:
        assert reader.response.status == 200
        wait_until(lambda: server.probe().places == before.places, 10, "it is cut off")
        assert server.probe().transfers == before.transfers


def test_refusals_are_the_same_on_all_servers(server: ProbedServer) -> None:
    assert httpx.get(f"{server.base_url}/events/nowhere").status_code == 404
    reply = httpx.get(f"{server.base_url}/events/nowhere?refusals=event")
    assert (reply.status_code, [event.kind for event in events_of(reply.content).events]) == (200, ["end"])
    path = server.create(b"1", kind=JSON)
    assert httpx.get(f"{server.base_url}/events/{path}", headers={"Last-Event-ID": "x"}).status_code == 400
    head = httpx.head(f"{server.base_url}/events/{path}")
    assert (head.status_code, head.headers["Content-Type"]) == (200, "text/event-stream")


@pytest.mark.parametrize("kind", KINDS)
def test_sigterm_ends_pages_with_the_server(kind: Kind) -> None:
    with new_server(kind) as server:
        path = server.create(b"1", kind=JSON)
        with Page(server, f"/events/{path}") as page, Page(server, f"/view/{path}") as other:
            page.take(1)
            other.take(1)
            assert end(server, signal.SIGTERM) < SECONDS, server.log_tail()
            if kind not in CUTS_OFF:
                assert [event.kind for event in page.rest()] == ["message"]
                assert [event.kind for event in other.rest()] == ["message"]

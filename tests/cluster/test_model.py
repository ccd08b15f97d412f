"""Random requests to real servers, each to any of them, answered as a plain model says."""

import contextlib
import http.client
import itertools
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.model import JSON, START, TEXT, Model, Stream, content
from tests.event_stream import parse
from tests.servers import HOST
from tests.services import PostgreSQL, Redis, shared

PATHS = ("a", "b", "c/d", "a/ä b")
CLEAN_UP_SECONDS = 5.0
SETTINGS = settings(
    max_examples=scaled(15, 300),
    stateful_step_count=scaled(25, 60),
    deadline=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)

paths = st.sampled_from(PATHS)
bodies = {
    TEXT: st.sampled_from([b"", b"x", "läng\r\ner\n".encode(), b" data: \n\n", b"y" * 5000]),
    JSON: st.sampled_from([b"", b"1", b'"a"', b"[1, [2], {}]", b'{"a": "\\n"}', b"[[]]"]),
}
claims = st.none() | st.tuples(st.sampled_from("pq"), st.integers(0, 1), st.integers(0, 2))
servers = st.integers(0, 1)
picks = st.integers(0, 9)


class Machine(RuleBasedStateMachine):
    """Requests and the model's idea of them. `cluster` is set for a test."""

    cluster: Cluster
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.prefix = f"/v1/stream/m{next(self.numbers)}"
        self.connections = [
            http.client.HTTPConnection(HOST, server.port, timeout=10) for server in self.cluster.servers
        ]

    def teardown(self) -> None:
        for connection in self.connections:
            connection.close()

    @rule(
        server=servers, path=paths, kind=st.sampled_from([TEXT, JSON]), pick=picks, closed=st.booleans(), data=st.data()
    )
    def create(self, server: int, path: str, kind: str, pick: int, closed: bool, data: st.DataObject) -> None:
        body = data.draw(bodies[kind])
        headers = {"content-type": kind, **({"stream-closed": "true"} if closed and pick > 6 else {})}
        status = self.model.create(path, kind, body, "stream-closed" in headers)
        answer = self.request(server, "PUT", path, headers, body)
        assert answer.status == status
        if status in (200, 201):
            self.model.streams[path].handed_out(answer.headers["stream-next-offset"])

    @rule(server=servers, path=paths, claim=claims, close=picks, data=st.data())
    def append(
        self, server: int, path: str, claim: tuple[str, int, int] | None, close: int, data: st.DataObject
    ) -> None:
        result = self.model.streams.get(path)
        kind = result.content_type if result is not None else TEXT
        body = data.draw(bodies[kind])
        closing = close > 8 or not body
        headers = {"content-type": kind, **({"stream-closed": "true"} if closing else {})}
        if claim is not None:
            headers |= dict(zip(("producer-id", "producer-epoch", "producer-seq"), map(str, claim), strict=True))
        status = self.model.status(path)
        answer = self.request(server, "POST", path, headers, body)
        if status == 200:
            assert result is not None
            assert answer.status == result.append(body, closing, claim)
            if answer.status in (200, 204):
                result.handed_out(answer.headers["stream-next-offset"])
                assert answer.headers.get("stream-closed") == ("true" if result.closed else None)
        else:
            assert answer.status == status

    @rule(server=servers, path=paths)
    def delete(self, server: int, path: str) -> None:
        before = dict(self.model.streams)
        assert self.request(server, "DELETE", path).status == self.model.delete(path)
        # The last fork's end is also that of the sources that were kept for it; that takes a moment.
        for freed in before.keys() - self.model.streams.keys():
            deadline = time.monotonic() + CLEAN_UP_SECONDS
            while self.request(server, "HEAD", freed).status != 404:
                assert time.monotonic() < deadline, f"{freed} is not cleaned up"
                time.sleep(0.02)

    @rule(server=servers, source=paths, path=paths, pick=picks)
    def fork(self, server: int, source: str, path: str, pick: int) -> None:
        if path in self.model.streams:
            return
        origin = self.model.streams.get(source)
        offset = pick_offset(origin, pick) if origin is not None and pick > 2 else None
        offset = None if offset == START else offset
        headers = {"stream-forked-from": f"{self.prefix}/{quote(source)}"}
        headers |= {"stream-fork-offset": offset} if offset is not None else {}
        answer = self.request(server, "PUT", path, headers)
        assert answer.status == self.model.fork(path, source, offset)
        if answer.status == 201:
            self.model.streams[path].handed_out(answer.headers["stream-next-offset"])

    @precondition(lambda self: self.model.streams)
    @rule(server=servers, path=paths, pick=picks, live=st.sampled_from(["", "&live=long-poll"]))
    def read(self, server: int, path: str, pick: int, live: str) -> None:
        result = self.model.streams.get(path)
        offset = pick_offset(result, pick) if result is not None else START
        answer = self.request(server, "GET", path, query=f"?offset={offset}{live}")
        if result is None or result.gone:
            assert answer.status == self.model.status(path)
            return
        self.check_page(result, offset, answer, live=bool(live))

    @precondition(lambda self: self.model.streams)
    @rule(server=servers, path=paths)
    def look(self, server: int, path: str) -> None:
        answer = self.request(server, "HEAD", path)
        assert answer.status == self.model.status(path)
        if answer.status == 200:
            result = self.model.streams[path]
            result.handed_out(answer.headers["stream-next-offset"])
            assert answer.headers["content-type"] == result.content_type
            assert answer.headers.get("stream-closed") == ("true" if result.closed else None)

    @precondition(lambda self: self.model.streams)
    @rule(server=servers, path=paths, data=st.data())
    def wait(self, server: int, path: str, data: st.DataObject) -> None:
        """A long-poll at the tail gets what is appended through another server meanwhile."""
        result = self.model.streams.get(path)
        if result is None or result.gone or result.closed:
            return
        tail = self.request(server, "HEAD", path).headers["stream-next-offset"]
        result.handed_out(tail)
        body = data.draw(bodies[result.content_type].filter(bool))
        waiting = http.client.HTTPConnection(HOST, self.cluster.servers[server].port, timeout=10)
        with contextlib.closing(waiting):
            waiting.request("GET", f"{self.prefix}/{quote(path)}?offset={tail}&live=long-poll")
            answer = self.request(1 - server, "POST", path, {"content-type": result.content_type}, body)
            assert answer.status == result.append(body, False, None) == 204
            result.handed_out(answer.headers["stream-next-offset"])
            page = Answer(waiting.getresponse())
        if page.status == 204:  # the time was up before the other server's news came
            page = self.request(server, "GET", path, query=f"?offset={tail}&live=long-poll")
        self.check_page(result, tail, page, live=True)

    @precondition(lambda self: self.model.streams)
    @rule(server=servers, path=paths, pick=picks)
    def events(self, server: int, path: str, pick: int) -> None:
        result = self.model.streams.get(path)
        if result is None or result.gone:
            return
        offset = pick_offset(result, pick)
        connection = http.client.HTTPConnection(HOST, self.cluster.servers[server].port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", f"{self.prefix}/{quote(path)}?offset={offset}&live=sse")
            response = connection.getresponse()
            assert response.status == 200
            raw = b""
            while not parse(raw).controls or not parse(raw).controls[-1].get("upToDate"):
                raw += response.readline()
        parsed = parse(raw)
        parts = [content(result.content_type, data.encode()) for data in parsed.data]
        if result.content_type == JSON:
            assert [message for part in parts for message in part] == result.past(offset)
        else:  # line breaks of all kinds are one kind in an event stream
            assert "".join(parts) == result.past(offset).replace("\r\n", "\n")
        result.handed_out(parsed.controls[-1]["streamNextOffset"])

    def check_page(self, result: Stream, offset: str, answer: "Answer", *, live: bool) -> None:
        expected = result.past(offset)
        at_tail = result.behind(offset) == len(result.appends)
        assert answer.status == (204 if at_tail and live else 200)
        if answer.status == 200:
            assert content(result.content_type, answer.body) == expected
        result.handed_out(answer.headers["stream-next-offset"])
        assert answer.headers["stream-up-to-date"] == "true"
        assert answer.headers.get("stream-closed") == ("true" if result.closed else None)

    def request(
        self,
        server: int,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        query: str = "",
    ) -> "Answer":
        connection = self.connections[server]
        connection.request(method, f"{self.prefix}/{quote(path)}{query}", body or None, headers or {})
        return Answer(connection.getresponse())


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.body = response.read()
        self.headers = {name.lower(): value for name, value in response.getheaders()}


def pick_offset(result: Stream, pick: int) -> str:
    existing = [START, *result.offsets]
    return existing[pick % len(existing)]


@pytest.fixture(params=["sqlite", "postgresql"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    services: tuple[Any, ...] = (shared(PostgreSQL), shared(Redis)) if request.param == "postgresql" else ()
    with Cluster(2, *services, long_poll_timeout=0.1) as made:
        yield made


def test_servers_answer_as_the_model(cluster: Cluster) -> None:
    machine = type("Requests", (Machine,), {"cluster": cluster})
    run_state_machine_as_test(machine, settings=SETTINGS)

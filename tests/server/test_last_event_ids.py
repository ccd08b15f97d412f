"""`Last-Event-ID` with hostile values: one answer at every entry point, and none but event streams look at it."""

import pytest

from django_durable_streams.models import Stream
from django_durable_streams.protocol import offsets
from tests.asgi_client import Reply
from tests.server.entry_points import ENTRY_POINTS, EntryPoint

STREAMING = [name for name in ENTRY_POINTS if name != "wsgi"]


class Streams:
    """A closed stream, another one, and an offset of an earlier stream at the path of the first."""

    def __init__(self, closed: Stream, other: Stream, earlier: str) -> None:
        self._values = {
            "start": offsets.encode(0, 0),
            "inside": closed.offset_at(1),
            "end": closed.next_offset,
            "past the end": offsets.encode(closed.generation, 4),
            "far": offsets.encode(closed.generation, 10**15),
            "of another stream": other.next_offset,
            "of an earlier stream": earlier,
        }

    def named(self, name: str) -> bytes:
        return self._values.get(name, name).encode("latin-1")


@pytest.fixture
def streams(engines: None, transactional_db: None) -> Streams:
    gone = Stream.objects.create(path="a", content_type="text/plain", data="abc")
    earlier = gone.next_offset
    gone.delete()
    closed = Stream.objects.create(path="a", content_type="text/plain", data="abc", closed=True)
    other = Stream.objects.create(path="b", content_type="text/plain", data="abc")
    return Streams(closed, other, earlier)


# The status of an event stream of the closed stream.
VALUES = {
    "": 200,
    " \t": 200,
    "-1": 200,
    "start": 200,
    "inside": 200,
    "end": 204,
    "past the end": 204,
    "now": 204,
    "far": 410,
    "of another stream": 410,
    "of an earlier stream": 410,
    "0": 400,
    "undefined": 400,
    "-2": 400,
    "9" * 33: 400,
    "9" * 20_000: 400,
    "9999999999999999_9999999999999999": 410,
    "\xff\xfe": 400,
    "caf\xc3\xa9": 400,
    "%2D1": 400,
    "0000000000000000_0000000000000000 x": 400,
    "0000000000000000_0000000000000000;": 400,
    "1" + "0" * 15 + "_" + "\xb2" * 16: 400,
}


def seen(reply: Reply) -> object:
    names = ("content-type", "stream-next-offset", "stream-closed", "cache-control", "etag")
    return reply.status, [reply.headers.get(name) for name in names], reply.status == 200 or reply.body


@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:40])
@pytest.mark.parametrize("query", ["offset=-1", "offset=now", "offset=0000000000000000_0000000000000000"])
async def test_one_answer_at_every_entry_point(streams: Streams, value: str, query: str) -> None:
    lines = [(b"last-event-id", streams.named(value))]
    answers = [seen(await EntryPoint(name).request("GET", f"a?{query}&live=sse", lines)) for name in STREAMING]
    assert answers == [answers[0]] * len(STREAMING)
    expected = VALUES[value]
    if query == "offset=now" and not value.strip():
        expected = 200  # a first request, as an empty id is none
    assert isinstance(answers[0], tuple)
    assert answers[0][0] == expected


@pytest.mark.parametrize("twice", [("start", "start"), ("start", "end"), ("end", ""), ("", "end"), ("now", "-1")])
async def test_two_ids_are_one_or_none(streams: Streams, twice: tuple[str, str]) -> None:
    lines = [(b"last-event-id", streams.named(value)) for value in twice]
    statuses = {(await EntryPoint(name).request("GET", "a?offset=-1&live=sse", lines)).status for name in STREAMING}
    assert statuses == {200 if twice[0] == twice[1] else 400}


@pytest.mark.parametrize(
    "value", ["end", "now", "undefined", "9" * 20_000, "\xff"], ids=lambda value: ascii(value)[:20]
)
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "a"),
        ("GET", "a?offset=-1"),
        ("GET", "a?offset=-1&live=long-poll"),
        ("HEAD", "a"),
        ("HEAD", "a?live=sse"),
    ],
)
async def test_no_other_read_looks_at_it(streams: Streams, value: str, method: str, target: str) -> None:
    lines = [(b"last-event-id", streams.named(value))]
    for name in ENTRY_POINTS:
        with_id = await EntryPoint(name).request(method, target, lines)
        without = await EntryPoint(name).request(method, target)
        assert seen(with_id) == seen(without), name
        assert with_id.status == 200


@pytest.mark.parametrize("tag", ["*", "the tag of the data"])
@pytest.mark.parametrize("value", ["start", "end"])
async def test_no_condition_turns_an_event_stream_into_an_answer_of_the_cache(
    streams: Streams, value: str, tag: str
) -> None:
    point = EntryPoint("asgi")
    if tag != "*":
        tag = (await point.request("GET", "a?offset=-1")).headers["etag"]
    lines = [(b"last-event-id", streams.named(value)), (b"if-none-match", tag.encode())]
    for name in STREAMING:
        status = (await EntryPoint(name).request("GET", "a?offset=-1&live=sse", lines)).status
        assert status == (200 if value == "start" else 204)

"""A client that is cut off anywhere goes on at the next message: none is lost, and none comes twice."""

import json

from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.models import Stream
from django_durable_streams.protocol import offsets
from django_durable_streams.protocol.offsets import Offset
from django_durable_streams.protocol.segments import Segment
from django_durable_streams.server.pages import rendering
from django_durable_streams.server.pages.options import EventSourceSettings
from django_durable_streams.store.stream_info import StreamInfo
from tests.event_stream import events_of, parse
from tests.server.pages.conftest import PageClient
from tests.tokens import FIRST

JSON, TEXT, BYTES = "application/json", "text/plain", "application/octet-stream"

texts = st.text(st.sampled_from("a€𝄞\n\r ü"), min_size=1, max_size=4)


def render(content_type: str, appends: list[bytes], position: int) -> bytes:
    """Return the events from a position to the end of a closed stream, rendered in portions."""
    ends, data = [], b""
    for append in appends:
        data += append
        ends.append(len(data))
    segment = Segment(0, data, ends)
    info = StreamInfo(1, "a", content_type, FIRST, len(data), True)
    renderer = rendering.Renderer(EventSourceSettings())
    raw = b""
    while position < len(data):
        portion = renderer.render(rendering.Work(info, segment, position, True, "default"))
        raw += b"".join(event.data for _, event in portion.events)
        position = portion.events[-1][1].end if portion.events else portion.end
    return raw


def assert_resumes(content_type: str, appends: list[bytes], cut: float) -> list[str]:
    """Cut the events anywhere, go on with the last id, and return all data."""
    raw = render(content_type, appends, 0)
    whole = [event.data for event in parse(raw).events]
    events = parse(raw[: int(len(raw) * cut)]).events
    position = 0
    if events:
        offset = offsets.decode(events[-1].last_id)
        assert isinstance(offset, Offset)
        assert offset.generation == FIRST
        position = offset.position
    rest = parse(render(content_type, appends, position)).events
    assert [event.data for event in [*events, *rest]] == whole
    return whole


@given(st.lists(st.lists(st.integers() | texts, min_size=1, max_size=5), min_size=1, max_size=5), st.floats(0, 1))
def test_json(appends: list[list[int | str]], cut: float) -> None:
    stored = [b"".join(json.dumps(one).encode() + b"\n" for one in append) for append in appends]
    data = assert_resumes(JSON, stored, cut)
    assert [json.loads(one) for one in data] == [one for append in appends for one in append]


@given(st.lists(texts, min_size=1, max_size=5), st.lists(st.integers(1, 5), max_size=10), st.floats(0, 1))
def test_texts_in_pieces(parts: list[str], cuts: list[int], cut: float) -> None:
    whole = "".join(parts)
    rest, appends = whole.encode(), []
    for size in cuts:  # they may cut characters
        appends.append(rest[:size])
        rest = rest[size:]
    appends = [append for append in [*appends, rest] if append]
    data = assert_resumes(TEXT, appends, cut)
    assert "".join(data).count("€") == whole.count("€")
    assert "\ufffd" not in "".join(data)


@given(st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=5), st.floats(0, 1))
def test_bytes(appends: list[bytes], cut: float) -> None:
    assert len(assert_resumes(BYTES, appends, cut)) == len(appends)


async def test_a_fork_has_the_ids_of_its_source_up_to_the_cut(pages: PageClient) -> None:
    await pages.create("a", b"[1,2,3,4]", JSON)
    headers = {"stream-forked-from": "/v1/stream/a", "stream-fork-offset": "-1", "content-type": JSON}
    source = await Stream.objects.aget(path="a")
    headers["stream-fork-offset"] = source.offset_at(0)
    headers["stream-fork-sub-offset"] = "3"
    assert (await pages.request("PUT", "b", headers)).status == 201
    await pages.append("b", b"[5,6]", JSON, stream_closed="true")
    await pages.append("a", b"[7]", JSON, stream_closed="true")
    events = events_of((await pages.page("plain/b")).body).events[:-1]
    assert [event.data for event in events] == ["1", "2", "3", "5", "6"]
    for number, event in enumerate(events, 1):
        assert await pages.data("plain/b", event.last_id) == [other.data for other in events[number:]]
    assert await pages.data("plain/a", events[1].last_id) == ["3", "4", "7"]
    assert (await pages.page("plain/a", events[4].last_id)).status == 410


async def test_a_reader_who_begins_inside_a_character_gets_all_of_it(pages: PageClient) -> None:
    await pages.create("a", "€".encode()[:1])
    offset = (await pages.request("HEAD", "a")).offset
    await pages.append("a", "€!".encode()[1:], stream_closed="true")
    assert await pages.data(f"plain/a?offset={offset}") == ["€!"]

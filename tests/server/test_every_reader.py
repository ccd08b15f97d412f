"""Whatever HTTP accepts, every reader can read, and all read the same: HTTP, sockets, Python, the admin."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Callable
from functools import reduce
from itertools import count
from operator import add
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from django_durable_streams.admin.rendering import PAGE_LIMIT, display
from django_durable_streams.models import Stream
from django_durable_streams.protocol import content, sse, text
from django_durable_streams.protocol.values import decode
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.store.read import browsing, log_reader
from tests.asgi_client import AsgiClient
from tests.event_stream import Parsed, parse
from tests.overriding import override_streams
from tests.websocket.socket import Frame, Socket

JSON = "application/json"
START = "0000000000000000_0000000000000000"

SMALL = override_streams(PAGE_BYTES=7, LONG_POLL_TIMEOUT=5.0)
"""Many pages."""

_numbers = count()

kinds = st.sampled_from(
    [
        "text/plain",
        "TEXT/HTML; charset=iso-8859-1",
        "text/plain;charset=utf-16",
        "text/event-stream",
        "application/octet-stream",
        "application/xml",
        "image/svg+xml",
        "application/x-ndjson",
    ]
)
parts = [bytes([byte]) for byte in b"a \r\n\0:\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xff\xed\xa0"]
some = st.lists(st.sampled_from(parts), min_size=1, max_size=6).map(b"".join) | st.binary(min_size=1, max_size=9)
bodies = st.lists(some, max_size=6)

numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
strings = st.text(st.characters(exclude_categories=()), max_size=6).map(json.dumps) | st.just(r'"\ud83d"')
scalars = numbers | strings | st.sampled_from(["null", "true", " false", "[ ]", "{}\r\n"])
deep = st.sampled_from(["[" * 400 + "]" * 400, '{"a":' * 400 + "1" + "}" * 400, "7" * 5000, "-" + "1" * 4301, "1e999"])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + " ,\n".join(items) + "]")
        | st.lists(st.tuples(strings, inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{key} :{value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=8,
)
json_bodies = st.lists(
    (values | deep | st.lists(values, min_size=1, max_size=3).map(lambda items: "[" + ",".join(items) + "]")).map(
        str.encode
    ),
    max_size=4,
)


class Readers:
    """All ways of reading one stream, each as what it understands the whole to be."""

    def __init__(self, client: AsgiClient, path: str, kind: str, *, is_closed: bool) -> None:
        self.client, self.path, self.kind, self.is_closed = client, path, kind, is_closed
        self.is_json, self.is_text = content.is_json(kind), content.holds_text(kind)

    async def by_get(self, offset: str = "-1", live: str = "") -> list[bytes]:
        """The bodies of pages that have any, up to the end."""
        bodies_read = []
        while True:
            reply = await self.client.get(f"{self.path}?offset={offset}{live}")
            assert reply.status in (200, 204), reply.body
            if reply.body not in (b"", b"[]"):
                bodies_read.append(reply.body)
            offset = reply.offset
            if reply.headers.get("stream-up-to-date"):
                return bodies_read

    async def by_sse(self, offset: str = "-1") -> Parsed:
        """The events, up to the end."""
        events_read = Parsed()
        async with self.client.follow(self.path, offset) as live:
            while not (events_read.controls and events_read.controls[-1].get("upToDate")):
                chunk = await live.chunk()
                assert chunk is not None
                chunk.decode()  # an event stream is UTF-8
                news = parse(chunk)
                assert len(news.controls) == 1
                events_read.events += news.events
        return events_read

    async def by_socket(self, offset: str = "-1", *, binary: bool = False) -> list[tuple[str, Any]]:
        """The data of a socket up to the end, each with the offset after it."""
        data: list[tuple[str, Any]] = []
        async with Socket() as socket:
            await socket.subscribe(self.path, offset, binary=binary)
            while (frame := await socket.next())["type"] == "data":
                data.append((frame["offset"], self._in_frame(frame, binary=binary)))
            assert frame["type"] == ("closed" if self.is_closed else "up-to-date"), frame
        return data

    def _in_frame(self, frame: Frame, *, binary: bool) -> Any:
        if self.is_json:
            array = frame["payload"] if binary else frame["text"].encode().partition(b'"data":')[2][:-1]
            return decode(JSON, array)
        if binary:
            return frame["payload"]
        return frame["data"] if content.is_text(self.kind) else b64decode(frame["base64"], validate=True)

    def whole(self, data: list[str]) -> Any:
        """What data events say together."""
        if self.is_json:
            return [value for each in data for value in decode(JSON, each.encode())]
        return "".join(data) if self.is_text else b"".join(b64decode(each, validate=True) for each in data)

    def by_python(self) -> Any:
        return self._joined(list(Stream.objects.get(path=self.path).read()))

    def by_tail(self) -> Any:
        pages = list(Stream.objects.get(path=self.path).tail(timeout=0))
        return self._joined([message for page in pages for message in page])

    def by_last_pages(self) -> Any:
        """From the end to the beginning."""
        stream = Stream.objects.get(path=self.path)
        page = stream.read_last(2)
        messages = page.messages
        while page.has_earlier and page.messages:
            page = stream.read_last(2, before=page.offset)
            messages = page.messages + messages
        return self._joined(messages)

    def by_tail_again(self) -> Any:
        """As somebody who begins anew after each page."""
        messages, offset = [], "-1"
        for _ in range(1000):
            page = next(Stream.objects.get(path=self.path).tail(offset, timeout=0), None)
            if page is None:
                break
            messages += page.messages
            offset = page.next_offset
            if page.closed:
                break
        return self._joined(messages)

    async def by_atail(self) -> Any:
        stream = await Stream.objects.aget(path=self.path)
        return self._joined([message async for page in stream.atail(timeout=0) for message in page])

    def in_the_admin(self) -> Any:
        """The messages that the pages of the admin have, from both sides."""
        stream = Stream.objects.get(path=self.path)
        info = log_reader.find_ids([stream.pk], "default")[stream.pk]
        forward: list[bytes] = []
        position = 0
        while messages := browsing.after(info, position, limit=7, count=2, using="default"):
            forward += self._shown(info, messages)
            position = messages[-1].end
        backward: list[bytes] = []
        position = info.tail
        while messages := browsing.before(info, position, limit=7, count=2, using="default"):
            backward = [*self._shown(info, messages), *backward]
            position = messages[0].start
        assert forward == backward
        if self.is_json:
            return [decode(JSON, each) for each in forward]
        data = b"".join(forward)
        return text.decode(data) if self.is_text else data

    def _shown(self, info: Any, messages: Any) -> list[bytes]:
        whole = browsing.whole(info, messages, "default")
        assert all(display(message, info, PAGE_LIMIT).text is not None for message in whole)
        return [message.data for message in whole]

    def _joined(self, messages: list[Any]) -> Any:
        if self.is_json:
            return messages
        if self.is_text:
            assert all(isinstance(message, str) and message for message in messages)
            return "".join(messages)
        return b"".join(messages)


def one_newline(whole: Any) -> Any:
    """Events have one kind of line break."""
    return whole.replace("\r\n", "\n").replace("\r", "\n") if isinstance(whole, str) else whole


async def agree(client: AsgiClient, kind: str, bodies: list[bytes], *, is_closed: bool) -> None:
    path = f"each/{next(_numbers)}"
    first, *rest = [*bodies, b""] if bodies else [b""]
    assert (await client.request("PUT", path, {"content-type": kind}, first)).status == 201
    accepted = [first]
    for body in rest:
        if body and (await client.append(path, body, kind)).status == 204:
            accepted.append(body)
    if is_closed:
        await client.close(path)
    read = Readers(client, path, kind, is_closed=is_closed)

    pages = await read.by_get()
    if read.is_json:
        expected: Any = [value for page in pages for value in decode(JSON, page)]
        event: Any = expected
    else:
        stored = b"".join(pages)
        assert stored == b"".join(accepted)
        expected = event = stored
        if read.is_text:
            expected = text.decode(text.split(stored, final=is_closed)[0])
            event = one_newline(text.decode(sse.split(stored, final=is_closed)[0]))
    if is_closed:
        assert await read.by_get(live="&live=long-poll") == pages

    events = await read.by_sse()
    assert read.whole(events.data) == event
    for control in [{"streamNextOffset": START}, *events.controls]:
        offset = control["streamNextOffset"]
        before = [each.data for each in events.events[: 1 + _index(events, offset)] if each.kind == "data"]
        again = (await read.by_sse(offset)).data
        assert read.whole([*before, *again]) == event
        if not read.is_json:
            assert b"".join(pages).endswith(b"".join(await read.by_get(offset)))

    for binary in (False, True):
        await agree_by_socket(read, b"".join(pages) if binary and not read.is_json else expected, binary=binary)

    for way in (read.by_python, read.by_tail, read.by_tail_again, read.by_last_pages, read.in_the_admin):
        assert await sync_to_async(way)() == expected, way.__name__
    assert await read.by_atail() == expected


async def agree_by_socket(read: Readers, expected: Any, *, binary: bool) -> None:
    """A socket has all of it, and so has one that begins again after each frame."""
    frames = await read.by_socket(binary=binary)
    nothing = type(expected)()
    assert reduce(add, [data for _, data in frames], nothing) == expected
    for number, (offset, _) in enumerate(frames, 1):
        frames_from_both = [*frames[:number], *await read.by_socket(offset, binary=binary)]
        assert reduce(add, [data for _, data in frames_from_both], nothing) == expected


def _index(events: Parsed, offset: str) -> int:
    for number, each in enumerate(events.events):
        if each.kind == "control" and each.fields["streamNextOffset"] == offset and offset != START:
            return number
    return -1


def property_of(check: Callable[..., None]) -> None:
    with SMALL:
        check()


@pytest.mark.django_db(transaction=True)
def test_bytes_of_every_kind(engines: None) -> None:
    client = AsgiClient(DurableStreams())
    with asyncio.Runner() as runner:

        @examples(max_examples=60)
        @given(kinds, bodies, st.booleans())
        @example("text/plain", ["€".encode()[:2], "€".encode()[2:]], True)
        @example("text/plain", ["€".encode()[:2], "€".encode()[2:]], False)
        @example("text/plain", [bytes(7), b"\xc2"], False)
        @example("text/plain", [b"a\r", b"\nb", b"\r"], False)
        @example("text/plain", [b"\r"], False)
        @example("text/plain", [b" a", b" ", b"\n ", b"  b"], True)
        @example("text/event-stream", [b"event: control\ndata: {}\n\n", b"data: x\r\r"], True)
        @example("text/plain", ["😀".encode()[:3]], False)
        @example("text/plain", [b"\xf0\xf0"], False)
        @example("text/plain", [b"\xf0", b"\xf0", b"\xf0"], False)
        @example("text/plain", ["😀".encode()[:1], "😀".encode()[1:2], "😀".encode()[2:]], True)
        def check(kind: str, bodies: list[bytes], is_closed: bool) -> None:
            runner.run(agree(client, kind, bodies, is_closed=is_closed))

        property_of(check)


@pytest.mark.django_db(transaction=True)
def test_json_of_every_kind(engines: None) -> None:
    client = AsgiClient(DurableStreams())
    with asyncio.Runner() as runner:

        @examples(max_examples=60)
        @given(json_bodies, st.booleans())
        @example([b"7" * 5000], True)
        @example([b"[" * 400 + b"]" * 400], False)
        @example([rb'["\ud83d", "\ude00"]', rb'"\ud83d\ude00"'], True)
        @example([b"1e999", b"-0", b"1.0", b'{"a":1,"a":2}'], True)
        @example([b'"\xe2\x80\xa8\x7f"', b"[\r\n1\r\n,\t2]"], True)
        def check(bodies: list[bytes], is_closed: bool) -> None:
            runner.run(agree(client, JSON, bodies, is_closed=is_closed))

        property_of(check)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("first", "then"), [(b"caf\xc3", b"\xa9"), ("€".encode()[:2], "€".encode()[2:]), (b"a\r", b"\nb")]
)
async def test_a_fork_goes_on_with_a_text_that_has_ended_in_its_source(
    engines: None, first: bytes, then: bytes
) -> None:
    """What readers of the one were shown last is shared with the other, which does not end there."""
    client = AsgiClient(DurableStreams())
    await client.create("ended", first)
    await client.close("ended")
    await client.create("goes-on", **{"Stream-Forked-From": "/v1/stream/ended"})  # type: ignore[arg-type]
    ended = Readers(client, "ended", "text/plain", is_closed=True)
    goes_on = Readers(client, "goes-on", "text/plain", is_closed=True)
    for _ in range(2):
        assert ended.whole((await ended.by_sse()).data) == one_newline(text.decode(first))
        assert goes_on.whole((await goes_on.by_sse()).data) == text.decode(sse.split(first)[0])
    async with client.follow("goes-on", "-1") as live:
        shown = parse(await live.chunk() or b"").data
        await client.append("goes-on", then)
        shown += parse(await live.chunk() or b"").data
    assert goes_on.whole(shown) == one_newline(text.decode(first + then))
    assert await sync_to_async(goes_on.by_python)() == text.decode(first + then)

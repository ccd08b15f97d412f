"""Frames of hostile and of slow clients."""

import asyncio
import gc
import json
import string
from typing import Self

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from django_durable_streams.protocol import websocket
from django_durable_streams.protocol.errors import InvalidFrame
from django_durable_streams.protocol.websocket import Append
from django_durable_streams.server import response_memory
from django_durable_streams.server.lifespan import Message
from django_durable_streams.server.response_memory import PIECE_BYTES
from django_durable_streams.server.websocket import session
from django_durable_streams.server.websocket.subscription import Subscription
from django_durable_streams.server.websocket.window import WINDOW_BYTES, Window
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams
from tests.server.waiting import until
from tests.websocket.socket import Frame, Socket

TEXT = "text/plain"

INVALID = (
    "",
    "x",
    "null",
    "[]",
    "{}",
    '{"type":1}',
    '{"type":"nothing"}',
    '{"type":"subscribe"}',
    '{"type":"subscribe","path":"a"}',
    '{"type":"subscribe","path":"a","offset":1}',
    '{"type":"subscribe","path":"a","offset":"-1","id":""}',
    '{"type":"subscribe","path":"a","offset":"-1","more":1}',
    '{"type":"subscribe","path":"a","offset":"-1","query":{"a":1}}',
    '{"type":"unsubscribe"}',
    '{"type":"append","path":"a","data":"x","base64":"eA=="}',
    '{"type":"append","path":"a","base64":"?"}',
    '{"type":"append","path":"a","contentType":"text/plain","data":["x"]}',
    '{"type":"append","path":"a","contentType":"text/plain","data":"\\ud800"}',
    '{"type":"append","path":"a","producerEpoch":"0"}',
    '{"type":"append","path":"a","contentType":"application/json","data":' + "[" * 100_000 + "}",
    json.dumps({"type": "append", "path": "a" * 20_000}),
    json.dumps({"type": "append", "path": "a", "query": {"token": "a" * 20_000}}),
    json.dumps({"type": "append", "path": "a", "query": {str(number): "" for number in range(101)}}),
    json.dumps({"type": "append", "path": "a", "streamSeq": "a" * 9000, "producerId": "a" * 9000}),
    json.dumps({"type": "subscribe", "path": "a", "offset": "a" * 20_000}),
    '{"type":"pong","n":true}',
    '{"type":"pong","n":5}',
    '{"type":"pong","n":-1}',
)


@pytest.mark.parametrize("text", INVALID)
async def test_a_frame_that_cannot_be_read_is_an_error_and_the_third_closes(client: AsgiClient, text: str) -> None:
    async with Socket() as socket:
        for number in range(3):
            socket.send_text(text)
            if number < 2:
                error = await socket.next()
                assert (error["type"], error["status"], error["error"]) == ("error", 400, "invalid-frame")
                assert "id" not in error
                socket.send("ping", n=1)
                await socket.take("pong")
        assert (await socket.until("error"))[-1]["error"] == "invalid-frame"
        assert (await socket.closing()).code == 1008


@pytest.mark.parametrize("field", ["data", "base64"])
def test_an_append_that_waits_keeps_its_data_once(field: str) -> None:
    frame = websocket.parse(json.dumps({"type": "append", "path": "a", field: "eHh4" * 50_000}).encode())
    assert isinstance(frame, Append)
    body = frame.take_body(None)
    assert len(body) in (150_000, 200_000)
    assert (bytes(frame.data), frame.base64) == (b"", None)


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\5{}", b"\xff\xff\xff\xff{}", b"\0\0\0\2{}x", b"\0\0\0\0"])
async def test_a_binary_frame_without_its_header_is_an_error(client: AsgiClient, data: bytes) -> None:
    async with Socket() as socket:
        socket.send_bytes(data)
        assert (await socket.next())["error"] == "invalid-frame"


async def test_only_appends_are_binary(client: AsgiClient) -> None:
    async with Socket() as socket:
        socket.send_bytes(websocket.join_binary(b'{"type":"ping"}', b""))
        assert (await socket.next())["error"] == "invalid-frame"


async def test_a_frame_that_is_too_large_is_an_error_and_the_third_closes(client: AsgiClient) -> None:
    with override_streams(WEBSOCKET_MAX_FRAME_BYTES=100):
        async with Socket() as socket:
            for send in (socket.send_text("x" * 101), socket.send_text("é" * 51), socket.send_bytes(b"x" * 101)):
                assert send is None
                error = await socket.next()
                assert (error["status"], error["error"]) == (413, "payload-too-large")
            assert (await socket.closing()).code == 1009


async def test_an_id_that_is_in_use_is_an_error_and_ends_nothing(client: AsgiClient) -> None:
    await client.create("a")
    await client.create("b")
    async with Socket() as socket:
        await socket.subscribe("a", id="1")
        await socket.take("up-to-date")
        error = await socket.subscribe("b", id="1")
        assert (error["error"], "id" in error) == ("invalid-frame", False)
        await client.append("a", b"x")
        assert (await socket.next())["data"] == "x"


async def test_a_client_that_sends_and_does_not_read_is_closed(
    client: AsgiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_REQUESTS", 100)
    async with Socket() as socket:
        socket.is_paused.clear()
        for number in range(1000):
            socket.send("ping", n=number)
        assert socket.task is not None
        await until(lambda: socket.task is not None and (socket.task.done() or socket._to_server.empty()))
        socket.is_paused.set()
        assert (await socket.closing()).code == 1008


@override_streams(POLL_INTERVAL=3600)
async def test_a_client_that_confirms_nothing_gets_one_window(client: AsgiClient) -> None:
    await client.create("a", b"x" * 30_000)
    for _ in range(60):
        await client.append("a", b"x" * 30_000)
    async with Socket(answers_pings=False) as socket:
        socket.send("subscribe", path="a", offset="-1")
        frames: list[Frame] = []
        while sum(len(frame.get("data", "")) for frame in frames) < WINDOW_BYTES - PIECE_BYTES:
            frames.append(await socket.next())
        for _ in range(20):
            await client.append("a", b"y" * 30_000)
            socket.send("ping", n=1)  # its answer waits as well
        await until(lambda: socket._to_server.empty())
        assert WINDOW_BYTES <= socket.sent_bytes < WINDOW_BYTES + PIECE_BYTES + 5000
        pings = [frame["n"] for frame in frames if frame["type"] == "ping"]
        assert pings == sorted(set(pings))
        while socket.has_more():
            frames.append(await socket.next())
        socket.send("pong", n=max(frame["n"] for frame in frames if frame["type"] == "ping"))
        assert (await socket.next())["type"] == "pong"


@override_streams(POLL_INTERVAL=3600)
async def test_streams_keep_no_pages_while_a_frame_waits_for_the_client(client: AsgiClient) -> None:
    names = [f"s/{number}" for number in range(10)]
    for name in names:
        await client.create(name, b"x" * 30_000)
        await client.append(name, b"x" * 30_000)
        await client.append(name, b"x" * 30_000)
    async with Socket() as socket:
        socket.is_paused.clear()
        for name in names:
            socket.send("subscribe", path=name, offset="-1")
        await until(lambda: len(subscriptions()) == len(names))
        await until(lambda: not any(one._page for one in subscriptions()))
        socket.is_paused.set()
        sizes = dict.fromkeys(names, 0)
        while set(sizes.values()) != {90_000}:
            frame = await socket.next()
            sizes[frame["id"]] += len(frame.get("data", ""))


def subscriptions() -> list[Subscription]:
    """All subscriptions that are in memory and have begun."""
    followed = [one for one in gc.get_objects() if type(one) is Subscription]
    return [one for one in followed if one._is_joined and not one.is_closed]


@override_streams(SEND_TIMEOUT=0.2, POLL_INTERVAL=3600)
async def test_a_client_that_confirms_nothing_is_cut_off(client: AsgiClient) -> None:
    await client.create("a", b"x" * 100_000)
    async with Socket(answers_pings=False) as socket:
        socket.send("subscribe", path="a", offset="-1")
        assert (await socket.closing()).code is None


@override_streams(SSE_KEEP_ALIVE=0.05, SEND_TIMEOUT=30)
async def test_an_idle_client_is_pinged(client: AsgiClient) -> None:
    async with Socket(answers_pings=False) as socket:
        for _ in range(3):
            (ping,) = await socket.take("ping")
            socket.send("pong", n=ping["n"])


@override_streams(SSE_KEEP_ALIVE=0.05, SEND_TIMEOUT=0.2)
async def test_an_idle_client_that_does_not_answer_is_cut_off(client: AsgiClient) -> None:
    async with Socket(answers_pings=False) as socket:
        assert [(await socket.next())["type"]] == ["ping"]
        assert (await socket.closing()).code is None


async def test_a_large_append_counts_until_it_is_confirmed(client: AsgiClient) -> None:
    await client.create("a", b"x" * 1_000_000)
    async with Socket(answers_pings=False) as socket:
        socket.send("subscribe", path="a", offset="-1")
        frames = await socket.until("ping")
        assert response_memory.memory.held > 1_000_000
        socket.send("pong", n=frames[-1]["n"])
        await socket.take("up-to-date")
        assert response_memory.memory.held == 0


async def test_large_appends_share_a_bounded_memory(client: AsgiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_memory, "GRACE_SECONDS", 0.0)
    await client.create("a", b"x" * 1_000_000)
    with override_streams(MAX_RESPONSE_MEMORY=1_500_000):
        async with Socket(answers_pings=False) as first, Socket(answers_pings=False) as second:
            first.send("subscribe", path="a", offset="-1")
            await first.until("ping")
            second.send("subscribe", path="a", offset="-1")
            await second.until("ping")
            assert (await first.closing()).code is None
            assert response_memory.memory.held < 1_500_000


class PausingSocket(Socket):
    """The client takes no more from the first data frame on, until it is asked to."""

    async def _send(self, message: Message) -> None:
        if '"type":"data"' in message.get("text", "") and not self.has_paused.is_set():
            self.is_paused.clear()
            self.has_paused.set()
        await super()._send(message)

    async def __aenter__(self) -> Self:
        self.has_paused = asyncio.Event()
        return await super().__aenter__()

    def leave(self) -> None:
        self.is_paused.set()
        super().leave()

    async def follow_until_it_waits(self, path: str) -> None:
        await self.subscribe(path)
        async with asyncio.timeout(10):
            await self.has_paused.wait()

    async def rest(self) -> str:
        """Take the data that is left."""
        self.is_paused.set()
        return "".join(frame["data"] for frame in (await self.until("up-to-date"))[:-1])


APPENDS = [character * 10_000 for character in string.ascii_lowercase]
"""More than a frame, and one page."""


async def create_page(client: AsgiClient) -> None:
    await client.create("a")
    for data in APPENDS:
        await client.append("a", data.encode())


async def test_the_page_behind_a_frame_that_waits_counts(client: AsgiClient) -> None:
    await create_page(client)
    async with PausingSocket() as socket:
        await socket.follow_until_it_waits("a")
        assert 100_000 < response_memory.memory.held < 260_000
        assert await socket.rest() == "".join(APPENDS)
        assert response_memory.memory.held == 0


async def test_a_page_without_room_is_read_again(client: AsgiClient) -> None:
    await create_page(client)
    with override_streams(MAX_RESPONSE_MEMORY=100_000):
        async with PausingSocket() as socket:
            await socket.follow_until_it_waits("a")
            assert response_memory.memory.held == 0
            assert await socket.rest() == "".join(APPENDS)


async def test_a_page_makes_room_for_data_that_a_client_waits_for(
    client: AsgiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response_memory, "GRACE_SECONDS", 0.0)
    await create_page(client)
    with override_streams(MAX_RESPONSE_MEMORY=300_000):
        async with PausingSocket() as socket:
            await socket.follow_until_it_waits("a")
            with response_memory.memory.counted(bytes(250_000), lambda: None, may_refuse=True):
                assert response_memory.memory.held == 250_000
                await asyncio.sleep(0)  # the page is dropped in the event loop
                gc.collect()
                pages = [one.page_data for one in gc.get_objects() if type(one) is Subscription]
                assert pages == [None]
            assert await socket.rest() == "".join(APPENDS)


def test_a_ping_that_was_not_read_cannot_be_confirmed() -> None:
    window, pings = Window(0.0), []
    for _ in range(3):
        window.add(PIECE_BYTES)
        pings.append(window.ping(0.0))
    for guess in {1, 2, 3, pings[0] - 1, pings[0] + 1, pings[2] - 1} - set(pings):
        with pytest.raises(InvalidFrame):
            window.confirm(guess, 1.0)
    assert window.unconfirmed == 3 * PIECE_BYTES
    window.confirm(pings[1], 1.0)
    window.confirm(pings[0], 1.0)  # comes late
    assert window.unconfirmed == PIECE_BYTES


def test_a_window_never_stalls_without_a_ping() -> None:
    @given(st.lists(st.integers(min_value=1, max_value=3 * PIECE_BYTES), max_size=50), st.data())
    def check(sizes: list[int], data: st.DataObject) -> None:
        window, pings = Window(0.0), [0]
        for size in sizes:
            if not window.has_room:
                assert window.is_waiting
                window.confirm(data.draw(st.sampled_from(pings[1:])), 1.0)
                if not window.has_room:
                    window.confirm(pings[-1], 2.0)
                    assert window.has_room
            window.add(size)
            assert window.unconfirmed < WINDOW_BYTES + size
            if window.is_ping_due:
                pings.append(window.ping(0.0))
        with pytest.raises(InvalidFrame):
            window.confirm(pings[-1] + 1, 0.0)

    check()


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_a_binary_frame_is_taken_apart_as_it_was_joined(header: bytes, payload: bytes) -> None:
    assert websocket.split_binary(websocket.join_binary(header, payload)) == (header, payload)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    for parse in (websocket.parse, websocket.parse_binary):
        with pytest.raises(InvalidFrame):
            parse(data)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@examples(max_examples=30)
@given(JSON_VALUES)
def test_a_json_value_is_the_body_that_was_written(value: object) -> None:
    text = json.dumps(value)
    frame = websocket.parse(f'{{"type":"append","path":"a","contentType":"application/json","data":{text}}}'.encode())
    assert isinstance(frame, Append)
    assert frame.take_body(None) == text.encode()


@given(st.text(), st.binary(max_size=100), st.sampled_from(["text/plain", "image/png"]))
def test_data_frames_carry_what_they_were_made_of(name: str, data: bytes, kind: str) -> None:
    frame = websocket.data_frame(name, "0_1", kind, data)
    assert isinstance(frame.content, str)
    fields = json.loads(frame.content)
    assert fields["id"] == name
    assert frame.size == len(frame.content.encode())
    assert ("data" in fields) == (kind == "text/plain")


async def test_a_client_that_leaves_at_once_leaves_nothing(client: AsgiClient) -> None:
    await client.create("a", b"x" * 100_000)
    for turns in range(30):
        async with Socket() as socket:
            for number in range(10):
                socket.send("subscribe", path="a", offset="-1", id=str(number))
                socket.send("append", path="a", contentType=TEXT, data="x")
            for _ in range(turns):
                await asyncio.sleep(0)

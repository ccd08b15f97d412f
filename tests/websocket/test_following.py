"""Many streams over one socket: what is there, what is new, and how each of them ends."""

import json
from base64 import b64decode

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from django_durable_streams.api import transactions
from django_durable_streams.engine.engine import running_engines
from django_durable_streams.models import Stream
from django_durable_streams.protocol.offsets import ZERO
from django_durable_streams.server.response_memory import PIECE_BYTES
from django_durable_streams.server.websocket import subscription
from django_durable_streams.server.websocket.window import WINDOW_BYTES
from django_durable_streams.store.operations import Append, Create, Fork, Trim
from django_durable_streams.store.read import lineage
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams
from tests.server.waiting import elsewhere, until
from tests.tokens import token
from tests.websocket.socket import Socket

LOOKS_NEVER = override_streams(POLL_INTERVAL=3600)
JSON = "application/json"
BYTES = "application/octet-stream"


@pytest.fixture(params=["task", "hub"], autouse=True)
def sender(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who sends: the task of the socket, or the hub, as under uvicorn."""
    if request.param == "hub":
        monkeypatch.setattr(Socket, "__module__", "uvicorn.protocols.websockets")
    name: str = request.param
    return name


@LOOKS_NEVER
async def test_what_is_there_comes_first_and_then_what_is_new(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with Socket() as socket:
        assert await socket.subscribe("a") == {
            "type": "subscribed",
            "id": "a",
            "path": "a",
            "contentType": "text/plain",
            "offset": ZERO,
        }
        assert await socket.take("data", "up-to-date") == [
            {"type": "data", "id": "a", "offset": token(3), "data": "abc"},
            {"type": "up-to-date", "id": "a", "offset": token(3)},
        ]
        for number in range(3):
            await client.append("a", b"%d" % number)
            assert await socket.next() == {"type": "data", "id": "a", "offset": token(4 + number), "data": str(number)}


@LOOKS_NEVER
async def test_one_socket_follows_many_streams(client: AsgiClient) -> None:
    names = [f"s/{number}" for number in range(50)]
    for name in names:
        await client.create(name, name.encode())
    async with Socket() as socket:
        for name in names:
            socket.send("subscribe", path=name, offset="-1", id=name.upper())
        seen: dict[str, list[str]] = {}
        while sum(map(len, seen.values())) < 3 * len(names):
            frame = await socket.next()
            seen.setdefault(frame["id"], []).append(frame["type"])
        assert seen == {name.upper(): ["subscribed", "data", "up-to-date"] for name in names}
        for name in reversed(names):
            await client.append(name, b"!")
            frame = await socket.next()
            assert (frame["id"], frame["data"]) == (name.upper(), "!")


@pytest.mark.parametrize("offset", ["now", token(3)])
async def test_a_subscription_begins_where_it_says(client: AsgiClient, offset: str) -> None:
    await client.create("a", b"abc")
    async with Socket() as socket:
        assert (await socket.subscribe("a", offset))["offset"] == token(3)
        await socket.take("up-to-date")
        await client.append("a", b"d")
        assert (await socket.next())["data"] == "d"


async def test_json_comes_as_json_and_unchanged(client: AsgiClient) -> None:
    await client.create("a", b'[{"n": 12345678901234567890}, 1.0]', JSON)
    async with Socket(answers_pings=False) as socket:
        await socket.subscribe("a")
        message = await socket._message()
        assert '"data":[{"n": 12345678901234567890},1.0]' in message["text"]


async def test_bytes_come_in_base64_or_in_binary_frames(client: AsgiClient) -> None:
    await client.create("a", b"\x00\xff", BYTES)
    async with Socket() as socket:
        await socket.subscribe("a", id="text")
        (frame,) = [frame for frame in await socket.until("up-to-date") if frame["type"] == "data"]
        assert b64decode(frame["base64"]) == b"\x00\xff"
        await socket.subscribe("a", id="binary", binary=True)
        assert await socket.next() == {"type": "data", "id": "binary", "offset": token(2), "payload": b"\x00\xff"}


async def test_json_in_a_binary_frame_is_the_body_that_http_returns(client: AsgiClient) -> None:
    await client.create("a", b"[1,2]", JSON)
    async with Socket() as socket:
        await socket.subscribe("a", binary=True)
        assert (await socket.next())["payload"] == b"[1,2]"


@LOOKS_NEVER
async def test_a_stream_that_closes_delivers_its_data_and_ends_alone(client: AsgiClient) -> None:
    await client.create("a", b"")
    await client.create("b", b"")
    async with Socket() as socket:
        for path in ("a", "b"):
            await socket.subscribe(path)
            await socket.take("up-to-date")
        await client.append("a", b"last", stream_closed="true")
        data, closed = await socket.take("data", "closed")
        assert (data["data"], closed) == ("last", {"type": "closed", "id": "a", "offset": token(4)})
        await client.append("b", b"x")
        assert (await socket.next())["id"] == "b"
        await socket.subscribe("a", token(4))  # the id is free again
        assert (await socket.next())["type"] == "closed"


@LOOKS_NEVER
async def test_a_deleted_stream_ends_alone(client: AsgiClient) -> None:
    await client.create("a")
    await client.create("b")
    async with Socket() as socket:
        for path in ("a", "b"):
            await socket.subscribe(path)
            await socket.take("up-to-date")
        await client.request("DELETE", "a")
        assert await socket.next() == {"type": "deleted", "id": "a"}
        await client.append("b", b"x")
        assert (await socket.next())["id"] == "b"
        assert (await socket.subscribe("a"))["status"] == 404


@LOOKS_NEVER
async def test_a_client_behind_a_trim_learns_where_the_stream_goes_on(client: AsgiClient) -> None:
    await client.create("a", b"x" * 100_000)
    for _ in range(5):
        await client.append("a", b"x" * 100_000)
    async with Socket(answers_pings=False) as socket:
        await socket.subscribe("a")
        frames = [await socket.next() for _ in range(6)]
        assert [frame["type"] for frame in frames] == ["data", "ping"] * 3
        stream = await Stream.objects.aget(path="a")
        await sync_to_async(stream.trim)(before=token(500_000))
        socket.send("pong", n=frames[-1]["n"])
        error = (await socket.until("error"))[-1]
        assert (error["status"], error["error"], error["firstOffset"]) == (410, "offset-trimmed", token(500_000))
        refused = await socket.subscribe("a", token(100_000))
        assert (refused["error"], refused["firstOffset"]) == ("offset-trimmed", token(500_000))
        assert (await socket.subscribe("a", error["firstOffset"]))["type"] == "subscribed"


@LOOKS_NEVER
@pytest.mark.parametrize("is_trimmed", [False, True])
async def test_a_long_chain_of_forks_has_the_offsets_of_its_sources(
    client: AsgiClient, monkeypatch: pytest.MonkeyPatch, is_trimmed: bool
) -> None:
    depth = 2 * lineage.WIDTH + 10

    def prepare() -> list[str]:
        stream = Stream.objects.create(path="s0", content_type="text/plain", data="x")
        stream.append("0,")
        if is_trimmed:
            stream.trim(before=token(1))
        tokens = [Stream.objects.get(path="s0").first_offset, Stream.objects.get(path="s0").next_offset]
        for number in range(1, depth):
            transactions.apply(Create(f"s{number}", None, fork=Fork(f"s{number - 1}")), "default")
            transactions.apply(Append(f"s{number}", "text/plain", b"%d," % number), "default")
            tokens.append(Stream.objects.get(path=f"s{number}").next_offset)
        return tokens

    tokens = await sync_to_async(prepare)()
    monkeypatch.setattr(subscription, "PIECE_BYTES", 20)
    async with Socket() as socket:
        assert (await socket.subscribe(f"s{depth - 1}"))["offset"] == tokens[0]
        frames = await socket.until("up-to-date")
    whole = "".join(f"{number}," for number in range(depth))
    assert "".join(frame.get("data", "") for frame in frames) == ("" if is_trimmed else "x") + whole
    assert {frame["offset"] for frame in frames} <= set(tokens)


async def test_an_expired_stream_is_deleted(client: AsgiClient) -> None:
    await client.create("a", stream_expires_at="2099-01-01T00:00:00Z")
    async with Socket() as socket:
        await socket.subscribe("a")
        await socket.take("up-to-date")
        await Stream.objects.filter(path="a").unguarded().aupdate(deadline=timezone.now())
        assert await socket.next() == {"type": "deleted", "id": "a"}


async def test_a_subscription_behind_a_trim_learns_where_to_go_on(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    trimmed = {"status": 410, "error": "offset-trimmed", "firstOffset": token(6), "request": "subscribe", "id": "a"}
    async with Socket() as socket:
        await socket.subscribe("a", token(3))
        await socket.take("up-to-date")
        await elsewhere(Append("a", "text/plain", b"def"), Append("a", "text/plain", b"ghi"), Trim("a", 6))
        error = await socket.next()  # not that it is deleted
        assert trimmed.items() <= error.items()
        error = await socket.subscribe("a", token(3))
        assert trimmed.items() <= error.items()
        assert (await socket.subscribe("a", token(6)))["type"] == "subscribed"
        assert (await socket.next())["data"] == "ghi"


async def test_refusals_are_error_frames_and_the_others_go_on(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with Socket() as socket:
        error = await socket.subscribe("missing", id="m")
        assert error.pop("detail")
        assert error == {"type": "error", "request": "subscribe", "id": "m", "status": 404, "error": "stream-not-found"}
        for path, offset, status, code in (
            ("a/../b", "-1", 400, "invalid-path"),
            ("__ds/subscriptions/x", "-1", 404, "reserved-path"),
            ("a", "x", 400, "invalid-offset"),
            ("a", token(3, 1), 410, "offset-gone"),
        ):
            error = await socket.subscribe(path, offset)
            assert (error["status"], error["error"], error["id"]) == (status, code, path)
        assert (await socket.subscribe("a"))["type"] == "subscribed"


async def test_nothing_of_a_stream_follows_the_answer_to_unsubscribe(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with Socket() as socket:
        await socket.subscribe("a", "now")
        await socket.take("up-to-date")
        socket.send("unsubscribe", id="a")
        await socket.take("unsubscribed")
        await client.append("a", b"x")
        socket.send("unsubscribe", id="never")
        await socket.take("unsubscribed")
        socket.send("subscribe", path="a", offset="-1")
        socket.send("unsubscribe", id="a")  # before it has begun
        socket.send("ping", n=7)
        frames = await socket.until("pong")
        assert [frame["type"] for frame in frames][-2:] == ["unsubscribed", "pong"]
        assert not socket.has_more()
        await socket.subscribe("a", id="again")


async def test_a_socket_follows_a_limited_number_of_streams(client: AsgiClient) -> None:
    with override_streams(WEBSOCKET_MAX_STREAMS=2):
        for path in ("a", "b", "c"):
            await client.create(path)
        async with Socket() as socket:
            for path in ("a", "b"):
                await socket.subscribe(path)
                await socket.take("up-to-date")
            error = await socket.subscribe("c")
            assert (error["status"], error["error"]) == (429, "too-many-requests")
            socket.send("unsubscribe", id="a")
            await socket.take("unsubscribed")
            assert (await socket.subscribe("c"))["type"] == "subscribed"


async def test_sockets_and_their_streams_count_as_live_readers(client: AsgiClient) -> None:
    with override_streams(MAX_LIVE_READERS=3):
        for path in ("a", "b", "c"):
            await client.create(path)
        async with Socket() as socket:
            for path in ("a", "b"):
                await socket.subscribe(path)
                await socket.take("up-to-date")
            error = await socket.subscribe("c")
            assert (error["status"], error["retryAfter"]) == (503, 5)
            refused = await Socket().open()
            assert (await refused.next())["status"] == 503
            assert (await refused.closing()).code == 1013
        async with Socket():
            pass


@LOOKS_NEVER
async def test_characters_that_two_appends_share_come_whole(client: AsgiClient) -> None:
    await client.create("a", "é".encode()[:1])
    async with Socket() as socket:
        await socket.subscribe("a")
        assert await socket.next() == {"type": "up-to-date", "id": "a", "offset": ZERO}
        await client.append("a", "é".encode()[1:] + b"x")
        assert await socket.next() == {"type": "data", "id": "a", "offset": token(3), "data": "éx"}
        await socket.subscribe("a", token(1), id="inside")
        assert (await socket.next())["data"] == "éx"


@LOOKS_NEVER
async def test_half_a_character_at_the_end_is_replaced(client: AsgiClient) -> None:
    await client.create("a", "x€".encode()[:2], stream_closed="true")
    async with Socket() as socket:
        await socket.subscribe("a")
        frames = await socket.until("closed")
        assert "".join(frame.get("data", "") for frame in frames) == "x\ufffd"
        assert frames[-1]["offset"] == token(2)


async def test_a_long_stream_comes_in_whole_appends(client: AsgiClient) -> None:
    await client.create("a", b"", JSON)
    for number in range(30):
        await client.append("a", json.dumps([number, "x" * 30_000]).encode(), JSON)
    async with Socket() as socket:
        await socket.subscribe("a")
        frames = await socket.until("up-to-date")
        assert [value for frame in frames[:-1] for value in frame["data"][::2]] == list(range(30))
        assert len(frames) > 10
        middle = frames[7]["offset"]
        await socket.subscribe("a", middle, id="rest")
        rest = await socket.until("up-to-date")
        assert rest[0]["data"] == frames[8]["data"]


async def test_a_stream_with_much_data_does_not_delay_the_others(client: AsgiClient) -> None:
    await client.create("much", b"x" * 60_000)
    for _ in range(40):
        await client.append("much", b"x" * 60_000)
    await client.create("little", b"y")
    async with Socket() as socket:
        socket.send("subscribe", path="much", offset="-1")
        socket.send("subscribe", path="little", offset="-1")
        frames = await socket.until("up-to-date")
        assert frames[-1]["id"] == "little"
        assert len(frames) < 20
        await socket.until("up-to-date")


async def test_a_socket_leaves_nothing(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with Socket() as socket:
        await socket.subscribe("a")
        await socket.take("data", "up-to-date")
        (engine,) = running_engines()
        (watch,) = engine.hub()._watches.values()
        assert len(watch.listeners) == 1
    assert not watch.listeners
    await until(lambda: not engine.live_reader_limit)


async def test_the_subprotocol_is_agreed_on_if_it_is_offered(engines: None) -> None:
    socket = await Socket(scope={"subprotocols": ["other", "durable-streams"]}).open()
    assert socket.subprotocol == "durable-streams"
    await socket.__aexit__(None, None, None)


@LOOKS_NEVER
async def test_sockets_share_a_frame_and_each_has_its_own_position(client: AsgiClient) -> None:
    await client.create("a", b"ab")
    async with Socket() as first, Socket() as second, Socket() as third:
        await first.subscribe("a", "now")
        await second.subscribe("a", "now", id="other")
        await third.subscribe("a", "now", binary=True)
        for socket in (first, second, third):
            await socket.take("up-to-date")
        # An answer may come before the news, so two appends may be one frame. So each one is awaited.
        for data, shown in (("é".encode()[:1], ""), ("é".encode()[1:] + b"x", "éx"), (b"y", "y")):
            await client.append("a", data)
            assert [frame["payload"] for frame in await third.take("data")] == [data]
            if shown:
                assert [frame["data"] for frame in await first.take("data")] == [shown]
                assert [(frame["id"], frame["data"]) for frame in await second.take("data")] == [("other", shown)]


@LOOKS_NEVER
async def test_a_send_that_waits_keeps_the_order_of_frames(client: AsgiClient) -> None:
    await client.create("a")
    async with Socket() as socket:
        await socket.subscribe("a")
        await socket.take("up-to-date")
        await until(lambda: not socket.has_more())
        socket.is_paused.clear()
        for number in range(30):
            await client.append("a", b"%d " % number)
            if number == 10:
                socket.send("ping", n=1)
        socket.is_paused.set()
        data = ""
        while not data.endswith("29 "):
            frame = await socket.next()
            data += frame.get("data", "")
        assert data.split() == [str(number) for number in range(30)]


@LOOKS_NEVER
async def test_live_data_fills_the_window_too(client: AsgiClient, sender: str) -> None:
    await client.create("a")
    async with Socket(answers_pings=False) as socket:
        await socket.subscribe("a")
        await socket.take("up-to-date")
        for _ in range(60):
            await client.append("a", b"x" * 8000)
        await until(lambda: socket.sent_bytes >= WINDOW_BYTES)
        assert socket.sent_bytes < WINDOW_BYTES + 2 * PIECE_BYTES
        frames = []
        while socket.has_more():
            frames.append(await socket.next())
        pings = [frame["n"] for frame in frames if frame["type"] == "ping"]
        assert pings == sorted(set(pings))
        size = sum(len(frame["data"]) for frame in frames if frame["type"] == "data")
        socket.send("pong", n=pings[-1])
        while size < 60 * 8000:
            frame = await socket.next()
            size += len(frame.get("data", ""))
            if frame["type"] == "ping":
                socket.send("pong", n=frame["n"])

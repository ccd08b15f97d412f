"""Appends over a socket: the same rules as by HTTP, and their order."""

import json
from typing import Any

import pytest

from django_durable_streams.engine import engine_for
from django_durable_streams.protocol import websocket
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams
from tests.tokens import token
from tests.websocket.socket import Frame, Socket

TEXT = "text/plain"
JSON = "application/json"


async def append(socket: Socket, path: str, **fields: Any) -> Frame:
    """Append, and return the answer."""
    socket.send("append", path=path, id="r", **fields)
    answer = await socket.next()
    assert answer.pop("id") == "r"
    return answer


async def test_an_append_is_answered_with_the_next_offset(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with Socket() as socket:
        answer = await append(socket, "a", contentType=TEXT, data="dé")
        assert answer == {"type": "appended", "offset": token(6)}
    assert (await client.get("a")).body == "abcdé".encode()


@pytest.mark.parametrize(
    ("kind", "text", "stored"),
    [
        (JSON, '"data":{"n": 12345678901234567890, "f": 1.0}', b'[{"n": 12345678901234567890, "f": 1.0}]'),
        (JSON, '"data":[1,[2]]', b"[1,[2]]"),
        (JSON, '"data":null', b"[null]"),
        (JSON, '"data":"x"', b'["x"]'),
        (JSON, '"base64":"WzMsNF0="', b"[3,4]"),
        (TEXT, '"data":"\\u00e9"', "é".encode()),
        (TEXT, '"base64":"/w=="', b"\xff"),
        ("image/png", '"base64":"AP8="', b"\x00\xff"),
    ],
)
async def test_data_is_stored_as_it_was_written(client: AsgiClient, kind: str, text: str, stored: bytes) -> None:
    await client.create("a", kind=kind)
    async with Socket() as socket:
        socket.send_text(f'{{"type":"append","path":"a","contentType":"{kind}",{text}}}')
        assert (await socket.next())["type"] == "appended"
    assert (await client.get("a")).body == stored


async def test_an_append_can_be_a_binary_frame(client: AsgiClient) -> None:
    await client.create("a", kind="image/png")
    async with Socket() as socket:
        header = b'{"type":"append","path":"a","id":"1","contentType":"image/png"}'
        socket.send_bytes(websocket.join_binary(header, b"\x00\xff"))
        assert await socket.next() == {"type": "appended", "id": "1", "offset": token(2)}
    assert (await client.get("a")).body == b"\x00\xff"


PRODUCER = {"producer-id": "p", "producer-epoch": "0"}
REQUESTS: tuple[tuple[dict[str, str], bytes], ...] = (
    ({"content-type": TEXT, "if-match": token(0)}, b"x"),
    ({}, b"x"),
    ({"content-type": "nonsense"}, b"x"),
    ({"content-type": JSON}, b"[1]"),
    ({"content-type": TEXT}, b""),
    ({"content-type": TEXT, "stream-seq": "5"}, b"x"),
    ({"content-type": TEXT, "stream-seq": "4"}, b"x"),
    ({"content-type": TEXT, **PRODUCER, "producer-seq": "0"}, b"x"),
    ({"content-type": TEXT, **PRODUCER, "producer-seq": "0"}, b"x"),
    ({"content-type": TEXT, **PRODUCER, "producer-seq": "3"}, b"x"),
    ({"content-type": TEXT, "producer-id": "p", "producer-epoch": "2", "producer-seq": "0"}, b"x"),
    ({"content-type": TEXT, **PRODUCER, "producer-seq": "1"}, b"x"),
    ({"content-type": TEXT, **PRODUCER, "producer-seq": "-1"}, b"x"),
    ({"content-type": TEXT, "if-match": "*"}, b"x"),
    ({"content-type": TEXT, "producer-id": "p"}, b"x"),
    ({"content-type": TEXT, "producer-id": "", "producer-epoch": "0", "producer-seq": "0"}, b"x"),
    ({"stream-closed": "true"}, b""),
    ({"content-type": TEXT}, b"x"),
    ({"stream-closed": "true"}, b""),
)
FIELDS = {
    "content-type": "contentType",
    "stream-seq": "streamSeq",
    "if-match": "ifMatch",
    "producer-id": "producerId",
    "producer-epoch": "producerEpoch",
    "producer-seq": "producerSeq",
    "stream-closed": "close",
}


def as_fields(headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """The fields of a frame for the headers and the body of a POST."""
    fields: dict[str, Any] = {FIELDS[name]: value for name, value in headers.items()}
    for name in ("producerEpoch", "producerSeq"):
        if name in fields:
            fields[name] = int(fields[name])
    if "close" in fields:
        fields["close"] = fields["close"] == "true"
    if headers.get("content-type") == JSON:
        fields["data"] = json.loads(body)
    elif body:
        fields["data"] = body.decode()
    return fields


async def test_the_same_appends_have_the_same_outcomes_as_by_http(client: AsgiClient) -> None:
    for path in ("http", "socket"):
        await client.create(path)
    await client.request("DELETE", "http")
    await client.create("http")
    async with Socket() as socket:
        for headers, body in REQUESTS:
            reply = await client.request("POST", "http", headers, body)
            answer = await append(socket, "socket", **as_fields(headers, body))
            if reply.status < 300:
                assert answer["type"] == "appended", (headers, answer)
                is_duplicate = reply.status == 204 and bool(body) and "producer-seq" in reply.headers
                assert answer.get("duplicate", False) == is_duplicate, headers
            else:
                assert (answer["status"], answer["detail"]) == (reply.status, reply.json()["detail"]), headers
                assert reply.json()["type"].endswith(f":{answer['error']}")
            shown = {**websocket.header_fields({k.encode(): v.encode() for k, v in reply.headers.items()}), "offset": 0}
            assert {name: answer[name] for name in shown if name != "offset"} == {
                name: value for name, value in shown.items() if name != "offset"
            }, headers
    assert (await client.get("http")).body == (await client.get("socket")).body


async def test_an_append_behind_the_tail_that_it_names_is_refused_with_the_tail(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with Socket() as socket:
        refused = await append(socket, "a", contentType=TEXT, data="x", ifMatch=token(2))
        assert (refused["status"], refused["offset"]) == (412, token(3))
        assert (await append(socket, "a", contentType=TEXT, data="x", ifMatch=token(3)))["offset"] == token(4)
    assert (await client.get("a")).body == b"abcx"


async def test_appends_to_one_stream_keep_their_order(client: AsgiClient) -> None:
    await client.create("a")
    async with Socket() as socket:
        for number in range(200):
            fields = {"producerId": "p", "producerEpoch": 0, "producerSeq": number}
            socket.send("append", path="a", id=str(number), contentType=TEXT, data=f"{number} ", **fields)
        answers = [await socket.next() for _ in range(200)]
    assert [answer["type"] for answer in answers] == ["appended"] * 200
    assert (await client.get("a")).body.decode().split() == [str(number) for number in range(200)]


async def test_an_append_reaches_the_readers_of_the_same_socket(client: AsgiClient) -> None:
    await client.create("a")
    async with Socket() as socket:
        await socket.subscribe("a")
        await socket.take("up-to-date")
        socket.send("append", path="a", contentType=TEXT, data="x", close=True)
        kinds = {(await socket.next())["type"] for _ in range(3)}
        assert kinds == {"appended", "data", "closed"}


async def test_a_path_of_a_control_api_is_no_stream(client: AsgiClient) -> None:
    async with Socket() as socket:
        answer = await append(socket, "__ds/subscriptions/x/claim", contentType=JSON, data={})
        assert (answer["status"], answer["error"]) == (404, "reserved-path")


async def test_bodies_that_wait_are_bounded(client: AsgiClient) -> None:
    await client.create("a")
    with override_streams(MAX_BODY_MEMORY=100, MAX_APPEND_BYTES=60):
        async with Socket() as socket:
            for number in range(3):
                socket.send("append", path="a", id=str(number), contentType=TEXT, data="x" * 45)
            answers = {frame["id"]: frame.get("status", 200) for frame in [await socket.next() for _ in range(3)]}
            assert answers["0"] == 200
            assert 503 in answers.values()


async def test_a_long_append_is_refused_as_by_http(client: AsgiClient) -> None:
    await client.create("a")
    with override_streams(MAX_APPEND_BYTES=50):
        async with Socket() as socket:
            answer = await append(socket, "a", contentType=TEXT, data="x" * 51)
            assert (answer["status"], answer["error"]) == (413, "payload-too-large")


@override_streams(REGISTRY_PATH="__registry__")
async def test_the_registry_is_followed_and_not_written(client: AsgiClient) -> None:
    engine_for()
    while (await client.get("__registry__")).status == 404:
        pass
    async with Socket() as socket:
        answer = await append(socket, "__registry__", contentType=JSON, data={})
        assert (answer["type"], answer["status"], answer["error"]) == ("error", 405, "registry-read-only")
        assert (await socket.subscribe("__registry__"))["type"] == "subscribed"
        await client.create("a")
        frame = await socket.next()
        while frame["type"] != "data":
            frame = await socket.next()
        assert [(row["headers"]["operation"], row["key"]) for row in frame["data"]] == [("insert", "a")]

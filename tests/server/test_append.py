import asyncio

import pytest

from tests.asgi_client import AsgiClient, Reply
from tests.tokens import token

PRODUCER = {"producer_id": "p", "producer_epoch": "0"}


def problem(reply: Reply) -> str:
    return str(reply.json()["type"]).rpartition(":")[2]


async def test_an_append_returns_the_new_tail(client: AsgiClient) -> None:
    await client.create("a")
    reply = await client.append("a", b"hello")
    assert reply.status == 204
    assert reply.offset == token(5)
    assert reply.body == b""


async def test_fifteen_writers_at_once_get_offsets_that_name_their_own_append(client: AsgiClient) -> None:
    await client.create("a")
    bodies = [b"%x" % number * (number + 1) for number in range(15)]
    replies = await asyncio.gather(*(client.append("a", body) for body in bodies))
    content = (await client.get("a")).body
    assert len(content) == sum(map(len, bodies))
    assert len({reply.offset for reply in replies}) == 15
    for body, reply in zip(bodies, replies, strict=True):
        end = int(reply.offset.partition("_")[2])
        assert content[end - len(body) : end] == body


async def test_an_append_needs_a_body(client: AsgiClient) -> None:
    await client.create("a")
    assert problem(await client.append("a", b"")) == "empty-append"
    assert problem(await client.append("a", b"", stream_closed="false")) == "empty-append"


async def test_an_append_needs_the_content_type_of_the_stream(client: AsgiClient) -> None:
    await client.create("a")
    assert (await client.request("POST", "a", {}, b"x")).status == 400
    assert (await client.request("POST", "a", {"content-type": "nonsense"}, b"x")).status == 400
    assert problem(await client.append("a", b"x", "a/b")) == "content-type-mismatch"
    assert (await client.append("a", b"x", "TEXT/plain; charset=utf-8")).status == 204


@pytest.mark.parametrize("body", [b"{", b"[]", b"NaN", b"\xff", b'"a\nb"', b"1 2"])
async def test_what_is_no_message_is_refused_and_changes_nothing(client: AsgiClient, body: bytes) -> None:
    await client.create("a", b"[1]", "application/json")
    reply = await client.append("a", body, "application/json", stream_seq="5", producer_seq="0", **PRODUCER)
    assert reply.status == 400
    assert (await client.get("a")).body == b"[1]"
    reply = await client.append("a", b"2", "application/json", stream_seq="5", producer_seq="0", **PRODUCER)
    assert reply.status == 200


async def test_messages_come_back_as_they_went_in(client: AsgiClient) -> None:
    await client.create("a", kind="application/json")
    for body in (b'{"n": 12345678901234567890,\r\n "f": 1.0}', b'["\\ud83d", "caf\\u00e9", "\xc3\xa9"]'):
        assert (await client.append("a", body, "application/json")).status == 204
    expected = b'[{"n": 12345678901234567890,   "f": 1.0},"\\ud83d","caf\\u00e9","\xc3\xa9"]'
    assert (await client.get("a")).body == expected


async def test_a_closed_stream_is_told_before_anything_else_is_wrong(client: AsgiClient) -> None:
    await client.create("a", b"abc", stream_closed="true")
    reply = await client.append("a", b"{", "application/json", stream_seq="0", producer_seq="7", **PRODUCER)
    assert (reply.status, problem(reply)) == (409, "stream-closed")
    assert reply.headers["stream-closed"] == "true"
    assert reply.offset.endswith("3")


async def test_closing_is_idempotent(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    for _ in range(2):
        reply = await client.close("a")
        assert (reply.status, reply.headers["stream-closed"], reply.offset[-1]) == (204, "true", "3")


async def test_a_close_with_a_last_append_lets_no_other_writer_in_between(client: AsgiClient) -> None:
    await client.create("a")
    replies = await asyncio.gather(
        *(client.append("a", b"%x" % number, stream_closed="true") for number in range(8)),
        *(client.append("a", b"-") for _ in range(4)),
    )
    winners = [number for number in range(8) if replies[number].status == 204]
    assert len(winners) == 1
    assert (await client.get("a")).body.endswith(b"%x" % winners[0])


async def test_sequences_only_grow(client: AsgiClient) -> None:
    await client.create("a")
    statuses = [(await client.append("a", b"x", stream_seq=seq)).status for seq in ("a", "b", "b", "a", "B", "ba", "c")]
    assert statuses == [204, 204, 409, 409, 409, 204, 204]


async def test_a_retry_is_told_from_a_new_append(client: AsgiClient) -> None:
    await client.create("a")
    for expected, seq in ((200, "0"), (204, "0"), (200, "1"), (204, "0"), (204, "1")):
        reply = await client.append("a", b"x", producer_seq=seq, **PRODUCER)
        assert reply.status == expected
        assert reply.headers["producer-epoch"] == "0"
    assert reply.headers["producer-seq"] == "1"
    assert (await client.get("a")).body == b"xx"


async def test_a_retry_is_recognised_before_its_stream_seq_is_looked_at(client: AsgiClient) -> None:
    await client.create("a")
    assert (await client.append("a", b"x", stream_seq="1", producer_seq="0", **PRODUCER)).status == 200
    assert (await client.append("a", b"y", stream_seq="2", producer_seq="1", **PRODUCER)).status == 200
    reply = await client.append("a", b"x", stream_seq="1", producer_seq="0", **PRODUCER)
    assert (reply.status, reply.headers["producer-seq"]) == (204, "1")


async def test_a_refused_append_leaves_producer_and_sequence_where_they_were(client: AsgiClient) -> None:
    await client.create("a")
    await client.append("a", b"x", stream_seq="5", producer_seq="0", **PRODUCER)
    assert problem(await client.append("a", b"y", stream_seq="4", producer_seq="1", **PRODUCER)) == "sequence-conflict"
    gap = await client.append("a", b"y", stream_seq="6", producer_seq="2", **PRODUCER)
    assert (gap.headers["producer-expected-seq"], gap.headers["producer-received-seq"]) == ("1", "2")
    assert (await client.append("a", b"y", stream_seq="6", producer_seq="1", **PRODUCER)).status == 200


async def test_an_old_epoch_is_fenced_off(client: AsgiClient) -> None:
    await client.create("a")
    await client.append("a", b"x", producer_id="p", producer_epoch="3", producer_seq="0")
    reply = await client.append("a", b"y", producer_seq="0", **PRODUCER)
    assert (reply.status, reply.headers["producer-epoch"]) == (403, "3")
    reply = await client.append("a", b"y", producer_id="p", producer_epoch="4", producer_seq="1")
    assert reply.status == 400


@pytest.mark.parametrize("missing", ["producer_id", "producer_epoch", "producer_seq"])
async def test_producer_headers_come_together(client: AsgiClient, missing: str) -> None:
    await client.create("a")
    headers = {"producer_id": "p", "producer_epoch": "0", "producer_seq": "0"}
    del headers[missing]
    assert (await client.append("a", b"x", **headers)).status == 400


@pytest.mark.parametrize("wrong", [{"producer_id": ""}, {"producer_epoch": "-1"}, {"producer_seq": "9007199254740992"}])
async def test_a_producer_header_that_means_nothing(client: AsgiClient, wrong: dict[str, str]) -> None:
    await client.create("a")
    headers = {"producer_id": "p", "producer_epoch": "0", "producer_seq": "0", **wrong}
    assert (await client.append("a", b"x", **headers)).status == 400


async def test_producers_whose_ids_differ_in_their_last_byte_are_two(client: AsgiClient) -> None:
    """The last bytes of these are blanks in Latin-1, though not in HTTP."""
    await client.create("a")
    for name in ("à".encode(), "Å".encode(), b"\xc3"):
        fields = {"content-type": "text/plain", "producer-id": name, "producer-epoch": "0", "producer-seq": "0"}
        assert (await client.request("POST", "a", fields, b"x")).status == 200  # type: ignore[arg-type]


async def test_a_producer_closes_and_its_retry_is_a_success(client: AsgiClient) -> None:
    await client.create("a")
    statuses = [
        (await client.append("a", b"end", stream_closed="true", producer_seq="0", **PRODUCER)).status for _ in range(2)
    ]
    assert statuses == [200, 204]
    other = await client.append("a", b"end", stream_closed="true", producer_seq="1", **PRODUCER)
    assert (other.status, other.headers["stream-closed"]) == (409, "true")
    assert (await client.get("a")).body == b"end"


async def test_a_body_in_pieces_is_one_append(client: AsgiClient) -> None:
    await client.create("a")
    reply = await client.request("POST", "a", {"content-type": "text/plain"}, [b"he", b"", b"llo"])
    assert reply.offset.endswith("5")

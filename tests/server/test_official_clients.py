"""What clients in other languages look for in answers that the specification leaves to the server.

PHP takes a 409 without headers of its own for "the stream exists", unless its body has the words "sequence conflict";
Elixir takes it for a conflict of sequence numbers if its body has the word "sequence".
"""

import pytest

from tests.asgi_client import AsgiClient
from tests.server.entry_points import ENTRY_POINTS, EntryPoint

TEXT = {"content-type": "text/plain"}
PRODUCER = {"producer-id": "p", "producer-epoch": "0"}

# Requests that conflict, and how a client has to be able to tell: by words, by a header, or by neither of them.
CONFLICTS = {
    "Stream-Seq": ("POST", "a", {"stream-seq": "1"}, "words"),
    "Stream-Seq again": ("POST", "a", {"stream-seq": "2"}, "words"),
    "Stream-Seq with a producer": ("POST", "a", {**PRODUCER, "producer-seq": "1", "stream-seq": "1"}, "words"),
    "producer": ("POST", "a", {**PRODUCER, "producer-seq": "5"}, "producer-expected-seq"),
    "closed": ("POST", "closed", {}, "stream-closed"),
    "content type": ("POST", "a", {"content-type": "text/html"}, None),
    "exists": ("PUT", "a", {"content-type": "text/html"}, None),
    "exists with another TTL": ("PUT", "a", {"stream-ttl": "60"}, None),
    "exists and is closed": ("PUT", "closed", {}, None),
    "source is gone": ("PUT", "c", {"stream-forked-from": "/v1/stream/gone"}, None),
    "path is kept": ("PUT", "gone", {}, None),
}


@pytest.mark.parametrize("entry", ENTRY_POINTS)
async def test_conflicts_can_be_told_apart(entry: str, engines: None) -> None:
    point = EntryPoint(entry)
    for path, headers in (("a", {}), ("closed", {"stream-closed": "true"}), ("gone", {})):
        assert (await point.request("PUT", path, {**TEXT, **headers})).status == 201
    assert (await point.request("POST", "a", {**TEXT, "stream-seq": "2"}, b"x")).status == 204
    assert (await point.request("POST", "a", {**TEXT, **PRODUCER, "producer-seq": "0"}, b"x")).status == 200
    assert (await point.request("PUT", "fork", {"stream-forked-from": "/v1/stream/gone"})).status == 201
    assert (await point.request("DELETE", "gone")).status == 204
    for why, (method, target, headers, sign) in CONFLICTS.items():
        body = b"x" if method == "POST" else b""
        reply = await point.request(method, target, {**TEXT, **headers}, body)
        text = reply.body.decode().lower()
        assert reply.status == 409, why
        assert ("sequence conflict" in text) is (sign == "words"), why
        assert "sequence" not in text or sign in ("words", "producer-expected-seq"), why
        if method == "POST":
            for name in ("stream-closed", "producer-expected-seq"):
                assert (name in reply.headers) is (sign == name), why


async def test_a_bad_offset_is_called_one(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    assert b"offset" in (await client.get("a?offset=x")).body.lower()
    assert b"offset" not in (await client.append("a", b"")).body.lower()

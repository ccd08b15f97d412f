"""A compressed body is refused: it would be stored as it came, and read as what it is not."""

import gzip
from typing import Any

import pytest
from django.test import Client

from tests.asgi_client import AsgiClient, Reply
from tests.server.test_fast_path import connected

BODY = gzip.compress(b"hello")
CODED = ["gzip", "GZIP", "x-gzip", "deflate", "br", "zstd", "gzip, identity", "identity,br", "no-such-coding"]
PLAIN = ["identity", "Identity", "", "identity, identity"]


def check_refusal(reply: Reply) -> None:
    assert reply.status == 415
    assert reply.headers["accept-encoding"] == "identity"
    problem = reply.json()
    assert problem["type"] == "urn:durable-streams:error:unsupported-content-encoding"
    assert "without a coding" in problem["detail"]


@pytest.mark.parametrize("coding", CODED)
async def test_a_coded_append_is_refused(client: AsgiClient, coding: str) -> None:
    await client.create("a", b"before")
    for headers in ({}, {"stream_closed": "true"}, {"producer_id": "p", "producer_epoch": "0", "producer_seq": "0"}):
        check_refusal(await client.append("a", BODY, content_encoding=coding, **headers))
    reply = await client.get("a")
    assert (reply.body, reply.headers.get("stream-closed")) == (b"before", None)


@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/octet-stream"])
async def test_a_coded_first_content_is_refused(client: AsgiClient, coding: str, kind: str) -> None:
    check_refusal(await client.request("PUT", "a", {"content-type": kind, "content-encoding": coding}, BODY))
    assert (await client.get("a")).status == 404


async def test_a_fork_takes_none_either(client: AsgiClient) -> None:
    await client.create("a")
    headers = {"stream-forked-from": "/v1/stream/a", "content-encoding": "gzip"}
    check_refusal(await client.request("PUT", "b", headers, BODY))


@pytest.mark.parametrize("coding", PLAIN)
async def test_no_coding_is_no_matter(client: AsgiClient, coding: str) -> None:
    headers = {"content-type": "text/plain", "content-encoding": coding}
    assert (await client.request("PUT", "a", headers, b"one")).status == 201
    assert (await client.append("a", b" two", content_encoding=coding)).status == 204
    assert (await client.get("a")).body == b"one two"


async def test_without_a_body_nothing_is_coded(client: AsgiClient) -> None:
    assert (await client.request("PUT", "a", {"content-encoding": "gzip"})).status == 201
    assert (await client.request("POST", "a", {"content-encoding": "gzip", "stream-closed": "true"})).status == 204


async def test_codings_in_several_lines(client: AsgiClient) -> None:
    await client.create("a")
    lines = [(b"content-type", b"text/plain"), (b"content-encoding", b"identity"), (b"content-encoding", b"gzip")]
    check_refusal(await client.request("POST", "a", lines, BODY))


async def test_on_a_connection_itself(engines: None) -> None:
    protocol, connection = connected()
    head = "PUT /v1/stream/a HTTP/1.1\r\nhost: testserver\r\ncontent-type: text/plain\r\ncontent-encoding: gzip\r\n"
    protocol.data_received(f"{head}content-length: {len(BODY)}\r\n\r\n".encode() + BODY)
    assert b" 415 " in (await connection.sent.get()).split(b"\r\n")[0]


def test_under_wsgi(engines: None) -> None:
    headers: dict[str, Any] = {"content-encoding": "gzip"}
    answer = Client().put("/v1/stream/a", BODY, content_type="text/plain", headers=headers)
    assert answer.status_code == 415

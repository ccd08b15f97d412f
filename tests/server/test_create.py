import json

import pytest

from tests.asgi_client import AsgiClient

ZERO = "0000000000000000_0000000000000000"


async def test_a_stream_is_made(client: AsgiClient) -> None:
    reply = await client.request("PUT", "a/b%20c", {"content-type": "text/plain"})
    assert reply.status == 201
    assert reply.headers["content-type"] == "text/plain"
    assert reply.headers["location"] == "http://testserver/v1/stream/a/b%20c"
    assert reply.offset == ZERO
    assert "stream-closed" not in reply.headers


async def test_making_it_again_confirms_it(client: AsgiClient) -> None:
    await client.create("a", b"once")
    reply = await client.request("PUT", "a", {"content-type": "Text/Plain; charset=utf-8"}, b"twice")
    assert reply.status == 200
    assert reply.offset.endswith("4")
    assert "location" not in reply.headers
    assert (await client.get("a")).body == b"once"


@pytest.mark.parametrize(
    "other",
    [{"content-type": "a/b"}, {}, {"content-type": "text/plain", "stream-ttl": "60"},
     {"content-type": "text/plain", "stream-closed": "true"},
     {"content-type": "text/plain", "stream-expires-at": "2099-01-01T00:00:00Z"}],
)  # fmt: skip
async def test_another_configuration_is_a_conflict_and_changes_nothing(
    client: AsgiClient, other: dict[str, str]
) -> None:
    await client.create("a", b"once")
    assert (await client.request("PUT", "a", other, b"twice")).status == 409
    head = await client.request("HEAD", "a")
    assert (head.headers["content-type"], head.offset[-1]) == ("text/plain", "4")
    assert not {"stream-ttl", "stream-expires-at", "stream-closed"} & set(head.headers)


async def test_the_content_type_comes_back_exactly_as_given(client: AsgiClient) -> None:
    kind = 'Text/Plain;Charset="UTF-8"; x=\xe9'
    await client.request("PUT", "a", {"content-type": kind}, b"x")
    assert (await client.request("HEAD", "a")).headers["content-type"] == kind
    assert (await client.get("a")).headers["content-type"] == kind


async def test_without_a_content_type_it_is_a_stream_of_bytes(client: AsgiClient) -> None:
    reply = await client.request("PUT", "a")
    assert reply.status == 201
    assert reply.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "ttl", ["-0", "00", "-1", "+60", "060", "6e1", "1.5", "", "abc", "18446744073709551615", "9" * 400, "\xb2"]
)
async def test_a_ttl_that_means_nothing_makes_no_stream(client: AsgiClient, ttl: str) -> None:
    reply = await client.request("PUT", "a", {"stream-ttl": ttl})
    assert reply.status == 400
    assert (await client.request("HEAD", "a")).status == 404


@pytest.mark.parametrize(
    "moment", ["2001-01-01T00:00:00Z", "Jan 1 2099", "2099-01-01", "", "9999-12-31T23:59:59-23:59"]
)
async def test_an_expiry_that_means_nothing_makes_no_stream(client: AsgiClient, moment: str) -> None:
    reply = await client.request("PUT", "a", {"stream-expires-at": moment})
    assert reply.status == 400
    assert (await client.request("HEAD", "a")).status == 404


async def test_a_ttl_and_an_expiry_are_refused_together(client: AsgiClient) -> None:
    headers = {"stream-ttl": "60", "stream-expires-at": "2099-01-01T00:00:00Z"}
    assert (await client.request("PUT", "a", headers)).status == 400


async def test_a_lifetime_is_told_by_head(client: AsgiClient) -> None:
    await client.create("a", stream_ttl="3600")
    await client.create("b", stream_expires_at="2099-01-01T01:00:00+01:00")
    assert (await client.request("HEAD", "a")).headers["stream-ttl"] == "3600"
    assert (await client.request("HEAD", "b")).headers["stream-expires-at"] == "2099-01-01T00:00:00Z"


async def test_a_stream_can_be_made_closed_with_all_that_it_will_ever_have(client: AsgiClient) -> None:
    reply = await client.create("a", b"all", stream_closed="TRUE")
    assert reply.headers["stream-closed"] == "true"
    assert (await client.append("a", b"more")).status == 409
    read = await client.get("a")
    assert (read.body, read.headers["stream-closed"]) == (b"all", "true")


async def test_the_first_messages_of_a_json_stream(client: AsgiClient) -> None:
    await client.create("a", b'[1.0, {"n":12345678901234567890}]', "application/json")
    await client.create("b", b"[]", "application/json")
    assert (await client.get("a")).body == b'[1.0,{"n":12345678901234567890}]'
    assert (await client.get("b")).body == b"[]"


async def test_a_body_that_is_no_json_makes_no_stream(client: AsgiClient) -> None:
    reply = await client.request("PUT", "a", {"content-type": "application/json"}, b"{")
    assert reply.status == 400
    assert json.loads(reply.body)["type"].endswith("invalid-json")
    assert (await client.request("HEAD", "a")).status == 404


@pytest.mark.parametrize("path", ["", "a//b", "../a", "a/%2e%2e/b", "a%00", "a%5Cb", "a" * 513, "a/", "a%FF"])
async def test_a_path_that_no_stream_can_have(client: AsgiClient, path: str) -> None:
    assert (await client.request("PUT", path)).status == 400


async def test_the_control_namespace_is_not_for_streams(client: AsgiClient) -> None:
    assert (await client.request("PUT", "__ds/mine")).status == 404


async def test_paths_that_differ_are_different_streams(client: AsgiClient) -> None:
    paths = ["a", "A", "a%20", "%C3%A9", "e%CC%81", "a%2Fb", "a.b", "a%25"]
    for number, path in enumerate(paths):
        await client.create(path, b"%d" % number)
    assert [(await client.get(path)).body for path in paths] == [b"%d" % number for number in range(len(paths))]


async def test_a_deleted_stream_is_gone_at_once_and_can_be_made_again(client: AsgiClient) -> None:
    await client.create("a", b"old")
    assert (await client.request("DELETE", "a")).status == 204
    for method in ("GET", "HEAD", "POST", "DELETE"):
        body = b"x" if method == "POST" else b""
        assert (await client.request(method, "a", {"content-type": "text/plain"}, body)).status == 404
    await client.create("a", b"new", "a/b")
    assert (await client.get("a")).body == b"new"

"""Subscriptions over HTTP, with the database, at every entry point."""

import asyncio
import json
from typing import Any

import pytest

from django_durable_streams.models import Subscription
from django_durable_streams.subscriptions import serialization, tokens
from tests.asgi_client import Reply
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint

CONFIG = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/pool", "lease_ttl_ms": 5000}
TEXT = {"content-type": "text/plain"}
JSON = {"content-type": "application/json"}


@pytest.fixture(params=ENTRY_POINTS)
def entry(request: pytest.FixtureRequest, engines: None) -> EntryPoint:
    return EntryPoint(request.param)


async def send(entry: EntryPoint, method: str, target: str, body: Any = None, token: str = "") -> Reply:
    headers = {**JSON, **({"authorization": f"Bearer {token}"} if token else {})}
    return await entry.request(method, f"__ds/subscriptions/{target}", headers, b"" if body is None else encode(body))


def encode(body: Any) -> bytes:
    return json.dumps(body).encode()


def code(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.json()["error"]["code"]


async def append(entry: EntryPoint, path: str, data: bytes = b"x") -> str:
    await entry.request("PUT", path, TEXT)
    reply = await entry.request("POST", path, TEXT, data)
    assert reply.status == 204
    return str(reply.headers["stream-next-offset"])


async def claim(entry: EntryPoint, name: str = "s", worker: str = "w") -> Reply:
    """Claim a subscription as soon as an append is pending, as the specification has it: at once."""
    return await send(entry, "POST", f"{name}/claim", {"worker": worker})


def wake(claimed: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"wake_id": claimed["wake_id"], "generation": claimed["generation"], **more}


async def test_a_subscription_is_created_confirmed_described_and_deleted(entry: EntryPoint) -> None:
    created = await send(entry, "PUT", "s", CONFIG)
    assert created.status == 201
    described = created.json()
    assert described["id"] == described["subscription_id"] == "s"
    assert described["webhook"] is None
    assert (await send(entry, "PUT", "s", {**CONFIG, "pattern": "/events/*"})).status == 200
    assert code(await send(entry, "PUT", "s", {**CONFIG, "lease_ttl_ms": 6000})) == (
        409,
        "SUBSCRIPTION_ALREADY_EXISTS",
    )
    assert (await send(entry, "GET", "s")).json() == described
    assert (await send(entry, "DELETE", "s")).status == 204
    assert code(await send(entry, "GET", "s")) == (404, "SUBSCRIPTION_NOT_FOUND")
    assert code(await send(entry, "POST", "s/claim", {"worker": "w"})) == (404, "SUBSCRIPTION_NOT_FOUND")
    assert (await send(entry, "PUT", "s", {**CONFIG, "lease_ttl_ms": 6000})).status == 201


@pytest.mark.parametrize("target", ["s", "none", "%C3%A4"])
async def test_a_repeated_delete_of_a_subscription_succeeds_as_the_first_one(entry: EntryPoint, target: str) -> None:
    if target != "none":
        await send(entry, "PUT", target, CONFIG)
    for _ in range(3):
        assert (await send(entry, "DELETE", target)).status == 204
    assert code(await send(entry, "GET", target)) == (404, "SUBSCRIPTION_NOT_FOUND")
    assert (await send(entry, "PUT", target, CONFIG)).status == 201


async def test_existing_streams_are_linked_at_their_ends(entry: EntryPoint) -> None:
    offset = await append(entry, "events/a")
    await send(entry, "PUT", "s", CONFIG)
    assert (await send(entry, "GET", "s")).json()["streams"] == [
        {"path": "events/a", "link_type": "glob", "acked_offset": offset}
    ]
    assert code(await claim(entry)) == (409, "NO_PENDING_WORK")


async def test_a_worker_claims_acknowledges_and_releases(entry: EntryPoint) -> None:
    await send(entry, "PUT", "s", CONFIG)
    offset = await append(entry, "events/a")
    claimed = (await claim(entry)).json()
    assert [stream["path"] for stream in claimed["streams"]] == ["events/a"]
    busy = await claim(entry, worker="other")
    assert code(busy) == (409, "ALREADY_CLAIMED")
    assert busy.json()["error"]["current_holder"] == "w"
    acks = [{"stream": "events/a", "offset": offset}]
    token = claimed["token"]
    reply = await send(entry, "POST", "s/ack", wake(claimed, acks=acks, done=True), token)
    assert (reply.status, reply.json()) == (200, {"ok": True, "next_wake": False})
    assert code(await send(entry, "POST", "s/ack", wake(claimed, acks=acks, done=True), token)) == (409, "FENCED")
    await append(entry, "events/a")
    again = (await claim(entry)).json()
    assert again["generation"] > claimed["generation"]
    assert code(await send(entry, "POST", "s/release", wake(again), token)) == (409, "FENCED")
    assert (await send(entry, "POST", "s/release", wake(again), again["token"])).status == 204
    assert (await claim(entry)).status == 200


async def test_explicit_links_come_and_go(entry: EntryPoint) -> None:
    await send(entry, "PUT", "s", {**CONFIG, "pattern": None, "streams": ["manual/a"]})
    assert (await send(entry, "POST", "s/streams", {"streams": ["manual/b", "é/x y"]})).status == 204
    assert (await send(entry, "DELETE", "s/streams/manual%2Fb")).status == 204
    assert (await send(entry, "DELETE", "s/streams/manual%2Fb")).status == 204
    streams = (await send(entry, "GET", "s")).json()["streams"]
    assert {(stream["path"], stream["link_type"]) for stream in streams} == {
        ("manual/a", "explicit"),
        ("é/x y", "explicit"),
    }
    for method, target, body in (("POST", "none/streams", {"streams": ["a"]}), ("DELETE", "none/streams/a", None)):
        assert code(await send(entry, method, target, body)) == (404, "SUBSCRIPTION_NOT_FOUND")


async def test_a_subscription_never_follows_its_own_wake_stream(entry: EntryPoint) -> None:
    assert code(await send(entry, "PUT", "s", {**CONFIG, "pattern": "**"})) == (400, "INVALID_REQUEST")
    await send(entry, "PUT", "s", CONFIG)
    for streams in (["wake/pool"], ["a", "/wake/pool/"]):
        assert code(await send(entry, "POST", "s/streams", {"streams": streams})) == (400, "INVALID_REQUEST")
    assert (await send(entry, "GET", "s")).json()["streams"] == []


async def test_no_wake_event_is_to_go_to_the_registry(entry: EntryPoint) -> None:
    for path in ("wake/pool", "/wake/pool/"):
        with override_streams(REGISTRY_PATH="wake/pool"):
            reply = await send(entry, "PUT", "s", {**CONFIG, "wake_stream": path})
            assert code(reply) == (400, "INVALID_REQUEST")
            assert "registry" in reply.json()["error"]["message"]
    assert (await send(entry, "PUT", "s", CONFIG)).status == 201


async def test_a_forged_or_foreign_token_does_not_tell_what_exists(entry: EntryPoint) -> None:
    await send(entry, "PUT", "s", CONFIG)
    await send(entry, "PUT", "other", CONFIG)
    await append(entry, "events/a")
    claimed = (await claim(entry)).json()
    bodies = set()
    for name in ("s", "other", "none"):
        for action in ("ack", "release", "callback"):
            reply = await send(entry, "POST", f"{name}/{action}", wake(claimed), "forged:token:x")
            assert code(reply) == (401, "TOKEN_INVALID")
            bodies.add(reply.body)
    assert len(bodies) == 1
    for action in ("ack", "release"):
        assert code(await send(entry, "POST", f"other/{action}", wake(claimed), claimed["token"])) == (
            401,
            "TOKEN_INVALID",
        )
    assert (await send(entry, "POST", "s/ack", wake(claimed), claimed["token"])).status == 200


async def test_the_token_of_a_deleted_subscription_ends_with_it(entry: EntryPoint) -> None:
    await send(entry, "PUT", "s", CONFIG)
    await append(entry, "events/a")
    claimed = (await claim(entry)).json()
    await send(entry, "DELETE", "s")
    for action in ("ack", "release"):
        assert code(await send(entry, "POST", f"s/{action}", wake(claimed), claimed["token"]))[0] in (401, 404)
    await send(entry, "PUT", "s", CONFIG)
    for action in ("ack", "release"):
        assert code(await send(entry, "POST", f"s/{action}", wake(claimed), claimed["token"])) == (
            401,
            "TOKEN_INVALID",
        )


async def test_the_kinds_of_subscriptions_have_their_own_requests(entry: EntryPoint) -> None:
    await send(entry, "PUT", "s", CONFIG)
    subscription = await Subscription.objects.aget(name="s")
    token = tokens.make(subscription, "callback")
    body = {"wake_id": "w_1", "generation": subscription.generation}
    assert (await send(entry, "POST", "s/callback", body, token)).status in (400, 409)


async def test_odd_ids_have_urls_of_their_own(entry: EntryPoint) -> None:
    names = ["a b", "é", "%2F", "a?b#c", "\U0001f600", "A", "a", "claim", "x" * 256]
    encoded = ["a%20b", "%C3%A9", "%252F", "a%3Fb%23c", "%F0%9F%98%80", "A", "a", "claim", "x" * 256]
    for target in encoded:
        assert (await send(entry, "PUT", target, CONFIG)).status == 201
    assert [(await send(entry, "GET", target)).json()["id"] for target in encoded] == names
    for target in encoded:
        assert (await send(entry, "DELETE", target)).status == 204


async def test_many_creations_at_once_make_one_subscription(engines: None) -> None:
    entry = EntryPoint("asgi")
    replies = await asyncio.gather(*(send(entry, "PUT", "s", CONFIG) for _ in range(10)))
    assert sorted(reply.status for reply in replies) == [200] * 9 + [201]
    assert await Subscription.objects.filter(name="s").acount() == 1


async def test_many_claims_at_once_give_one_lease(engines: None) -> None:
    entry = EntryPoint("asgi")
    await send(entry, "PUT", "s", CONFIG)
    await append(entry, "events/a")
    replies = await asyncio.gather(*(claim(entry, worker=f"w{number}") for number in range(10)))
    assert sorted(reply.status for reply in replies) == [200] + [409] * 9


async def test_one_request_names_up_to_a_thousand_streams(entry: EntryPoint) -> None:
    await send(entry, "PUT", "s", CONFIG)
    paths = [f"events/{number:05d}{'x' * 500}" for number in range(1000)]
    assert (await send(entry, "POST", "s/streams", {"streams": paths})).status == 204
    assert code(await send(entry, "POST", "s/streams", {"streams": [*paths, "a"]})) == (400, "INVALID_REQUEST")
    assert len((await send(entry, "GET", "s")).json()["streams"]) == 1000


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5])
async def test_all_links_are_described_in_parts(engines: None, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(serialization, "LINKS_PER_PART", 2)
    entry = EntryPoint("asgi")
    paths = [f"events/{each}" for each in range(number)]
    for path in paths:
        await append(entry, path)
    described = (await send(entry, "PUT", "s", CONFIG)).json()
    assert [stream["path"] for stream in described["streams"]] == paths
    assert (await send(entry, "GET", "s")).json() == described


@pytest.mark.parametrize(
    ("name", "encoded"), [("a b", "a%20b"), ("a?b#c", "a%3Fb%23c"), ("%2F", "%252F"), ("é", "%C3%A9")]
)
def test_the_url_for_callbacks_is_that_of_the_subscription(name: str, encoded: str) -> None:
    subscription = Subscription(name=name, base_url="https://x.example/v1/stream/")
    url = serialization.callback_url(subscription)
    assert url == f"https://x.example/v1/stream/__ds/subscriptions/{encoded}/callback"

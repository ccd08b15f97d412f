"""Reads of a stream whose keys are compacted, at every entry point: fewer messages, and every offset goes on."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_durable_streams.engine.key_compaction_task import KeyCompactionTask
from django_durable_streams.protocol import caching
from django_durable_streams.store.upkeep import key_compaction
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint
from tests.store.key_compaction_steps import START, change, compact_keys

JSON = {"content-type": "application/json"}


@pytest.fixture(params=ENTRY_POINTS)
def entry(request: pytest.FixtureRequest, engines: None, counted_generations: None) -> EntryPoint:
    return EntryPoint(request.param)


@pytest.fixture(autouse=True)
def every_byte_counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(key_compaction, "MIN_DIRTY_BYTES", 1)
    monkeypatch.setattr(KeyCompactionTask, "step", lambda task: None)  # the test says when
    with override_streams(KEY_COMPACTION={"a": {"delay": 0, "tombstones": 3600}}):
        yield


async def append(entry: EntryPoint, message: Any) -> str:
    reply = await entry.request("POST", "a", JSON, json.dumps(message, separators=(",", ":")).encode())
    return reply.headers["stream-next-offset"]


async def compact(at: int) -> None:
    await sync_to_async(compact_keys)(at)
    await sync_to_async(compact_keys)(at + 3601 * 1_000_000)


async def test_every_offset_goes_on(entry: EntryPoint) -> None:
    await entry.request("PUT", "a", JSON)
    messages = [change("a", 1), change("b", 1), change("a", 2), change("a", 3)]
    offsets = [await append(entry, message) for message in messages]
    await compact(START)
    left = [change("b", 1), change("a", 3)]
    for offset, expected in zip(["-1", *offsets], [left, left, left[1:], left[1:], []], strict=True):
        reply = await entry.request("GET", f"a?offset={offset}")
        assert (reply.status, reply.json(), reply.offset) == (200, expected, offsets[-1])


async def test_a_tag_from_before_does_not_stand_for_fewer_messages(entry: EntryPoint) -> None:
    await entry.request("PUT", "a", JSON)
    for number in range(3):
        await append(entry, change("a", number))
    before = await entry.request("GET", "a")
    await compact(START)
    await append(entry, change("b", 1))
    after = await entry.request("GET", "a?offset=-1")
    # The process may have the earlier data in memory, which is right as well.
    assert after.json()[-2:] == [change("a", 2), change("b", 1)]
    again = await entry.request("GET", "a", {"if-none-match": before.headers["etag"]})
    assert (again.status, again.json()) == (200, after.json())
    assert (await entry.request("GET", "a", {"if-none-match": after.headers["etag"]})).status == 304
    fewer, all_of_them = caching.etag(1, 0, 100, False, 60), caching.etag(1, 0, 100, False)
    assert fewer != all_of_them


async def test_a_fork_of_which_all_was_removed_is_read_to_its_tail(entry: EntryPoint) -> None:
    await entry.request("PUT", "a", JSON)
    cut = await append(entry, change("a", 1))
    await append(entry, change("a", 2))
    await compact(START)
    fork = {**JSON, "stream-forked-from": "/v1/stream/a", "stream-fork-offset": cut}
    assert (await entry.request("PUT", "b", fork)).status == 201
    for query in ("", "?offset=-1", "?offset=-1&live=long-poll"):
        reply = await entry.request("GET", f"b{query}")
        assert (reply.status, reply.json(), reply.offset) == (200, [], cut)
        assert reply.headers["stream-up-to-date"] == "true"
    await entry.request("POST", "b", {**JSON, "stream-closed": "true"}, b"")
    if entry.name != "wsgi":
        reply = await entry.request("GET", "b?offset=-1&live=sse")
        assert b"event: data" not in reply.body
        assert cut.encode() in reply.body

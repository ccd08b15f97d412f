"""Readers, writers and trims at once: a reader misses nothing, or is told so. On every database."""

import asyncio
import random
from typing import Any

from asgiref.sync import sync_to_async

from django_durable_streams.engine import engine_for
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import OffsetTrimmed
from django_durable_streams.store.operations import Append, Create
from tests.overriding import override_streams
from tests.server.waiting import until
from tests.store.trimming_steps import drop

BYTES = "application/octet-stream"
MESSAGES = 240


class Follower:
    """Reads a stream to its end, and goes on where a 410 says.

    has_begun: set after the first page.
    goes_on: awaited then.
    """

    def __init__(self, stream: Stream, goes_on: asyncio.Event) -> None:
        self._stream = stream
        self.has_begun = asyncio.Event()
        self._goes_on = goes_on
        self.refusals = 0
        self.received: list[int] = []

    async def run(self) -> None:
        offset, may_skip = "-1", True
        while True:
            try:
                async for page in self._stream.atail(offset, timeout=20):
                    for message in page:
                        number = int(message)
                        last = self.received[-1] if self.received else -1
                        assert number > last if may_skip else number == last + 1, (number, last)
                        self.received.append(number)
                        may_skip = False
                    offset = page.next_offset
                    if page.closed:
                        return
                    self.has_begun.set()
                    await self._goes_on.wait()
                    await asyncio.sleep(0)
                raise AssertionError("the stream was not followed to its end")
            except OffsetTrimmed as error:
                self.refusals += 1
                offset, may_skip = error.first_offset, True


async def write(stream: Stream) -> None:
    engine = engine_for("default")
    for number in range(MESSAGES):
        await engine.write(Append("a", BYTES, b"%d" % number, close=number == MESSAGES - 1))


async def trim(stream: Stream, choose: random.Random) -> None:
    def step() -> None:
        row = Stream.objects.get(pk=stream.pk)
        position = choose.randint(row.first_position, row.tail_position)
        row.trim(row.offset_at(position))
        drop()

    while not await sync_to_async(lambda: Stream.objects.get(pk=stream.pk).closed)():
        await sync_to_async(step)()
    await sync_to_async(stream.trim)("now")


def remembered() -> int:
    """How many segments the watches have in memory. A poll drops those that were trimmed."""
    engine = engine_for("default")
    return sum(len(watch._ring) for hub in engine._hubs.values() for watch in hub._watches.values())


@override_streams(PAGE_BYTES=20, POLL_INTERVAL=0.05)
async def test_no_reader_has_a_gap_without_a_refusal(engines: None) -> None:
    await engine_for("default").write(Create("a", BYTES))
    stream: Any = await Stream.objects.aget(path="a")
    at_once, later = asyncio.Event(), asyncio.Event()
    at_once.set()
    slow = Follower(stream, later)
    followers = [slow, *(Follower(stream, at_once) for _ in range(3))]
    async with asyncio.timeout(28):
        runs = [asyncio.ensure_future(follower.run()) for follower in followers]
        writing = asyncio.ensure_future(write(stream))
        await slow.has_begun.wait()
        await trim(stream, random.Random(7))
        await until(lambda: remembered() == 0)
        later.set()
        await asyncio.gather(writing, *runs)
    assert slow.refusals == 1
    assert slow.received[-1] < MESSAGES - 1

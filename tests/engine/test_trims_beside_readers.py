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
from tests.store.trimming_steps import drop

BYTES = "application/octet-stream"
MESSAGES = 240


class Follower:
    """Reads a stream to its end, and goes on where a 410 says.

    first_trim: set after the first trim. A slow reader waits for it after its first page.
    """

    def __init__(self, stream: Stream, first_trim: asyncio.Event, *, is_slow: bool) -> None:
        self._stream = stream
        self._first_trim = first_trim
        self._is_slow = is_slow
        self.refusals = 0
        self.received: list[int] = []

    async def run(self) -> None:
        offset, may_skip = "-1", True
        while True:
            try:
                async for page in self._stream.atail(offset, timeout=20):
                    for message in page:
                        number = int(message)  # type: ignore[arg-type]
                        last = self.received[-1] if self.received else -1
                        assert number > last if may_skip else number == last + 1, (number, last)
                        self.received.append(number)
                        may_skip = False
                    offset = page.next_offset
                    if page.closed:
                        return
                    if self._is_slow:
                        await self._first_trim.wait()
                    await asyncio.sleep(0)
                raise AssertionError("the stream was not followed to its end")
            except OffsetTrimmed as error:
                self.refusals += 1
                offset, may_skip = error.first_offset, True


async def write(stream: Stream) -> None:
    engine = engine_for("default")
    for number in range(MESSAGES):
        await engine.write(Append("a", BYTES, b"%d" % number, close=number == MESSAGES - 1))


async def trim(stream: Stream, choose: random.Random, first_trim: asyncio.Event) -> None:
    def step() -> bool:
        row = Stream.objects.get(pk=stream.pk)
        position = choose.randint(row.first_position, row.tail_position)
        row.trim(row.offset_at(position))
        drop()
        return int(row.first_position) > 0

    while not await sync_to_async(lambda: Stream.objects.get(pk=stream.pk).closed)():
        if await sync_to_async(step)():
            first_trim.set()
        await asyncio.sleep(0)
    await sync_to_async(stream.trim)("now")
    first_trim.set()


@override_streams(PAGE_BYTES=20, POLL_INTERVAL=0.05)
async def test_no_reader_has_a_gap_without_a_refusal(engines: None) -> None:
    await engine_for("default").write(Create("a", BYTES))
    stream: Any = await Stream.objects.aget(path="a")
    first_trim = asyncio.Event()
    followers = [Follower(stream, first_trim, is_slow=number == 0) for number in range(4)]
    async with asyncio.timeout(28):
        await asyncio.gather(
            write(stream), trim(stream, random.Random(7), first_trim), *(follower.run() for follower in followers)
        )
    assert followers[0].refusals
    assert len(followers[0].received) <= MESSAGES

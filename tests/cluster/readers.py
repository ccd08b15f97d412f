"""Readers that follow a stream, each in one of the protocol's ways, and check what they get while they get it.

The streams are text whose every append is one line, so that half an append shows at once.
"""

import asyncio
import itertools
import json
import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

from tests.cluster.http import Client, Unreachable
from tests.cluster.load import TEXT, position
from tests.event_stream import parse
from tests.websocket.socket import Closed
from tests.websocket.wire import following

Mode = Literal["sse", "long-poll", "catch-up", "websocket"]

MODES: tuple[Mode, ...] = ("sse", "long-poll", "catch-up", "websocket")
CATCH_UP_PAUSE = 0.05
ARRIVAL_SECONDS = 20.0


class Follower:
    """Reads one stream on one server from the beginning, for as long as it is not cancelled.

    data: what it has got; `arrivals`, when it had how much.
    """

    def __init__(self, client: Client, url: str, mode: Mode) -> None:
        self.url = url
        self.mode = mode
        self.data = b""
        self.arrivals: list[tuple[int, float]] = []
        self.connections = 0
        self._client = client
        self._offset = "-1"

    async def follow(self) -> None:
        while True:
            self.connections += 1
            try:
                match self.mode:
                    case "sse":
                        await self._events()
                    case "long-poll":
                        await self._page("&live=long-poll")
                    case "catch-up":
                        await self._page("")
                        await asyncio.sleep(CATCH_UP_PAUSE)
                    case "websocket":
                        await self._frames()
            except (Unreachable, Closed, ConnectionError):
                await asyncio.sleep(CATCH_UP_PAUSE)

    async def has(self, size: int) -> None:
        """Wait until so many bytes are there."""
        deadline = time.monotonic() + ARRIVAL_SECONDS
        while len(self.data) < size:
            assert time.monotonic() < deadline, f"{self.mode} has {len(self.data)} bytes of {size}"
            await asyncio.sleep(0.005)

    def slowest(self, acknowledged: Sequence[tuple[int, float]]) -> float:
        """The longest time in seconds from an acknowledgement (position after it, time) to its arrival."""
        sizes = [size for size, _ in self.arrivals]
        return max(self.arrivals[bisect_left(sizes, end)][1] - moment for end, moment in acknowledged)

    async def _page(self, live: str) -> None:
        response = await self._client.request("GET", f"{self.url}?offset={self._offset}{live}")
        if response.status == 503:
            return
        assert response.status in (200, 204), f"{self.mode}: {response.status} {response.text}"
        self._take(response.content, response.headers["stream-next-offset"])

    async def _events(self) -> None:
        async with self._client.stream(f"{self.url}?offset={self._offset}&live=sse") as (status, _, body):
            if status == 503:
                return
            assert status == 200
            waiting = b""
            data = ""
            async for part in body:
                *whole, waiting = (waiting + part).split(b"\n\n")
                for event in parse(b"".join(raw + b"\n\n" for raw in whole)).events:
                    if event.kind == "data":
                        data += event.data
                    else:
                        self._take(data.encode(), json.loads(event.data)["streamNextOffset"])
                        data = ""

    async def _frames(self) -> None:
        parts = urlsplit(self.url)
        assert parts.port is not None
        async with following(parts.port, parts.path.removeprefix("/v1/stream/"), self._offset) as frames:
            async for frame in frames:
                if frame["type"] == "error" and frame["status"] == 503:
                    return
                assert frame["type"] in ("welcome", "subscribed", "data", "up-to-date"), frame
                if frame["type"] == "data":
                    self._take(frame["data"].encode(), frame["offset"])

    def _take(self, data: bytes, offset: str) -> None:
        self.data += data
        self._offset = offset
        assert len(self.data) == position(offset), f"{self.mode}: {len(self.data)} bytes at {offset}"
        assert not self.data or self.data.endswith(b"\n"), f"{self.mode}: a part of an append"
        if data:
            self.arrivals.append((len(self.data), time.monotonic()))


class Ticker:
    """Appends a line to one stream every few milliseconds, which has to succeed each time.

    acknowledged: the position after each append, and when its acknowledgement came.
    """

    def __init__(self, client: Client, url: str, pause: float = 0.02) -> None:
        self.url = url
        self.acknowledged: list[tuple[int, float]] = []
        self.slowest = 0.0
        self._client = client
        self._pause = pause
        self._ticked = asyncio.Event()

    async def tick(self) -> None:
        for number in itertools.count():
            began = time.monotonic()
            response = await self._client.request("POST", self.url, TEXT, b"line %d\n" % number)
            now = time.monotonic()
            assert response.status == 204, response.text
            self.slowest = max(self.slowest, now - began)
            self.acknowledged.append((position(response.headers["stream-next-offset"]), now))
            self._ticked.set()
            await asyncio.sleep(self._pause)

    async def more(self, count: int) -> list[tuple[int, float]]:
        """Wait for so many more acknowledgements, and return them."""
        first = len(self.acknowledged)
        async with asyncio.timeout(ARRIVAL_SECONDS):
            while len(self.acknowledged) < first + count:
                self._ticked.clear()
                await self._ticked.wait()
        return self.acknowledged[first : first + count]

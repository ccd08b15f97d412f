"""Writers that keep writing whatever happens, and the oracle: what must be in the streams afterwards.

Every attempt to append has a payload of its own, so that what is found in a stream says which attempt it comes from. A
producer repeats an attempt until it is acknowledged; a plain writer makes a new one each time.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.cluster.cluster import STRESS
from tests.cluster.http import Client, Unreachable

TEXT = {"content-type": "text/plain"}
PROGRESS_SECONDS = 30.0
PAUSE_SECONDS = 0.05
"""Before the next attempt where nobody answers."""

PACE_SECONDS = 0.0 if STRESS else 0.03
"""Between two appends of a writer, on average. Dozens of writers without a pause would take the processors from the
servers that start meanwhile.
"""


def position(offset: str) -> int:
    """The byte position that an offset of this server says."""
    return int(offset.partition("_")[2])


@dataclass
class Writer:
    """What one writer has tried and what was acknowledged, in order."""

    name: str
    stream: str
    producer: bool
    attempts: list[str] = field(default_factory=list)
    acknowledged: list[tuple[str, int | None]] = field(default_factory=list)
    """Payload and the position after it: None where the answer was that it had been there before."""

    def next_payload(self) -> str:
        # Of very different lengths, so that a torn one shows.
        filler = "x" * random.choice((1, 40, 400, 4000))
        self.attempts.append(f"{self.name}:{len(self.attempts)}:{filler}\n")
        return self.attempts[-1]


class Load:
    """Writers on some streams, through some servers, from the beginning of the context to its end.

    urls: of the servers' streams.
    streams: how many streams; `producers` and `plain`, how many writers of each kind.
    behind_proxy: whether a proxy answers with 502 or 504 when it has lost its server. Clients repeat these requests.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        streams: int,
        producers: int,
        plain: int,
        prefix: str = "load",
        behind_proxy: bool = False,
    ) -> None:
        self.urls = list(urls)
        self._lost = (502, 504) if behind_proxy else ()
        self.streams = [f"{prefix}/{number}" for number in range(streams)]
        self.writers = [
            Writer(f"{kind}{number}", self.streams[number % streams], kind == "p")
            for kind, count in (("p", producers), ("w", plain))
            for number in range(count)
        ]
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.slowest_refusal = 0.0
        self._stopping = False
        self._client = Client()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for stream in self.streams:
            response = await self._client.request("PUT", f"{self.urls[0]}/{stream}", TEXT)
            assert response.status == 201, response.text
        self._tasks = [asyncio.create_task(self._write(writer)) for writer in self.writers]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping = True
        if exc is not None:
            for task in self._tasks:
                task.cancel()
        try:
            async with asyncio.timeout(PROGRESS_SECONDS):
                results = await asyncio.gather(*self._tasks, return_exceptions=exc is not None)
        finally:
            await self._client.__aexit__(None, None, None)
        assert exc is not None or results == [None] * len(self._tasks)

    async def progress(self, count: int = 1) -> None:
        """Wait until every writer has had `count` more acknowledgements from now on."""
        goals = [(writer, len(writer.acknowledged) + count) for writer in self.writers]
        deadline = time.monotonic() + PROGRESS_SECONDS
        while behind := [writer.name for writer, goal in goals if len(writer.acknowledged) < goal]:
            assert time.monotonic() < deadline, f"no progress of {behind}; {self.statuses}; {self.wrong[:3]}"
            assert not self.wrong, self.wrong[:3]
            await asyncio.sleep(0.02)

    async def _write(self, writer: Writer) -> None:
        server = hash(writer.name) % len(self.urls)
        while not self._stopping:
            payload = writer.next_payload()
            while not await self._attempt(writer, payload, self.urls[server]):
                if len(self.wrong) > 20:
                    return
                server = (server + 1) % len(self.urls)
                await asyncio.sleep(PAUSE_SECONDS)
                if not writer.producer:
                    payload = writer.next_payload()
            await asyncio.sleep(random.uniform(0, 2 * PACE_SECONDS))

    async def _attempt(self, writer: Writer, payload: str, url: str) -> bool:
        headers = dict(TEXT)
        if writer.producer:
            seq = len(writer.attempts) - 1
            headers |= {"producer-id": writer.name, "producer-epoch": "0", "producer-seq": str(seq)}
        began = time.monotonic()
        try:
            response = await self._client.request("POST", f"{url}/{writer.stream}", headers, payload.encode())
        except Unreachable:
            self.statuses[0] += 1
            return False
        self.statuses[response.status] += 1
        duplicate = writer.producer and response.status == 204
        if response.status in (200, 204):
            end = position(response.headers["stream-next-offset"])
            writer.acknowledged.append((payload, None if duplicate else end))
            return True
        if response.status in self._lost:
            return False
        if response.status != 503:
            self.wrong.append(f"{writer.name} got {response.status}: {response.text}")
        else:
            self.slowest_refusal = max(self.slowest_refusal, time.monotonic() - began)
            if "retry-after" not in response.headers:
                self.wrong.append(f"{writer.name} got 503 without Retry-After: {response.text}")
        return False

    async def check(self) -> None:
        """Hold what is in the streams, as every server shows it, against what was tried and acknowledged."""
        assert not self.wrong, self.wrong[:5]
        async with Client() as http:
            for stream in self.streams:
                views = [await read(http, url, stream) for url in self.urls]
                assert all(view == views[0] for view in views), f"{stream}: servers differ"
                self._check_stream(stream, views[0])

    def _check_stream(self, stream: str, data: bytes) -> None:
        assert data.endswith(b"\n") or not data, f"{stream}: torn at its end"
        result = Counter(data.decode().splitlines(keepends=True))
        writers = [writer for writer in self.writers if writer.stream == stream]
        tried = {payload for writer in writers for payload in writer.attempts}
        assert not (torn := result.keys() - tried), f"{stream}: torn or foreign: {[line[:40] for line in torn][:5]}"
        assert not (twice := [line for line, count in result.items() if count > 1]), f"{stream}: twice: {twice[:5]}"
        ends: list[int] = []
        for writer in writers:
            missing = [payload[:40] for payload, _ in writer.acknowledged if payload not in result]
            assert not missing, f"{stream}: acknowledged but lost: {missing[:5]}"
            existing = [(payload, end) for payload, end in writer.acknowledged if end is not None]
            for payload, end in existing:
                assert data[:end].endswith(payload.encode()), f"{stream}: {payload[:40]!r} does not end at {end}"
            ends += [end for _, end in existing]
            numbers = [int(line.split(":")[1]) for line in result if line.startswith(f"{writer.name}:")]
            assert numbers == sorted(numbers), f"{stream}: {writer.name}'s appends are out of order"
        assert len(ends) == len(set(ends)), f"{stream}: an offset was given twice"


async def read(http: Client, url: str, stream: str) -> bytes:
    """A stream's data from its beginning to its tail, by pages."""
    data = b""
    offset = "-1"
    while True:
        response = await http.request("GET", f"{url}/{stream}?offset={offset}")
        assert response.status == 200, response.text
        data += response.content
        offset = response.headers["stream-next-offset"]
        assert position(offset) == len(data)
        if response.headers.get("stream-up-to-date") == "true":
            return data

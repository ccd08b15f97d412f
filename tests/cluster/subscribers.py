"""Receivers of webhooks and workers that misbehave, what they were told, and what must hold of it.

A receiver answers that it is done, or accepts and calls back, or fails, or leaves, at random. A worker claims, and then
acknowledges, releases, or dies. All of them note each wake that they hear of, and what they did about it.
"""

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from django.core.signing import b62_decode

from tests.cluster.cluster import scaled
from tests.cluster.http import Client, Unreachable
from tests.cluster.load import position
from tests.listening import Listener
from tests.subscriptions.receivers import read_request

LEASE_SECONDS = 2
JSON = {"content-type": "application/json"}
PAUSE = scaled((0.02, 0.1), (0.2, 1.5))
"""Seconds between two claims of a worker. The more workers ask all the time, the less there is for all others."""
HELD_SECONDS = 1.0
"""How long a receiver or worker is at work at most. Shorter than a lease, longer than a delivery takes."""


@dataclass
class Wake:
    """A wake as its receiver or worker was told of it."""

    subscription: str
    wake_id: str
    generation: int
    token: str
    streams: list[dict[str, Any]]
    arrived_at: float
    ended_at: float | None = None
    """When it was ended: before the answer that ends it was sent. None: only the end of its lease ends it."""
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Offsets by path that the server has certainly taken."""
    is_claimed: bool = False

    def __str__(self) -> str:
        return f"{self.subscription}, generation {self.generation}, {self.wake_id}"

    @property
    def begun_at(self) -> int:
        """The second in which the server began the lease, which the token says."""
        return b62_decode(self.token.split(":")[1])


class Subscribers:
    """Receivers and workers of some subscriptions, from the beginning of the context to its end.

    urls: of the servers' streams.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = list(urls)
        self._client = Client()
        self._listener = Listener(self._receive)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self.is_calm = False
        """Whether everything succeeds from now on."""
        self.wakes: dict[str, list[Wake]] = defaultdict(list)
        self.wrong: list[str] = []

    async def __aenter__(self) -> Self:
        await self._listener.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_stopping = True
        await self._listener.__aexit__(kind, error, trace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.__aexit__(None, None, None)

    async def subscribe(self, name: str, kind: str, pattern: str) -> None:
        """Create a subscription, with its receiver or its workers."""
        body: dict[str, Any] = {"type": kind, "pattern": pattern, "lease_ttl_ms": LEASE_SECONDS * 1000}
        if kind == "webhook":
            body["webhook"] = {"url": f"http://127.0.0.1:{self._listener.port}/{name}"}
        else:
            body["wake_stream"] = "wakes/pool"
        status, answer = await self._ask("PUT", f"subscriptions/{name}", body)
        assert status in (200, 201), answer  # 200: a first request has created it, and was not answered in time
        if kind == "pull-wake":
            for number in range(2):
                self._start(self._work(name, f"worker-{number}"))

    async def described(self, name: str) -> dict[str, str]:
        """The acknowledged offsets of a subscription, by path."""
        status, answer = await self._ask("GET", f"subscriptions/{name}")
        assert status == 200, answer
        return {one["path"]: one["acked_offset"] for one in answer["streams"]}

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """Ask any server, and another one until one answers."""
        headers = {**JSON, **({"authorization": f"Bearer {token}"} if token else {})}
        content = b"" if body is None else json.dumps(body).encode()
        while True:
            try:
                url = f"{random.choice(self._urls)}/__ds/{path}"
                response = await self._client.request(method, url, headers, content)
            except Unreachable:
                response = None
            if response is not None and response.status != 503:
                return response.status, json.loads(response.content) if response.content else None
            await asyncio.sleep(0.02)

    def _note(self, name: str, told: dict[str, Any], token: str, *, is_claimed: bool = False) -> Wake:
        wake = Wake(name, told["wake_id"], told["generation"], token, told["streams"], time.monotonic())
        wake.is_claimed = is_claimed
        self.wakes[name].append(wake)
        return wake

    # Receivers of webhooks.

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            received = await read_request(reader)
            name = received.line.split(" ")[1].strip("/")
            told = json.loads(received.body)
            await self._answer(self._note(name, told, told["callback_token"]), writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, wake: Wake, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(random.choice((0, 0, 0.01, 0.1)))
        chance = 0.0 if self.is_calm else random.random()
        if chance < 0.75:
            wake.ended_at = time.monotonic()
            await _reply(writer, 200, b'{"done":true}')
        elif chance < 0.85:
            await _reply(writer, 202, b"")
            self._start(self._call_back(wake))
        elif chance < 0.9:
            wake.ended_at = time.monotonic()
            await _reply(writer, 500, b"")
        elif chance < 0.95:
            await _reply(writer, 202, b"")  # and never calls back
        # Else it leaves without an answer.

    async def _call_back(self, wake: Wake) -> None:
        await asyncio.sleep(random.uniform(0, HELD_SECONDS))
        await self._acknowledge(wake, "callback")

    # Workers.

    async def _work(self, name: str, worker: str) -> None:
        while not self._is_stopping:
            status, answer = await self._ask("POST", f"subscriptions/{name}/claim", {"worker": worker})
            if status == 200:
                await self._do(self._note(name, answer, answer["token"], is_claimed=True))
            elif answer["error"]["code"] not in ("ALREADY_CLAIMED", "NO_PENDING_WORK"):
                self.wrong.append(f"{name}: {answer}")
            await asyncio.sleep(random.uniform(*PAUSE))

    async def _do(self, wake: Wake) -> None:
        await asyncio.sleep(random.uniform(0, 0.05))
        chance = 0.0 if self.is_calm else random.random()
        if chance < 0.8:
            await self._acknowledge(wake, "ack")
        elif chance < 0.9:
            wake.ended_at = time.monotonic()
            await self._ask("POST", f"subscriptions/{wake.subscription}/release", _body(wake), wake.token)
        # Else it dies.

    async def _acknowledge(self, wake: Wake, action: str) -> None:
        """Acknowledge all streams, in one request or in two."""
        acks = [{"stream": one["path"], "offset": one["tail_offset"]} for one in wake.streams]
        path = f"subscriptions/{wake.subscription}/{action}"
        if random.random() < 0.3:
            status, _ = await self._ask("POST", path, _body(wake, acks=acks[:1], done=False), wake.token)
            if status == 200:
                wake.acknowledged[acks[0]["stream"]] = acks[0]["offset"]
        newer = [other for other in self.wakes[wake.subscription] if other.generation > wake.generation]
        wake.ended_at = time.monotonic()
        status, _ = await self._ask("POST", path, _body(wake, acks=acks, done=True), wake.token)
        if status == 200:
            wake.acknowledged |= {one["stream"]: one["offset"] for one in acks}
            if newer:
                self.wrong.append(f"{wake} was acknowledged after the receiver had heard of {newer[0]}")

    # What must hold.

    def check(self) -> None:
        """Check that wakes were numbered once, one was in flight at a time, and cursors have never gone back."""
        for name, wakes in self.wakes.items():
            generations = [wake.generation for wake in wakes]
            if len(set(generations)) < len(generations):
                self.wrong.append(f"{name}: a generation came twice, {sorted(generations)}")
            in_order = sorted(wakes, key=lambda wake: wake.generation)
            for earlier, later in pairwise(in_order):
                self._check_pair(earlier, later)
            self._check_cursors(in_order)
        assert not self.wrong, "\n".join(self.wrong[:20])

    def _check_pair(self, earlier: Wake, later: Wake) -> None:
        has_ended = earlier.ended_at is not None and earlier.ended_at <= later.arrived_at
        if not has_ended and later.begun_at - earlier.begun_at < LEASE_SECONDS:
            self.wrong.append(f"two wakes in flight: {earlier}, {later}")

    def _check_cursors(self, in_order: Sequence[Wake]) -> None:
        cursors: dict[str, str] = {}  # by path, and the generation of the stream that was there
        for wake in in_order:
            for one in wake.streams:
                cursor, tail = one["acked_offset"], one["tail_offset"]
                key = f"{one['path']} {_generation(tail)}"
                if _is_before(cursor, cursors.get(key, "-1")):
                    self.wrong.append(f"{wake}: the cursor of {one} went back from {cursors[key]}")
                if not _is_before(cursor, tail):
                    self.wrong.append(f"{wake}: {one} has nothing pending")
                cursors[key] = cursor
            for path, offset in wake.acknowledged.items():
                cursors[f"{path} {_generation(offset)}"] = offset

    def missed(self, name: str, tails: dict[str, str]) -> list[str]:
        """The paths of which a subscription was never told some bytes, given the offsets of their tails."""
        told: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for wake in self.wakes[name]:
            for one in wake.streams:
                path, tail = one["path"], one["tail_offset"]
                if path in tails and _generation(tail) == _generation(tails[path]):
                    begin = 0 if one["acked_offset"] == "-1" else position(one["acked_offset"])
                    told[path].append((begin, position(tail)))
        return [path for path, tail in tails.items() if _covered(told[path]) < position(tail)]


def _body(wake: Wake, **more: Any) -> dict[str, Any]:
    return {"wake_id": wake.wake_id, "generation": wake.generation, **more}


def _generation(offset: str) -> str:
    return offset.partition("_")[0]


def _is_before(offset: str, other: str) -> bool:
    """Whether an offset lies before another one. Offsets of later streams at a path are greater."""
    return other != "-1" and (offset == "-1" or offset < other) and not (offset == "-1" and position(other) == 0)


def _covered(ranges: list[tuple[int, int]]) -> int:
    """The position up to which ranges cover everything from the beginning."""
    end = 0
    for begin, until in sorted(ranges):
        if begin > end:
            break
        end = max(end, until)
    return end


async def _reply(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    await writer.drain()

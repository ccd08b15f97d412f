"""A server of a subscription in memory: its answers are what a test says, and it notes what it was asked."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from django_durable_streams.protocol.subscriptions import SubscriptionConfig, no_pending_work
from django_durable_streams.subscriptions.pull_wake.base import ClaimedStream, ClaimedWake, WakeMessage

LEASE = 0.3


async def until(condition: Callable[[], object], step: float = 0.01) -> None:
    """Wait until a condition holds. The limit is that of the test."""
    while not condition():  # noqa: ASYNC110 - what it waits for is in other threads and processes, too
        await asyncio.sleep(step)


class FakeServer:
    """Each claim takes the next of `wakes`: lists of the messages of one stream `s`, whose offsets are numbers."""

    def __init__(self, *wakes: list[Any]) -> None:
        self.is_stopping = False
        self.wakes = [*wakes]
        self.calls: list[tuple[Any, ...]] = []
        self.errors: dict[str, list[BaseException]] = {}
        """Errors that the next calls of a method raise."""
        self.silent: set[str] = set()
        """Methods that do not answer."""
        self.events = asyncio.Event()
        self.has_closed = False
        self.on_claim: Callable[[], None] = lambda: None
        self._generation = 0

    async def _called(self, name: str, *content: Any) -> None:
        self.calls.append((name, *content))
        if self.errors.get(name):
            raise self.errors[name].pop(0)
        if name in self.silent:
            await asyncio.Event().wait()

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """The calls of one method."""
        return [call[1:] for call in self.calls if call[0] == name]

    async def ensure(self, config: SubscriptionConfig) -> bool:
        await self._called("ensure", config)
        return True

    async def wake_stream(self) -> str:
        await self._called("wake_stream")
        return "wake"

    async def wake_events(self, path: str) -> AsyncGenerator[None, None]:
        await self._called("wake_events")
        yield
        while True:
            await self.events.wait()
            self.events.clear()
            if self.is_stopping:
                return
            yield

    async def claim(self, worker: str) -> ClaimedWake:
        await self._called("claim", worker)
        self.on_claim()
        if not self.wakes:
            raise no_pending_work()
        self._generation += 1
        self._messages = self.wakes.pop(0)
        stream = ClaimedStream("s", "-1", str(len(self._messages)))
        return ClaimedWake(f"w{self._generation}", self._generation, "token", round(LEASE * 1000), (stream,))

    async def ack(self, wake: ClaimedWake, offsets: Mapping[str, str], *, done: bool) -> None:
        await self._called("ack", dict(offsets), done)

    async def release(self, wake: ClaimedWake) -> None:
        await self._called("release")

    async def messages(self, stream: ClaimedStream, offset: str) -> AsyncGenerator[WakeMessage, None]:
        await self._called("messages", offset)
        for number in range(max(int(offset), 0), len(self._messages)):
            yield WakeMessage("s", self._messages[number], str(number + 1))

    async def close(self) -> None:
        self.has_closed = True

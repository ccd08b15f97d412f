"""A Redis that is not there: pub/sub between simulated processes, with messages that are lost, late, or come twice."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import redis
import redis.asyncio

from . import primitives
from .faults import Faults

TIMEOUT = 1.0
"""Seconds that a client waits for a Redis that is frozen."""


class Broker:
    """What all clients of a run are connected to."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.is_down = False
        self._listeners: dict[PubSub, None] = {}

    def check(self) -> None:
        """See that it answers."""
        primitives.scheduler.pause()
        if self.is_down:
            raise redis.ConnectionError("Connection refused")

    def publish(self, channel: bytes, data: bytes) -> None:
        """Send a message to all who listen."""
        scheduler = primitives.scheduler
        for listener in list(self._listeners):
            if channel in listener.channels:
                for delay in self.faults.deliveries():
                    message = {"type": "message", "channel": channel, "data": data, "pattern": None}
                    scheduler.call_at(scheduler.now + delay, lambda to=listener, what=message: to.receive(what))

    def add(self, listener: PubSub) -> None:
        self._listeners[listener] = None

    def remove(self, listener: PubSub) -> None:
        self._listeners.pop(listener, None)

    def go_down(self) -> None:
        """Break all connections, and take no new ones."""
        self.is_down = True
        for listener in list(self._listeners):
            listener.break_off()
        self._listeners.clear()

    def come_back(self) -> None:
        self.is_down = False


broker: Broker
"""Of the run that is under way."""


def use(current: Broker) -> None:
    """Begin a run."""
    global broker
    broker = current


class _Pool:
    connection_kwargs: dict[str, Any] = {"db": 0}


def _bytes(channel: str | bytes) -> bytes:
    """Return a channel's name as it goes on the wire."""
    return channel.encode() if isinstance(channel, str) else channel


class Client:
    """redis.Redis, as far as it publishes."""

    def __init__(self) -> None:
        self.connection_pool = _Pool()
        self._waiting: list[tuple[bytes, bytes]] = []

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Client:
        return cls()

    @classmethod
    def from_pool(cls, pool: object) -> Client:
        return cls()

    def pipeline(self, transaction: bool = True) -> Client:
        return Client()

    def publish(self, channel: str | bytes, data: bytes) -> None:
        self._waiting.append((_bytes(channel), data))

    def execute(self, raise_on_error: bool = True) -> list[int]:
        waiting, self._waiting = self._waiting, []
        broker.check()
        for channel, data in waiting:
            broker.publish(channel, data)
        return [1] * len(waiting)

    def ping(self) -> bool:
        broker.check()
        return True

    def close(self) -> None:
        """Nothing is open."""


class AsyncClient:
    """redis.asyncio.Redis, as far as it listens."""

    @classmethod
    def from_url(cls, url: str, **options: Any) -> AsyncClient:
        return cls()

    @classmethod
    def from_pool(cls, pool: object) -> AsyncClient:
        return cls()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *args: object) -> None:
        pass

    async def aclose(self) -> None:
        pass

    def pubsub(self, **options: Any) -> PubSub:
        return PubSub()


class PubSub:
    """redis.asyncio's PubSub."""

    def __init__(self) -> None:
        self.channels: dict[bytes, None] = {}
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[dict[str, Any]] = deque()
        self._news = asyncio.Event()
        self._is_broken = False
        task = primitives.scheduler.current
        assert task is not None
        self._process = task.process
        self._process.at_kill.append(lambda: broker.remove(self))

    async def __aenter__(self) -> PubSub:
        return self

    async def __aexit__(self, *args: object) -> None:
        broker.remove(self)

    async def aclose(self) -> None:
        broker.remove(self)

    async def connect(self) -> None:
        await asyncio.sleep(broker.faults.latency())
        broker.check()
        broker.add(self)

    async def subscribe(self, *channels: str | bytes) -> None:
        await self._tell("subscribe", channels)

    async def unsubscribe(self, *channels: str | bytes) -> None:
        await self._tell("unsubscribe", channels)

    async def ping(self) -> None:
        await self._tell("pong", [""])

    async def get_message(self, ignore_subscribe_messages: bool = False, timeout: float | None = 0.0) -> Any:
        if not self._inbox and not self._is_broken:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), timeout)
            except TimeoutError:
                return None
        if self._inbox:
            return self._inbox.popleft()
        raise redis.ConnectionError("Connection closed by server.")

    async def _tell(self, kind: str, channels: Any) -> None:
        if self._is_broken:
            raise redis.ConnectionError("Connection lost.")
        await asyncio.sleep(broker.faults.latency())
        if self._is_broken:
            return
        for channel in map(_bytes, channels):
            if kind == "subscribe":
                self.channels[channel] = None
            elif kind == "unsubscribe":
                self.channels.pop(channel, None)
            self._inbox.append({"type": kind, "channel": channel, "data": 1, "pattern": None})
        self._news.set()

    def receive(self, message: dict[str, Any]) -> None:
        """Take a message in, from wherever it comes."""
        self._call(self._inbox.append, message)

    def break_off(self) -> None:
        """Lose the connection."""
        self._is_broken = True
        self._call(self._inbox.clear)

    def _call(self, function: Any, *args: Any) -> None:
        def take() -> None:
            if not self._is_broken or not args:
                function(*args)
            self._news.set()

        if self._process.is_dead or (args and self._is_broken):
            return
        try:
            self._loop.call_soon_threadsafe(take)
        except RuntimeError:
            pass  # the loop has ended

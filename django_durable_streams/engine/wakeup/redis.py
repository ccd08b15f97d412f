"""Wake-ups through Redis pub/sub: one channel for each stream that somebody waits on.

Nothing here is relied on. A message that is lost, or a Redis that is down or frozen, costs readers of other processes
up to a second; appends never wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from queue import SimpleQueue
from threading import Lock, Thread

import msgspec
import redis
import redis.asyncio
from django.core.exceptions import ImproperlyConfigured

from ...store.operations import Commit
from .base import Audience, News, Subscriber, Wakeup
from .connections import AsyncFactory, from_cache, from_url

logger = logging.getLogger(__name__)

MAX_PAYLOAD = 8 * 1024
"""Bytes of a commit that travel along. With more, the readers' process reads them once for all."""

MAX_QUEUED = 1_000
"""Batches of commits that may wait to be published; the oldest are dropped, as readers find them by themselves."""

CONFIRM_SECONDS = 0.5
"""How long a reader waits until its subscription is confirmed."""

MIN_BACKOFF, MAX_BACKOFF = 0.1, 1.0
"""Seconds between attempts to connect."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(News)


class RedisWakeup(Wakeup):
    """Publishes commits, and subscribes to those of other processes.

    Args:
        using: alias of the database.
        cache: alias in CACHES whose backend is django-redis, for its connection.
        url: of Redis, instead of a cache.
        prefix: of the channels' names, for projects that share a Redis.
    """

    def __init__(
        self, using: str, cache: str | None = None, url: str | None = None, prefix: str = "durable-streams"
    ) -> None:
        if (cache is None) == (url is None):
            raise ImproperlyConfigured("RedisWakeup takes either CACHE, an alias in CACHES, or URL.")
        self._client, self._connect = from_url(url) if url is not None else from_cache(cache or "")
        self._prefix = f"{prefix}:{using}:"
        self._queue: SimpleQueue[list[Commit] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._lock = Lock()
        self._is_lost = False

    def publish(self, commits: list[Commit]) -> None:
        """Send news soon, from a thread of the backend."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = Thread(target=self._run, name="durable-streams-publish", daemon=True)
                    self._thread.start()
        if self._queue.qsize() < MAX_QUEUED:
            self._queue.put(commits)

    def publish_now(self, commits: list[Commit]) -> None:
        """Send news, waiting for Redis for a second at most."""
        try:
            pipeline = self._client.pipeline(transaction=False)
            for commit in commits:
                pipeline.publish(self.channel(commit.stream_id), encode(commit))
            pipeline.execute()
        except (redis.RedisError, OSError) as error:
            self.lost(error)
        else:
            self.found()

    def subscriber(self, audience: Audience) -> Subscriber:
        """Return what listens for the running event loop."""
        return RedisSubscriber(self, self._connect, audience)

    def channel(self, stream_id: int) -> str:
        """Return the name of a stream's channel."""
        return f"{self._prefix}{stream_id}"

    def check(self) -> bool:
        """Return whether Redis answers."""
        try:
            return bool(self._client.ping())
        except (redis.RedisError, OSError):
            return False

    def stop(self) -> None:
        """End the publishing thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(timeout=2)
        self._client.close()

    def _run(self) -> None:
        while (commits := self._queue.get()) is not None:
            batch = list(commits)
            while not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    return
                batch += more
            self.publish_now(batch)

    def lost(self, error: Exception) -> None:
        """Take note, and say once, that Redis does not answer."""
        if not self._is_lost:
            self._is_lost = True
            logger.warning("Redis does not answer (%s). Readers of other processes get news within a second.", error)

    def found(self) -> None:
        """Take note, and say once, that it does again."""
        if self._is_lost:
            self._is_lost = False
            logger.warning("Redis answers again. Readers of other processes get news at once.")


def encode(commit: Commit) -> bytes:
    """Return a commit as a message."""
    along = len(commit.data) <= MAX_PAYLOAD
    return _encoder.encode(
        News(
            commit.start,
            commit.tail,
            commit.closed,
            commit.removed,
            commit.data if along else None,
            commit.ends if along else [],
        )
    )


class RedisSubscriber(Subscriber):
    """Listens to the channels of the streams that one event loop waits on."""

    def __init__(self, wakeup: RedisWakeup, connect: AsyncFactory, audience: Audience) -> None:
        self._wakeup = wakeup
        self._connect = connect
        self._audience = audience
        self._streams: set[int] = set()
        self._confirmations: dict[int, asyncio.Future[None]] = {}
        self._pubsub: redis.asyncio.client.PubSub | None = None
        self._answers = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    async def subscribe(self, stream_id: int) -> None:
        self._streams.add(stream_id)
        confirmed = self._confirmations[stream_id] = asyncio.get_running_loop().create_future()
        try:
            await self._send("subscribe", [stream_id])
            if self._answers:
                await asyncio.wait_for(confirmed, CONFIRM_SECONDS)
        except TimeoutError as error:
            self._answers = False
            self._wakeup.lost(error)
        finally:
            self._confirmations.pop(stream_id, None)

    def unsubscribe(self, stream_id: int) -> None:
        self._streams.discard(stream_id)
        task = asyncio.get_running_loop().create_task(self._send("unsubscribe", [stream_id]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        self._listening.cancel()

    async def _send(self, command: str, stream_ids: Iterable[int]) -> None:
        """Subscribe or unsubscribe where there is a connection; a new one subscribes to everything by itself."""
        pubsub = self._pubsub
        channels = [self._wakeup.channel(stream_id) for stream_id in stream_ids]
        if pubsub is None or not channels:
            return
        try:
            await (pubsub.subscribe(*channels) if command == "subscribe" else pubsub.unsubscribe(*channels))
        except (redis.RedisError, OSError) as error:
            logger.debug("%s failed: %s", command, error)

    async def _listen(self) -> None:
        backoff = MIN_BACKOFF
        while True:
            client = self._connect()
            try:
                async with client, client.pubsub() as pubsub:
                    # A channel of its own keeps the connection subscribed while nobody waits.
                    await pubsub.subscribe(self._wakeup.channel(0))
                    self._pubsub = pubsub
                    await self._send("subscribe", list(self._streams))
                    async for message in pubsub.listen():
                        backoff = MIN_BACKOFF
                        self._take(message)
            except (redis.RedisError, OSError) as error:
                self._wakeup.lost(error)
            finally:
                self._pubsub = None
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF)

    def _take(self, message: dict[str, object]) -> None:
        channel = message["channel"]
        assert isinstance(channel, bytes)
        stream_id = int(channel.rpartition(b":")[2])
        self._wakeup.found()
        self._answers = True
        if message["type"] == "message":
            data = message["data"]
            assert isinstance(data, bytes)
            try:
                self._audience.receive(stream_id, _decoder.decode(data))
            except msgspec.DecodeError:
                logger.warning("A message on %s is not one of ours.", channel)
        elif message["type"] == "subscribe":
            confirmed = self._confirmations.get(stream_id)
            if confirmed is not None and not confirmed.done():
                confirmed.set_result(None)
            if stream_id == 0:
                self._audience.look_again()  # whatever came while there was no connection

"""Listening to Redis for one event loop. Reconnects by itself, and notices where nothing is heard any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import redis
import redis.asyncio

from .base import Audience, News, Subscriber
from .connections import Connect
from .outage import Outage

logger = logging.getLogger(__name__)

CONFIRM_SECONDS = 0.5
"""How long a reader waits until its subscription is confirmed."""

QUIET_SECONDS = 2.0
"""After this time without a message Redis is asked whether it is there, and has as long to say so."""

MIN_BACKOFF, MAX_BACKOFF = 0.1, 1.0
"""Seconds between attempts to connect."""

_decoder = msgspec.msgpack.Decoder(News)


class RedisSubscriber(Subscriber):
    """Listens to the channels of the streams that one event loop waits on.

    Args:
        channel: returns the name of a stream's channel.
        connect: makes a client.
        outage: is told whether Redis answers.
        audience: gets the news.
    """

    def __init__(
        self,
        channel: Callable[[int], str],
        connect: Connect,
        outage: Outage,
        audience: Audience,
    ) -> None:
        self._channel = channel
        self._connect = connect
        self._outage = outage
        self._audience = audience
        self._streams: set[int] = set()
        self._confirmations: dict[int, asyncio.Future[None]] = {}
        self._pubsub: redis.asyncio.client.PubSub | None = None
        self._answers = True
        self._is_confirmed = False
        """Whether this connection is subscribed to all that is wanted."""
        self._failure = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    @property
    def hears(self) -> bool:
        return self._is_confirmed and self._answers

    async def subscribe(self, stream_id: int) -> None:
        self._streams.add(stream_id)
        confirmed = self._confirmations[stream_id] = asyncio.get_running_loop().create_future()
        self._spawn(self._tell(stream_id))
        try:
            if self._answers:
                async with asyncio.timeout(CONFIRM_SECONDS):
                    await confirmed
        except TimeoutError:
            self._answers = False
            self._outage.lost(self, f"a subscription was not confirmed within {CONFIRM_SECONDS} s")
        finally:
            self._confirmations.pop(stream_id, None)

    def unsubscribe(self, stream_id: int) -> None:
        self._streams.discard(stream_id)
        self._spawn(self._tell(stream_id))

    def close(self) -> None:
        self._listening.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, stream_id: int) -> None:
        """Tell Redis whether a stream is wanted now. Where there is no connection, the next one begins with that."""
        pubsub = self._pubsub
        if pubsub is None:
            return
        send = pubsub.subscribe if stream_id in self._streams else pubsub.unsubscribe
        try:
            await send(self._channel(stream_id))
        except (redis.RedisError, OSError) as error:  # whoever listens notices, too
            logger.debug("Telling Redis of stream %d failed: %s", stream_id, error)

    async def _listen(self) -> None:
        backoff = MIN_BACKOFF
        while True:
            try:
                async with self._connect() as client, client.pubsub() as pubsub:
                    await pubsub.connect()
                    self._pubsub = pubsub
                    # The last channel is nobody's: it keeps the connection subscribed while nobody waits, and when it
                    # is confirmed, so are those before it.
                    await pubsub.subscribe(*(self._channel(stream_id) for stream_id in [*self._streams, 0]))
                    backoff = MIN_BACKOFF
                    await self._hear(pubsub)
            except (redis.RedisError, OSError) as error:
                self._answers = False
                self._outage.lost(self, error)
            except Exception as error:  # it must outlive every bug
                self._answers = False
                if repr(error) != self._failure:  # the same one comes again with every attempt
                    self._failure = repr(error)
                    logger.exception("Listening to Redis failed. Readers learn from the database what others commit.")
            finally:
                self._pubsub = None
                self._is_confirmed = False
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF)

    async def _hear(self, pubsub: redis.asyncio.client.PubSub) -> None:
        """Take messages until there is an error, or silence."""
        asked = False
        while True:
            message = await pubsub.get_message(timeout=QUIET_SECONDS)
            if message is not None:
                asked = False
                self._take(message)
            elif asked:
                raise redis.TimeoutError(f"nothing was heard for {2 * QUIET_SECONDS:.0f} s")
            else:
                asked = True
                await pubsub.ping()

    def _take(self, message: dict[str, Any]) -> None:
        if not self._answers:
            self._answers = True
            self._outage.found(self)
        kind, channel = message["type"], message["channel"]
        if kind not in ("message", "subscribe"):
            return
        stream_id = int(channel.rpartition(b":")[2])
        if kind == "message":
            try:
                self._audience.receive(stream_id, _decoder.decode(message["data"]))
            except msgspec.DecodeError:
                logger.warning("A message on %s is not one of ours.", channel)
            return
        confirmed = self._confirmations.get(stream_id)
        if confirmed is not None and not confirmed.done():
            confirmed.set_result(None)
        if stream_id == 0:
            self._is_confirmed = True
            self._outage.found(self)
            self._audience.look_again()  # whatever came while there was no connection

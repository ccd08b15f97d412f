"""Listening to Redis for one event loop. Reconnects by itself, and notices where nothing is heard any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import msgspec
import redis
import redis.asyncio

from .base import Subscriber, WakeUpListener, WakeUpMessage
from .connections import Connect
from .outage import OutageLog
from .signing import MessageSigner, SignerLoader

logger = logging.getLogger(__name__)

CONFIRM_SECONDS = 0.5
"""How long a reader waits until its subscription is confirmed."""

QUIET_SECONDS = 2.0
"""After this time without a message Redis is asked whether it is there, and has as long to say so."""

IDENTITY_SECONDS = 1.0
"""How long it waits at a time until it is known which database this is."""

MIN_BACKOFF, MAX_BACKOFF = 0.1, 1.0
"""Seconds between attempts to connect."""

_decoder = msgspec.msgpack.Decoder(WakeUpMessage)


class RedisSubscriber(Subscriber):
    """Listens to the channels of the streams that one event loop waits on.

    Args:
        loader: has what names channels and verifies messages.
        connect: makes a client.
        outage: is told whether Redis answers.
        audience: gets the news.
    """

    def __init__(
        self,
        loader: SignerLoader,
        connect: Connect,
        outage: OutageLog,
        audience: WakeUpListener,
    ) -> None:
        self._loader = loader
        self._signer: MessageSigner | None = None
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
        pubsub, signer = self._pubsub, self._signer
        if pubsub is None or signer is None:
            return
        send = pubsub.subscribe if stream_id in self._streams else pubsub.unsubscribe
        try:
            await send(signer.channel(stream_id))
        except (redis.RedisError, OSError) as error:  # whoever listens notices, too
            logger.debug("Telling Redis of stream %d failed: %s", stream_id, error)

    async def _listen(self) -> None:
        signer = self._signer = await self._load()
        backoff = MIN_BACKOFF
        while True:
            try:
                async with self._connect() as client, client.pubsub() as pubsub:
                    await pubsub.connect()
                    self._pubsub = pubsub
                    # The last channel is nobody's: it keeps the connection subscribed while nobody waits, and when it
                    # is confirmed, so are those before it.
                    await pubsub.subscribe(*map(signer.channel, [*self._streams, 0]))
                    backoff = MIN_BACKOFF
                    await self._hear(pubsub, signer)
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

    async def _load(self) -> MessageSigner:
        while True:
            signer = await asyncio.to_thread(self._loader.get, IDENTITY_SECONDS)
            if signer is not None:
                return signer
            await asyncio.sleep(MAX_BACKOFF)

    async def _hear(self, pubsub: redis.asyncio.client.PubSub, signer: MessageSigner) -> None:
        """Take messages until there is an error, or silence."""
        asked = False
        while True:
            message = await pubsub.get_message(timeout=QUIET_SECONDS)
            if message is not None:
                asked = False
                self._take(message, signer)
            elif asked:
                raise redis.TimeoutError(f"nothing was heard for {2 * QUIET_SECONDS:.0f} s")
            else:
                asked = True
                await pubsub.ping()

    def _take(self, message: dict[str, Any], signer: MessageSigner) -> None:
        if not self._answers:
            self._answers = True
            self._outage.found(self)
        kind, channel = message["type"], message["channel"]
        if kind not in ("message", "subscribe"):
            return
        stream_id = signer.stream_id(channel)
        if stream_id is None:
            return
        if kind == "message":
            news = _read(signer, channel, message["data"])
            if news is not None:
                self._audience.receive(stream_id, news)
            return
        confirmed = self._confirmations.get(stream_id)
        if confirmed is not None and not confirmed.done():
            confirmed.set_result(None)
        if stream_id == 0:
            self._is_confirmed = True
            self._outage.found(self)
            self._audience.look_again()  # whatever came while there was no connection


def _read(signer: MessageSigner, channel: bytes, message: object) -> WakeUpMessage | None:
    """Return the news that a message has, or None where it is not to be believed."""
    payload = signer.verify(channel, message)
    if payload is None:
        return None
    try:
        news = _decoder.decode(payload)
    except msgspec.DecodeError:  # another release of this package, most likely
        news = None
    if news is None or not news.is_sound:
        signer.warn(channel, "has no news that this release can read")
        return None
    return news

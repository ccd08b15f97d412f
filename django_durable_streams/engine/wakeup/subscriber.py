"""The Redis subscriber of one event loop. It reconnects, and notices a silent Redis.

After each connection it has the listener poll, because messages may have been lost meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
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
"""How long a reader waits for the confirmation of its subscription."""

QUIET_SECONDS = 2.0
"""Time without a message after which the subscriber sends a PING, and the time that Redis has to reply."""

IDENTITY_SECONDS = 1.0
"""How long one attempt to load the identity of the database waits."""

MIN_BACKOFF, MAX_BACKOFF = 0.1, 1.0
"""Seconds between two attempts to connect, at first and at most."""

_decoder = msgspec.msgpack.Decoder(WakeUpMessage)


class RedisSubscriber(Subscriber):
    """Receives the messages about the watched streams of one event loop.

    Args:
        loader: loads the signer, which names channels and verifies messages.
        connect: makes a Redis client.
        outage: logs whether Redis answers.
        explain: returns what Redis does, and why, for the log.
        listener: gets the messages.
    """

    def __init__(
        self,
        loader: SignerLoader,
        connect: Connect,
        outage: OutageLog,
        explain: Callable[[Exception], str],
        listener: WakeUpListener,
    ) -> None:
        self._loader = loader
        self._signer: MessageSigner | None = None
        self._connect = connect
        self._outage = outage
        self._explain = explain
        self._listener = listener
        self._streams: set[int] = set()
        self._confirmations: dict[int, asyncio.Future[None]] = {}
        self._pubsub: redis.asyncio.client.PubSub | None = None
        self._answers = True
        self._is_confirmed = False
        """Whether this connection is subscribed to all watched streams."""
        self._failure = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    @property
    def is_receiving(self) -> bool:
        signer = self._signer
        return self._is_confirmed and self._answers and signer is not None and self._loader.is_current(signer)

    async def subscribe(self, stream_id: int) -> None:
        self._streams.add(stream_id)
        confirmed = self._confirmations[stream_id] = asyncio.get_running_loop().create_future()
        self._spawn(self._update(stream_id))
        try:
            if self._answers:
                async with asyncio.timeout(CONFIRM_SECONDS):
                    await confirmed
        except TimeoutError:
            self._answers = False
            self._outage.report_failure(
                self, f"Redis does not answer (a subscription was not confirmed within {CONFIRM_SECONDS} s)"
            )
        finally:
            self._confirmations.pop(stream_id, None)

    def unsubscribe(self, stream_id: int) -> None:
        self._streams.discard(stream_id)
        self._spawn(self._update(stream_id))

    def close(self) -> None:
        self._listening.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _update(self, stream_id: int) -> None:
        """Subscribe to a stream or unsubscribe from it. A later connection begins with all wanted streams."""
        pubsub, signer = self._pubsub, self._signer
        if pubsub is None or signer is None:
            return
        send = pubsub.subscribe if stream_id in self._streams else pubsub.unsubscribe
        try:
            await send(signer.channel(stream_id))
        except (redis.RedisError, OSError) as error:  # `_listen` notices it, too
            logger.debug("A change of the subscription to stream %d failed: %s", stream_id, error)

    async def _listen(self) -> None:
        backoff = MIN_BACKOFF
        while True:
            signer = self._signer = await self._load()
            try:
                async with self._connect() as client, client.pubsub() as pubsub:
                    await pubsub.connect()
                    self._pubsub = pubsub
                    # Channel 0 has no stream. It keeps the connection subscribed while no stream is watched, and its
                    # confirmation implies the confirmation of all others.
                    await pubsub.subscribe(*map(signer.channel, [*self._streams, 0]))
                    backoff = MIN_BACKOFF
                    await self._receive(pubsub, signer)
            except (redis.RedisError, OSError) as error:
                self._answers = False
                self._outage.report_failure(self, self._explain(error))
            except Exception as error:  # the task must outlive every bug
                self._answers = False
                if repr(error) != self._failure:  # every attempt fails in the same way
                    self._failure = repr(error)
                    logger.exception(
                        "The Redis subscriber failed, and tries again. Until then readers poll the database."
                    )
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

    async def _receive(self, pubsub: redis.asyncio.client.PubSub, signer: MessageSigner) -> None:
        """Handle messages until an error occurs, Redis is silent, or the database is another one."""
        has_pinged = False
        while True:
            message = await pubsub.get_message(timeout=QUIET_SECONDS)
            # Before the message counts: the process may have another server now.
            if not self._loader.is_current(signer):
                earlier, signer = signer, await self._load()
                if signer.channel(0) != earlier.channel(0):
                    return
                self._signer = signer
            if message is not None:
                has_pinged = False
                self._handle(message, signer)
            elif has_pinged:
                raise redis.TimeoutError(f"no message and no reply for {2 * QUIET_SECONDS:.0f} s")
            else:
                has_pinged = True
                await pubsub.ping()

    def _handle(self, message: dict[str, Any], signer: MessageSigner) -> None:
        if not self._answers:
            self._answers = True
            self._outage.report_success(self)
        kind, channel = message["type"], message["channel"]
        if kind not in ("message", "subscribe"):
            return
        stream_id = signer.stream_id(channel)
        if stream_id is None:
            return
        if kind == "message":
            wake_up = _read(signer, channel, message["data"])
            if wake_up is not None:
                self._listener.receive(stream_id, wake_up)
            return
        confirmed = self._confirmations.get(stream_id)
        if confirmed is not None and not confirmed.done():
            confirmed.set_result(None)
        if stream_id == 0:
            self._is_confirmed = True
            self._outage.report_success(self)
            self._listener.poll_all()  # commits without a connection had no messages


def _read(signer: MessageSigner, channel: bytes, data: object) -> WakeUpMessage | None:
    """Return the message in signed data. None: the signature is wrong, or the message is impossible.

    A message from another server of databases is only a hint.
    """
    payload = signer.verify(channel, data)
    if payload is None or not isinstance(data, bytes):
        return None
    try:
        message = _decoder.decode(payload)
    except msgspec.DecodeError:  # most likely another release of this package has sent it
        message = None
    if message is None or not message.is_sound:
        signer.warn(channel, "has a content that this release cannot read. Run one release in all processes.")
        return None
    return message if signer.has_sender_at_this_server(data) else message.as_hint()

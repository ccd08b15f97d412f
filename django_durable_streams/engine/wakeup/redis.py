"""The wake-up backend with Redis pub/sub: one channel for each stream with live readers.

Correctness does not depend on Redis. A lost message, or a Redis that is down or frozen, delays readers of other
processes until the next poll (`POLL_INTERVAL`). Requests never wait for Redis.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from itertools import chain
from threading import Condition, main_thread

import msgspec
import redis
from django.core.exceptions import ImproperlyConfigured

from ...runtime.after_commit import follow_up
from ...runtime.queue_thread import QueueThread
from ...store.operations import Commit
from .base import (
    DELIVERY_CHANNEL,
    STOP_SECONDS,
    TEST_CHANNEL,
    Wakeup,
    WakeUpListener,
    WakeUpMessage,
    WakeupProblem,
)
from .connections import describe, from_cache, from_url, is_refused_login
from .outage import OutageLog
from .signing import MessageSigner, SignerLoader
from .subscriber import RedisSubscriber

logger = logging.getLogger(__name__)

MAX_PAYLOAD = 8 * 1024
"""Largest data, in bytes, that a message carries. With more data, the process of the readers reads it once."""

MAX_QUEUED = 1_000
MAX_QUEUED_BYTES = 16 * 1024 * 1024
"""Batches of commits that may wait to be published, and the bytes of their data. Readers learn of further commits by
polling."""

IDENTITY_SECONDS = 1.0
"""How long `publish_now` waits for the identity of the database."""

REST_SECONDS = 1.0
"""How long nothing is published after Redis has not answered."""

_encoder = msgspec.msgpack.Encoder()

_LINKED_COMMIT = _encoder.encode(WakeUpMessage(0, 0, 0, False, False, None, []))
"""Tells deliveries that there may be work."""


class RedisWakeup(Wakeup):
    """Publishes commits, and subscribes to those of other processes.

    Args:
        using: alias of the database.
        cache: alias in CACHES with the backend django-redis, whose connection settings are used.
        url: the URL of Redis, instead of a cache.
        prefix: of the channels' names.
    """

    def __init__(
        self, using: str, cache: str | None = None, url: str | None = None, prefix: str = "durable-streams"
    ) -> None:
        if (cache is None) == (url is None):
            raise ImproperlyConfigured("RedisWakeup takes either CACHE, an alias in CACHES, or URL, and not both.")
        self._client, self._connect, scope = from_url(url) if url is not None else from_cache(cache or "")
        # Two projects on one Redis have the same stream ids, so the scope is a part of the channels' names.
        self._loader = SignerLoader(using, partial(MessageSigner, prefix, scope))
        self._thread: QueueThread[list[Commit]] = QueueThread("durable-streams-publish", self._publish_waiting)
        self._prefix = prefix
        self._unsent = 0
        """Batches of commits that the thread has not finished with, and the bytes of their data."""
        self._unsent_bytes = 0
        self._changed = Condition()
        self._rests_until = 0.0
        self.outage = OutageLog(
            logger,
            "%s. Until this ends, readers learn of commits of other processes by polling.",
            "Redis answers again. Readers learn of commits of other processes at once.",
        )

    def publish(self, commits: list[Commit]) -> None:
        """Send messages about commits soon, from a thread of the backend.

        Where a thread cannot start or would not get to its work, because Python is about to end, the caller sends them.

        Raises:
            RuntimeError: the identity of the database is unknown, and no thread can start to read it.
        """
        if not self._thread.is_running and not main_thread().is_alive():
            self.publish_now(commits)
            return
        size = size_of(commits)
        with self._changed:
            has_room = not self._unsent_bytes or self._unsent_bytes + size <= MAX_QUEUED_BYTES
            if not has_room or len(self._thread) >= MAX_QUEUED:
                return
            self._unsent += 1
            self._unsent_bytes += size
        try:
            self._loader.prepare()
            self._thread.put(commits)
        except RuntimeError:
            self._release(1, size)
            self.publish_now(commits)

    def publish_now(self, commits: list[Commit]) -> None:
        """Send messages about commits. Waits a second or so for Redis, and not at all shortly after a failure."""
        if time.monotonic() < self._rests_until:
            return
        try:
            signer = self._loader.get(IDENTITY_SECONDS)
            if signer is None:
                return
            pipeline = self._client.pipeline(transaction=False)
            for commit in commits:
                channel = signer.channel(commit.stream_id)
                pipeline.publish(channel, signer.sign(channel, encode(commit)))
            if any(commit.concerns_delivery for commit in commits):
                channel = signer.channel(DELIVERY_CHANNEL)
                pipeline.publish(channel, signer.sign(channel, _LINKED_COMMIT))
            # Otherwise the text of an error would have the command, with the bytes of the message.
            for outcome in pipeline.execute(raise_on_error=False):
                if isinstance(outcome, Exception):
                    raise outcome
        except (redis.RedisError, OSError) as error:
            self._rests_until = time.monotonic() + REST_SECONDS
            self.outage.report_failure("publisher", self._explain(error))
        else:
            self.outage.report_success("publisher")

    def subscriber(self, listener: WakeUpListener) -> RedisSubscriber:
        """Return a subscriber for the running event loop."""
        return RedisSubscriber(self._loader, self._connect, self.outage, self._explain, listener)

    def find_problem(self) -> WakeupProblem | None:
        """Return why Redis takes no messages. Without the database only a connection is tried."""
        try:
            signer = self._loader.get(IDENTITY_SECONDS)
            if signer is None:
                self._client.ping()
            else:
                self._client.publish(signer.channel(TEST_CHANNEL), b"")
        except (redis.RedisError, OSError) as error:
            return WakeupProblem(f"{describe(error)}.", self._remedy(error))
        return None

    def wait_until_sent(self, seconds: float) -> None:
        """Wait until the thread has nothing to do, some seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unsent, seconds)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Publish the queued commits and end the thread, or leave it after some seconds."""
        self._thread.stop(seconds)
        self._client.close()

    def _publish_waiting(self, commits: list[Commit]) -> None:
        batches = [commits, *self._thread.take_waiting()]
        batch = [*chain.from_iterable(batches)]
        try:
            follow_up(
                "Readers of other processes learn of the commit by polling. Check WAKEUP.", self.publish_now, batch
            )
        finally:
            self._release(len(batches), size_of(batch))

    def _explain(self, error: Exception) -> str:
        """Return what Redis does, why, and what to do, for the log."""
        return f"{describe(error)}. {self._remedy(error)}".rstrip(". ")

    def _remedy(self, error: Exception) -> str:
        if is_refused_login(error):
            return "Correct the user and the password of Redis in the settings."
        if isinstance(error, redis.exceptions.NoPermissionError):
            channels = f"the channels {self._prefix}:*"
            return f"Allow the user of Redis PING, SELECT, PUBLISH, SUBSCRIBE and UNSUBSCRIBE, and {channels}."
        return ""

    def _release(self, count: int, size: int) -> None:
        with self._changed:
            self._unsent -= count
            self._unsent_bytes -= size
            self._changed.notify_all()


def size_of(commits: list[Commit]) -> int:
    """Return the size of the data of commits, in bytes."""
    return sum([commit.tail - commit.start for commit in commits])


def encode(commit: Commit) -> bytes:
    """Return a commit as a message."""
    carries_data = commit.tail - commit.start <= MAX_PAYLOAD
    return _encoder.encode(
        WakeUpMessage(
            commit.generation,
            commit.start,
            commit.tail,
            commit.closed,
            commit.removed,
            commit.data() if carries_data else None,
            [*commit.ends] if carries_data else [],
            time.time_ns() // 1000,
        )
    )

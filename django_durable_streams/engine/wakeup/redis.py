"""Wake-ups through Redis pub/sub: one channel for each stream that somebody waits on.

Nothing here is relied on. A message that is lost, or a Redis that is down or frozen, costs readers of other processes
the time until the next look at the database (`POLL_INTERVAL`); appends never wait for it.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread

import msgspec
import redis
from django.core.exceptions import ImproperlyConfigured

from ...runtime.after_commit import follow_up
from ...store.operations import Commit
from .base import Wakeup, WakeUpListener, WakeUpMessage
from .connections import from_cache, from_url
from .outage import OutageLog
from .signing import MessageSigner, SignerLoader
from .subscriber import RedisSubscriber

logger = logging.getLogger(__name__)

MAX_PAYLOAD = 8 * 1024
"""Bytes of a commit that travel along. With more, the readers' process reads them once for all."""

MAX_QUEUED = 1_000
MAX_QUEUED_BYTES = 16 * 1024 * 1024
"""Batches of commits that may wait to be published, and the data in them; what comes on top is left for readers to find
by themselves."""

IDENTITY_SECONDS = 1.0
"""How long who publishes first waits until it is known which database this is."""

REST_SECONDS = 1.0
"""How long nothing is published after Redis has not answered: callers in Python must not wait for it each time."""

_encoder = msgspec.msgpack.Encoder()


class RedisWakeup(Wakeup):
    """Publishes commits, and subscribes to those of other processes.

    Args:
        using: alias of the database.
        cache: alias in CACHES whose backend is django-redis, for its connection.
        url: of Redis, instead of a cache.
        prefix: of the channels' names.
    """

    def __init__(
        self, using: str, cache: str | None = None, url: str | None = None, prefix: str = "durable-streams"
    ) -> None:
        if (cache is None) == (url is None):
            raise ImproperlyConfigured("RedisWakeup takes either CACHE, an alias in CACHES, or URL.")
        self._client, self._connect, scope = from_url(url) if url is not None else from_cache(cache or "")
        # Two projects on one Redis number their streams alike: the news of one must not reach the other's readers.
        self._loader = SignerLoader(using, partial(MessageSigner, prefix, scope))
        self._queue: SimpleQueue[list[Commit] | None] = SimpleQueue()
        self._queued_bytes = 0
        self._thread: Thread | None = None
        self._lock = Lock()
        self._rests_until = 0.0
        self.outage = OutageLog(
            logger,
            "Redis does not answer (%s). Readers learn what other processes commit from the database until it does.",
            "Redis answers again. Readers learn at once what other processes commit.",
        )

    def publish(self, commits: list[Commit]) -> None:
        """Send news soon, from a thread of the backend."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = Thread(target=self._run, name="durable-streams-publish", daemon=True)
                    thread.start()  # may fail, as at the end of Python; the next commit tries again
                    self._thread = thread
        size = size_of(commits)
        with self._lock:
            has_room = not self._queued_bytes or self._queued_bytes + size <= MAX_QUEUED_BYTES
            if not has_room or self._queue.qsize() >= MAX_QUEUED:
                return
            self._queued_bytes += size
        self._queue.put(commits)

    def publish_now(self, commits: list[Commit]) -> None:
        """Send news, waiting for Redis for a second or so, and not at all for a while after it has not answered."""
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
            pipeline.execute()
        except (redis.RedisError, OSError) as error:
            self._rests_until = time.monotonic() + REST_SECONDS
            self.outage.lost("publisher", error)
        else:
            self.outage.found("publisher")

    def subscriber(self, audience: WakeUpListener) -> RedisSubscriber:
        """Return what listens for the running event loop."""
        return RedisSubscriber(self._loader, self._connect, self.outage, audience)

    def check(self) -> bool:
        """Return whether Redis answers."""
        try:
            return bool(self._client.ping())
        except (redis.RedisError, OSError):
            return False

    def stop(self) -> None:
        """End the publishing thread, after what is queued."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(timeout=2)
        self._client.close()

    def _run(self) -> None:
        commits = self._queue.get()
        while commits is not None:
            batch = list(commits)
            more: list[Commit] | None = []
            while more is not None and not self._queue.empty():
                more = self._queue.get()
                batch += more or ()
            follow_up("Readers of other processes find the news by themselves: see WAKEUP.", self.publish_now, batch)
            with self._lock:
                self._queued_bytes -= size_of(batch)
            commits = None if more is None else self._queue.get()


def size_of(commits: list[Commit]) -> int:
    """Return how much data commits carry, in bytes."""
    return sum([commit.tail - commit.start for commit in commits])


def encode(commit: Commit) -> bytes:
    """Return a commit as a message."""
    along = commit.tail - commit.start <= MAX_PAYLOAD
    return _encoder.encode(
        WakeUpMessage(
            commit.generation,
            commit.start,
            commit.tail,
            commit.closed,
            commit.removed,
            commit.data() if along else None,
            [*commit.ends] if along else [],
        )
    )

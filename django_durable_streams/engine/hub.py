"""The hub: the watches of one event loop, and the queries that keep them up to date.

No commit falls between a reader's query and its wait. A watch is registered before the query that it begins with, so
commits since then arrive as news. A reader that joins an existing watch compares its position with the watch's tail.
If that first query fails, readers wait all the same. Each tick repeats it, so a commit comes late, and none is missed.

These conditions of a watch may hold together:

- starting: `ready` is set, and its first query is under way. Readers that join wait for it.
- unconfirmed: its first query has failed (`is_unconfirmed`).
- current, as far as the process knows. Commits of this process are fed in, and those of others arrive as messages. One
  query for all watched streams, every `POLL_INTERVAL`, finds commits without a message (`polling` says what is due).
- behind: a message, a poll or a reader's query shows more. `_catch_up` reads it.
- ended: the stream is gone, or the database has lost a part of it. Later readers get another watch.
- idle: it has no reader. After `LINGER_SECONDS` the hub forgets it.

Knows no request, and knows readers only as `Listener`. Use it in its event loop only, unless a method says otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from ..conf import config
from ..protocol.errors import DurableStreamsError, OffsetGone
from ..protocol.segments import Segment
from ..runtime.servers import RunningServer
from ..runtime.shutdown import add_live_reader, remove_live_reader, stop_reader
from ..runtime.timeouts import Timeouts
from ..store.operations import Commit
from ..store.stream_info import StreamInfo
from .fan_out import FanOut, Listener
from .hub_engine import HubEngine
from .numbers import MESSAGE, OWN, HubNumbers
from .polling import PollSchedule, needs_renewal
from .snapshot_reader import Snapshot
from .wakeup.base import Subscriber, WakeUpMessage
from .watch import Watch

__all__ = ["Hub", "Listener", "Watch"]

logger = logging.getLogger(__name__)

MAX_POLLED = 1000
"""Streams in one query of the poll."""

MESSAGE_GRACE_SECONDS = 0.1
"""How long a poll waits for the wake-up messages of the commits that it has found, which may be on their way."""

LINGER_SECONDS = 3.0
"""How long a watch outlives its last reader. A long-poll's client comes back after a round trip, and joins again."""


class Hub:
    """All watches of the running event loop. The engine is their access to the database."""

    def __init__(self, engine: HubEngine, numbers: HubNumbers | None = None) -> None:
        self.subscriber: Subscriber | None = None
        """None: the backend sends no messages, or the loop ends with its request."""
        self.loop = asyncio.get_running_loop()
        self.timeouts = Timeouts(self.loop)
        self._engine = engine
        self._numbers = numbers or HubNumbers()
        self._watches: dict[int, Watch] = {}
        self._polls = PollSchedule()
        self._fan_out = FanOut()
        self._ticker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def is_watched(self, stream_id: int, by: int = 0) -> bool:
        """Return whether a stream has a watch here, with so many readers at least. Safe to call from any thread."""
        return (watch := self._watches.get(stream_id)) is not None and len(watch.listeners) >= by

    def watches(self) -> list[Watch]:
        """Return the present watches. Safe to call from any thread."""
        return list(self._watches.values())

    async def join(
        self, info: StreamInfo, listener: Listener, servers: Sequence[RunningServer] = (), *, seen_at: float = 0.0
    ) -> Watch:
        """Register a listener on a stream, and return the stream's watch.

        A new watch has a query that began after the registration. If the database does not answer, that query is
        repeated later. An existing watch may be behind `info`, and then a query is under way. The watch that is
        returned may have ended meanwhile (`Watch.ended`): query the stream again.

        Args:
            info: the stream, as a query of the reader has shown it.
            servers: the servers that the listener depends on, beyond those of the event loop. The listener is stopped
                when one of them ends.
            seen_at: when that query began, in monotonic seconds, to detect lost data. 0: it is not known.
        """
        watch = self._watches.get(info.id)
        if watch is not None and (watch.ended or watch.is_ahead_of(info, seen_at)):
            self._discard(watch)
            watch = None
        if watch is None:
            watch = self._watches[info.id] = Watch(info, self._fan_out)
            watch.ready = asyncio.ensure_future(self._start(watch))
            if self._ticker is None or self._ticker.done():
                self._ticker = self.loop.create_task(self._tick())
        watch.listeners.add(listener)
        add_live_reader(listener, servers)
        watch.idle_since = None
        if watch.ready is not None:
            try:
                await asyncio.shield(watch.ready)
            except BaseException:
                self.leave(watch, listener)
                raise
        if watch.lags_behind(info) and not watch.ended:
            self._catch_up_soon(watch)
        return watch

    def leave(self, watch: Watch, listener: Listener) -> None:
        """Remove a listener. Does nothing if the listener has left already."""
        if listener in watch.listeners:
            watch.listeners.remove(listener)
            remove_live_reader(self.loop, listener)
        if not watch.listeners:
            watch.idle_since = time.monotonic()

    def stop(self) -> None:
        """Ask all present readers to end."""
        for watch in list(self._watches.values()):
            for listener in list(watch.listeners):
                stop_reader(listener)

    def close(self) -> None:
        """End all present readers, and the subscriber with its connection: the engine stops, and the loop may go on."""
        self.stop()
        if self.subscriber is not None:
            self.subscriber.close()
            self.subscriber = None

    # Commits.

    def feed(self, commits: list[Commit], committed_at: float = 0.0) -> None:
        """Apply commits of this process, made at a monotonic time. 0: it is not known."""
        for commit in commits:
            watch = self._watches.get(commit.stream_id)
            if watch is not None and commit.generation != watch.info.generation:
                self._discard(watch)  # the database has lost the stream, and uses the id again
            elif watch is not None:
                segment = Segment(commit.start, commit.data(), commit.ends) if commit.appends else None
                if commit.removed or self._accepts(watch, commit.start, segment, commit.tail, closed=commit.closed):
                    watch.feed(commit.start, segment, commit.tail, closed=commit.closed, ended=commit.removed)
        if committed_at:
            self._numbers.lags[OWN].observe(time.monotonic() - committed_at)

    def receive(self, stream_id: int, message: WakeUpMessage) -> None:
        """Apply a wake-up message about a commit, which another process or this one has sent.

        Data is used only if it joins exactly to the watch. A message about an older commit is compared with the watch.
        Any other message leads to a query.
        """
        watch = self._watches.get(stream_id)
        if watch is None:
            return
        if message.sent_at:
            self._numbers.lags[MESSAGE].observe(max(time.time() - message.sent_at / 1e6, 0.0))
        segment = Segment(message.start, message.data, message.ends) if message.data else None
        if message.generation == watch.info.generation and not message.removed:
            if message.start == watch.tail and (segment is not None or message.start == message.tail):
                watch.feed(message.start, segment, message.tail, closed=message.closed)
                return
            if message.tail <= watch.tail and watch.closed >= message.closed:
                self._accepts(watch, message.start, segment, message.tail, closed=message.closed)
                return
        self._catch_up_soon(watch)

    def _accepts(self, watch: Watch, start: int, segment: Segment | None, tail: int, *, closed: bool) -> bool:
        """Return whether to feed a commit. If it contradicts the watch, the watch ends.

        If the data to compare with is not at hand, a query decides, and the commit is fed as well. That does no harm:
        its tail is not newer than that of the watch, so `Watch.feed` ignores its data.
        """
        agrees = watch.agrees(start, segment, tail, closed=closed)
        if agrees is False:
            self._discard(watch)
        elif agrees is None:
            self._catch_up_soon(watch)  # the commit comes late, or the database has lost data
        return agrees is not False

    def _discard(self, watch: Watch) -> None:
        """Forget a watch that knows data which the database does not have, or one that has ended already.

        Data is lost by the promotion of a standby without the last commits, or by a restored backup. SSE responses end.
        Other readers query the stream once more, and fail if their offset is gone. The next reader gets a new watch.
        """
        self._forget(watch)
        if not watch.ended:
            self._engine.report_data_loss(watch.info)
            watch.end()

    def _forget(self, watch: Watch) -> None:
        stream_id = watch.info.id
        if self._watches.get(stream_id) is watch:
            del self._watches[stream_id]
            if self.subscriber is not None:
                self.subscriber.unsubscribe(stream_id)

    async def fetch(self, watch: Watch, position: int) -> Snapshot:
        """Read a stream from a position, for a reader whose data the watch does not have.

        Raises:
            OffsetGone: the database has lost the data before the position.
            StreamNotFound, StreamGone: the stream was deleted or has expired.
            ServiceUnavailable: the database does not answer, or too many reads wait.
        """
        began = time.monotonic()
        try:
            snapshot = await self._engine.follow(watch.info, position)
        except OffsetGone:
            self._discard(watch)
            raise
        if watch.is_ahead_of(snapshot.info, began):
            self._discard(watch)
        return snapshot

    async def _start(self, watch: Watch) -> None:
        """Subscribe to messages, then query the stream again. If the database does not answer, `_tick` repeats that."""
        try:
            if self.subscriber is not None:
                await self.subscriber.subscribe(watch.info.id)
            watch.is_unconfirmed = True
            await self._catch_up(watch)
        except BaseException:
            self._forget(watch)  # the readers that wait get the error, and the next one a new watch
            raise
        watch.ready = None

    def _catch_up_soon(self, watch: Watch) -> None:
        """Query a stream, or query it again after the current query. At most one query waits."""
        watch.needs_query = True
        if not watch.is_catching_up:
            watch.is_catching_up = True
            self._spawn(self._catch_up_while_needed(watch))

    async def _catch_up_while_needed(self, watch: Watch) -> None:
        try:
            while watch.needs_query:
                watch.needs_query = False
                await self._catch_up(watch)
        finally:
            watch.is_catching_up = False

    async def _catch_up(self, watch: Watch) -> None:
        """Read a stream from the watch's tail and feed the watch. If the stream is gone, the watch ends."""
        try:
            snapshot = await self.fetch(watch, watch.tail)
        except OffsetGone:
            return
        except DurableStreamsError as error:
            if error.status < 500:
                watch.end()
            return  # a database that does not answer changes nothing
        watch.is_unconfirmed = False
        segment = snapshot.segment
        if segment is not None and (segment.start != watch.tail or not snapshot.up_to_date):
            segment = None  # more than a page, or a commit came meanwhile: readers fetch the data themselves
        watch.feed(snapshot.position, segment, snapshot.tail, closed=snapshot.closed)

    def poll_all(self) -> None:
        """Query all watched streams. The subscriber calls this after it has connected: messages may have been lost."""
        self._spawn(self._poll(list(self._watches)))

    async def _tick(self) -> None:
        """Poll the streams that are due, and let readers check their grant and deadline, until no stream is watched."""
        while self._watches:
            interval = config().poll_interval
            await asyncio.sleep(interval)
            await self._log_errors(self._poll_due(interval))
            for watch in self.watches():
                # The schedule may leave such a watch for seconds, while messages arrive.
                if watch.is_unconfirmed and watch.ready is None and not watch.ended:
                    self._catch_up_soon(watch)
            now = time.monotonic()
            for watch in list(self._watches.values()):
                for listener in list(watch.listeners):
                    try:
                        listener.tick(now)
                    except Exception:  # one listener must not stop the clock of all others
                        logger.exception(
                            "A live reader failed while it checked its grant and its deadline. All other readers go on."
                        )
                watch.drop_large(now)
                if watch.idle_since is not None and (now - watch.idle_since > LINGER_SECONDS or watch.ended):
                    self._forget(watch)

    async def _poll_due(self, interval: float) -> None:
        watched = {stream_id: watch.info for stream_id, watch in self._watches.items()}
        await self._poll(self._polls.due(watched, time.monotonic(), interval, receives=self._receives()))

    async def _poll(self, stream_ids: Sequence[int]) -> None:
        """Query watched streams, a limited number at a time, so that other reads come between."""
        for first in range(0, len(stream_ids), MAX_POLLED):
            await self._poll_together(stream_ids[first : first + MAX_POLLED])

    async def _poll_together(self, stream_ids: Sequence[int]) -> None:
        # A watch that starts during the query is not in the result, and its stream exists all the same.
        watches = [self._watches[stream_id] for stream_id in stream_ids if stream_id in self._watches]
        began = time.monotonic()
        self._numbers.polls += 1
        infos = await self._engine.query_status(tuple(watch.info.id for watch in watches))
        behind: list[tuple[Watch, StreamInfo]] = []
        for watch in watches:
            info = infos.get(watch.info.id)
            if info is None:
                watch.end()
                continue
            if watch.is_ahead_of(info, began):
                self._discard(watch)
                continue
            self._polls.seen(info)
            watch.forget_before(info.first_position)
            if watch.lags_behind(info):
                behind.append((watch, info))
            if watch.listeners and needs_renewal(info):
                self._engine.renew(info)
        if behind and self._receives():
            await asyncio.sleep(MESSAGE_GRACE_SECONDS)  # messages about the newest commits are on their way
            behind = [(watch, info) for watch, info in behind if watch.lags_behind(info)]
            if behind:
                self._polls.missed(time.monotonic())
        self._numbers.polls_with_news += bool(behind)
        # All at once, so that the snapshot reader answers them with one query.
        await asyncio.gather(*(self._catch_up(watch) for watch, _ in behind))

    def _receives(self) -> bool:
        """Return whether messages of other processes arrive now."""
        return self.subscriber is not None and self.subscriber.is_receiving

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(self._log_errors(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _log_errors(work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except DurableStreamsError as error:
            logger.debug("A query of the watched streams failed: %s", error)
        except Exception:  # the next poll is soon
            logger.exception("A query of the watched streams failed. The next poll tries again.")

"""The hub: who waits on which stream, and what has happened there lately. One for each event loop.

A reader registers before its last look at the database, so that nothing falls between the two. What this process
commits is fed in directly; everything else is found by one look for all watched streams every second or so, which also
makes up for any message that was lost on the way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from .. import clock
from ..conf import config
from ..protocol import content, sse, text
from ..protocol.errors import DurableStreamsError, OffsetGone
from ..protocol.segments import Segment
from ..runtime.servers import RunningServer
from ..runtime.shutdown import add_reader, remove_reader, stop_reader
from ..runtime.timeouts import Timeouts
from ..store.operations import Commit
from ..store.stream_info import StreamInfo
from .polling import PollSchedule
from .snapshot_reader import Snapshot
from .wakeup.base import Subscriber, WakeUpMessage

logger = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")

RING_BYTES = 256 * 1024
"""Recent data that is kept for a watched stream, beyond the newest segment."""

RING_SEGMENTS = 256
"""Commits that it may be: those of a few bytes take a hundred times as much memory as their data."""

MAX_ENCODED = 16
"""Encodings that are kept of what is new, for readers who are at the same place: clients choose their cursors."""

LARGE_EVENT_BYTES = 256 * 1024
"""An event from which on its control event is sent by itself, so that all readers share the event."""

STRIDE = 1000
TURN_SECONDS = 0.01
"""Listeners that are told in one turn of the event loop, and about how long that may take: each is sent what is new."""

MAX_LOOKED_AT = 1000
"""Streams that one query looks at."""

NEWS_SECONDS = 0.1
"""How long news may take from the commit to here."""

LINGER_SECONDS = 3.0
"""How long a stream stays watched after its last reader: long-polls come back at once."""


class Listener(Protocol):
    """Somebody who waits on a stream."""

    def notify(self) -> None:
        """Something has changed. Must not block."""

    def tick(self, now: float) -> None:
        """Called every second or so with the monotonic time."""

    def stop(self) -> None:
        """End soon: what serves this listener is about to. Must not block. May be called again."""


class Frame(NamedTuple):
    """What readers at a position get by SSE."""

    chunk: bytes
    """Empty where all that is new begins a character (see `protocol.text`). A large one lacks its control event."""
    is_large: bool
    end: int
    """The position behind what was looked at, of which `held` was held back."""
    held: bytes
    closed: bool
    is_cut: bool
    """Whether it begins with the rest of a character, for those who have not seen its beginning."""


class Watch:
    """A stream that is waited on: how far it goes, as this process knows, and its newest segments."""

    def __init__(self, info: StreamInfo) -> None:
        self.info = info
        self.tail = info.tail
        self.closed = info.closed
        self.removed = False
        """There will be no more news here: the stream is gone, or what was believed of it is not so. Look once more."""
        self.moved_at = time.monotonic()
        """When it was last learned that the stream goes further or is closed."""
        self.listeners: set[Listener] = set()
        self.shared_responses: dict[Any, Any] = {}
        """What listeners that are told of the same news have in common. Empty again once all are told."""
        self.after_notify: list[Callable[[], object]] = []
        """What is left to do for listeners that were told, once all are: those who wait come before it."""
        self.ready: asyncio.Future[None] | None = None
        self.is_catching_up = False
        self.is_behind = False
        self.idle_since: float | None = None
        self._frames: dict[tuple[int, int, bytes], Frame] = {}
        self._events: dict[tuple[int, bytes], tuple[bytes, bytes]] = {}
        self._ring: deque[Segment] = deque()
        self._ring_bytes = 0
        self._joined: dict[int, Segment] = {}
        self._views: dict[int, Snapshot] = {}

    def feed(self, start: int, segment: Segment | None, tail: int, *, closed: bool, removed: bool = False) -> None:
        """Take in what has been committed, and tell everybody who waits if it is news.

        Args:
            start: position where the commit began; `segment` is what it added, `tail` where it ended.
        """
        if tail > self.tail:
            if start != self.tail or segment is None:
                self._ring.clear()
                self._ring_bytes = 0
            if segment is not None:
                self._ring.append(segment)
                self._ring_bytes += len(segment.data)
                while len(self._ring) > RING_SEGMENTS or (self._ring_bytes > RING_BYTES and len(self._ring) > 1):
                    self._ring_bytes -= len(self._ring.popleft().data)
            self.tail = tail
        elif not (closed and not self.closed) and not removed:
            return
        self.moved_at = time.monotonic()
        self.closed = self.closed or closed
        self.removed = self.removed or removed
        self._frames.clear()
        self._events.clear()
        self._joined.clear()
        self._views.clear()
        self.shared_responses.clear()
        self._notify(list(self.listeners))

    def is_ahead_of(self, info: StreamInfo, seen_at: float) -> bool:
        """Whether more is believed here than a look at the database has shown that began at a (monotonic) time.

        What was known before it began had been committed by then. So the database has lost it since.
        """
        if info.generation != self.info.generation:
            return True
        return self.moved_at < seen_at and (info.tail < self.tail or (self.closed and not info.closed))

    def agrees(self, start: int, segment: Segment | None, tail: int, *, closed: bool) -> bool | None:
        """Whether a commit goes with what is believed here; None where that cannot be told from what is at hand."""
        if start >= self.tail:
            return True  # it is new
        if tail > self.tail or (closed and tail < self.tail):
            return False  # a commit is seen whole or not at all, and nothing comes after a close
        if segment is None:
            return True if start == tail else None
        for known in reversed(self._ring):
            if known.start <= start and tail <= known.end:
                return known.data[start - known.start : tail - known.start] == segment.data
        return None

    def _notify(self, listeners: list[Listener], first: int = 0) -> None:
        """Tell listeners, some at a time: a loop may hold back what was written until its turn is over."""
        until = time.monotonic() + TURN_SECONDS
        last = min(first + STRIDE, len(listeners))
        while first < last:
            try:
                listeners[first].notify()
            except Exception:  # one must not keep up the others
                logger.exception("A reader could not be told of news.")
            first += 1
            if time.monotonic() >= until:
                break
        if first < len(listeners):
            asyncio.get_running_loop().call_soon(self._notify, listeners, first)
            return
        self.shared_responses.clear()
        after_notify, self.after_notify = self.after_notify, []
        for each in after_notify:
            try:
                each()
            except Exception:
                logger.exception("What follows news has failed.")

    def after(self, position: int) -> Segment | None:
        """Return what was committed past a position, if it is still at hand and joins on exactly."""
        ring = self._ring
        if not ring or ring[-1].end != self.tail:
            return None
        if ring[-1].start == position:
            return ring[-1]
        known = self._joined.get(position)
        if known is None:
            parts = [segment for segment in ring if segment.start >= position]
            if not parts or parts[0].start != position:
                return None
            known = Segment.join(parts)
            _keep(self._joined, position, known)
        return known

    def view(self, position: int) -> Snapshot | None:
        """Return the stream as readers at a position see it now, the same object for all of them.

        None where there is data past the position that is not at hand.
        """
        known = self._views.get(position)
        if known is None:
            segment = self.after(position)
            if segment is None and self.tail > position:
                return None
            known = Snapshot(self.info, position, segment, max(self.tail, position), self.closed)
            _keep(self._views, position, known)
        return known

    def frame(self, position: int, cursor: int, held: bytes = b"") -> Frame | None:
        """Return what readers get by SSE who have looked up to a position, and have held some bytes back.

        It is encoded once for all of them. None where the data is not at hand.
        """
        known = self._frames.get((position, cursor, held))
        if known is None:
            segment = self.after(position)
            if segment is None:
                return None
            kind = self.info.content_type
            event, rest = self._event(segment, held)
            is_cut = text.is_cut(segment.data) and content.holds_text(kind)
            is_large = len(event) >= LARGE_EVENT_BYTES
            if event and not is_large:
                offset = self.info.token(segment.end - len(rest))
                event += sse.control_event(offset, cursor=cursor, up_to_date=True, closed=self.closed)
            known = Frame(event, is_large, segment.end, rest, self.closed, is_cut)
            _keep(self._frames, (position, cursor, held), known)
        return known

    def _event(self, segment: Segment, held: bytes) -> tuple[bytes, bytes]:
        """Return a segment as a data event behind some bytes that were held back, and what is held back of it."""
        known = self._events.get((segment.start, held))
        if known is None:
            known = segment.data_event(self.info.content_type, held, final=self.closed)
            _keep(self._events, (segment.start, held), known)
        return known


def _keep(kept: dict[K, V], key: K, value: V) -> None:
    if len(kept) >= MAX_ENCODED:
        kept.clear()
    kept[key] = value


class Log(Protocol):
    """What a hub asks of the database, for all its readers: the engine."""

    def follow(self, info: StreamInfo, position: int) -> Awaitable[Snapshot]:
        """Read a stream from a position."""

    def survey(self, stream_ids: tuple[int, ...]) -> Awaitable[dict[int, StreamInfo]]:
        """Return the streams that still exist, by id."""

    def renew(self, info: StreamInfo) -> None:
        """Start the TTL of a stream again."""

    def went_back(self, info: StreamInfo) -> None:
        """Learn that the database has lost a part of a stream."""


class Hub:
    """All watches of one event loop."""

    def __init__(self, engine: Log) -> None:
        self.subscriber: Subscriber | None = None
        self.loop = asyncio.get_running_loop()
        self.timeouts = Timeouts(self.loop)
        self._engine = engine
        self._watches: dict[int, Watch] = {}
        self._polls = PollSchedule()
        self._ticker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def watches(self, stream_id: int) -> bool:
        """Whether a stream is waited on here. Safe to ask from any thread."""
        return stream_id in self._watches

    async def join(
        self, info: StreamInfo, listener: Listener, servers: Sequence[RunningServer] = (), *, seen_at: float = 0.0
    ) -> Watch:
        """Register a listener on a stream; when this returns, the watch is at least as new as the call.

        Args:
            servers: which servers it depends on, beyond those of the event loop. It is stopped when one of them ends.
            seen_at: when the look at the database began that has shown `info`, in monotonic seconds.
        """
        watch = self._watches.get(info.id)
        if watch is not None and (watch.removed or watch.is_ahead_of(info, seen_at)):
            self._take_back(watch)
            watch = None
        if watch is None:
            watch = self._watches[info.id] = Watch(info)
            watch.ready = asyncio.ensure_future(self._start(watch))
            if self._ticker is None or self._ticker.done():
                self._ticker = self.loop.create_task(self._tick())
        watch.listeners.add(listener)
        add_reader(listener, servers)
        watch.idle_since = None
        if watch.ready is not None:
            try:
                await asyncio.shield(watch.ready)
            except BaseException:
                self.leave(watch, listener)
                raise
        return watch

    def leave(self, watch: Watch, listener: Listener) -> None:
        """Take a listener away."""
        if listener in watch.listeners:
            watch.listeners.remove(listener)
            remove_reader(self.loop, listener)
        if not watch.listeners:
            watch.idle_since = time.monotonic()

    def feed(self, commits: list[Commit]) -> None:
        """Take in what this process has committed."""
        for commit in commits:
            watch = self._watches.get(commit.stream_id)
            if watch is not None:
                segment = Segment(commit.start, commit.data(), commit.ends) if commit.appends else None
                if commit.removed or self._check(watch, commit.start, segment, commit.tail, closed=commit.closed):
                    watch.feed(commit.start, segment, commit.tail, closed=commit.closed, removed=commit.removed)

    def receive(self, stream_id: int, news: WakeUpMessage) -> None:
        """Take in what another process, or this one, has committed."""
        watch = self._watches.get(stream_id)
        if watch is None:
            return
        segment = Segment(news.start, news.data, news.ends) if news.data else None
        if news.generation == watch.info.generation and not news.removed:
            if news.start == watch.tail and (segment is not None or news.start == news.tail):
                watch.feed(news.start, segment, news.tail, closed=news.closed)
                return
            if news.tail <= watch.tail and watch.closed >= news.closed:
                self._check(watch, news.start, segment, news.tail, closed=news.closed)
                return
        # What does not join on to what the database has said is only a reason to ask it: once for all who wait.
        self._catch_up_soon(watch)

    def _check(self, watch: Watch, start: int, segment: Segment | None, tail: int, *, closed: bool) -> bool:
        """Return whether a commit goes with what is believed of its stream. If not, that is taken back."""
        agrees = watch.agrees(start, segment, tail, closed=closed)
        if agrees is False:
            self._take_back(watch)
        elif agrees is None:
            self._catch_up_soon(watch)  # it comes late, or the log has gone back
        return agrees is not False

    def _take_back(self, watch: Watch) -> None:
        """End a watch that believes in what the database does not have, or not any more.

        That happens where a standby without the last commits is promoted, or a backup restored. Whoever waits looks
        once more, and is told if that has met the offset it is at. What comes next begins with what is there.
        """
        stream_id = watch.info.id
        if self._watches.get(stream_id) is watch:
            del self._watches[stream_id]
            if self.subscriber is not None:
                self.subscriber.unsubscribe(stream_id)
        if not watch.removed:
            self._engine.went_back(watch.info)
            watch.feed(watch.tail, None, watch.tail, closed=watch.closed, removed=True)

    async def fetch(self, watch: Watch, position: int) -> Snapshot:
        """Return what lies past a position, for a reader for whom the watch has not got it at hand.

        Raises:
            OffsetGone: the database has lost what was before the position.
            StreamNotFound, StreamGone, ServiceUnavailable.
        """
        began = time.monotonic()
        try:
            view = await self._engine.follow(watch.info, position)
        except OffsetGone:
            self._take_back(watch)
            raise
        if watch.is_ahead_of(view.info, began):
            self._take_back(watch)
        return view

    def look_again(self) -> None:
        """Look at all watched streams: news may have been lost."""
        self._spawn(self._survey(list(self._watches)))

    def _hears(self) -> bool:
        """Whether news of other processes should arrive by themselves."""
        return self.subscriber is not None and self.subscriber.hears

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(self._quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _quietly(work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except DurableStreamsError as error:
            logger.debug("A look at the watched streams failed: %s", error)
        except Exception:  # whatever it is, the next look is soon
            logger.exception("A look at the watched streams failed.")

    def stop(self) -> None:
        """Let every reader that is here now end."""
        for watch in list(self._watches.values()):
            for listener in list(watch.listeners):
                stop_reader(listener)

    async def _start(self, watch: Watch) -> None:
        """Look once more, now that the watch is registered."""
        if self.subscriber is not None:
            await self.subscriber.subscribe(watch.info.id)
        await self._catch_up(watch)
        watch.ready = None

    def _catch_up_soon(self, watch: Watch) -> None:
        """Look at a stream, or once more after the look that is under way: however many news there are, one waits."""
        watch.is_behind = True
        if not watch.is_catching_up:
            watch.is_catching_up = True
            self._spawn(self._catch_up_while_behind(watch))

    async def _catch_up_while_behind(self, watch: Watch) -> None:
        try:
            while watch.is_behind:
                watch.is_behind = False
                await self._catch_up(watch)
        finally:
            watch.is_catching_up = False

    async def _catch_up(self, watch: Watch) -> None:
        try:
            view = await self.fetch(watch, watch.tail)
        except OffsetGone:
            return
        except DurableStreamsError as error:
            if error.status < 500:
                watch.feed(watch.tail, None, watch.tail, closed=watch.closed, removed=True)
            return
        self._take(watch, view)

    @staticmethod
    def _take(watch: Watch, view: Snapshot) -> None:
        segment = view.segment
        if segment is not None and (segment.start != watch.tail or not view.up_to_date):
            segment = None  # more than a page, or somebody was faster: readers fetch it themselves
        watch.feed(view.position, segment, view.tail, closed=view.closed)

    async def _tick(self) -> None:
        """Look at all watched streams now and then, for as long as there are any."""
        while self._watches:
            interval = config().poll_interval
            await asyncio.sleep(interval)
            watched = {stream_id: watch.info for stream_id, watch in self._watches.items()}
            due = self._polls.due(watched, time.monotonic(), interval, hears=self._hears())
            await self._quietly(self._survey(due))
            now = time.monotonic()
            for stream_id, watch in list(self._watches.items()):
                for listener in list(watch.listeners):
                    try:
                        listener.tick(now)
                    except Exception:  # one must not stop the time of all others
                        logger.exception("A reader could not be told that time passes.")
                if watch.idle_since is not None and (now - watch.idle_since > LINGER_SECONDS or watch.removed):
                    del self._watches[stream_id]
                    if self.subscriber is not None:
                        self.subscriber.unsubscribe(stream_id)

    async def _survey(self, stream_ids: Sequence[int]) -> None:
        """Look at some watched streams, a part at a time: others read meanwhile."""
        for first in range(0, len(stream_ids), MAX_LOOKED_AT):
            await self._look_at(stream_ids[first : first + MAX_LOOKED_AT])

    async def _look_at(self, stream_ids: Sequence[int]) -> None:
        # Those of now: one that comes while the look is under way is not in it, and yet is there.
        watches = [self._watches[stream_id] for stream_id in stream_ids if stream_id in self._watches]
        began = time.monotonic()
        infos = await self._engine.survey(tuple(watch.info.id for watch in watches))
        behind: list[tuple[Watch, StreamInfo]] = []
        for watch in watches:
            info = infos.get(watch.info.id)
            if info is None:
                watch.feed(watch.tail, None, watch.tail, closed=watch.closed, removed=True)
                continue
            if watch.is_ahead_of(info, began):
                self._take_back(watch)
                continue
            self._polls.seen(info)
            if _is_behind(watch, info):
                behind.append((watch, info))
            if watch.listeners and _is_running_out(info):
                self._engine.renew(info)
        if behind and self._hears():
            await asyncio.sleep(NEWS_SECONDS)  # of what was committed just now, news are on their way
            behind = [(watch, info) for watch, info in behind if _is_behind(watch, info)]
            if behind:
                self._polls.missed(time.monotonic())
        # All at once, so that the lanes do them in one go.
        await asyncio.gather(*(self._catch_up(watch) for watch, _ in behind))


def _is_behind(watch: Watch, info: StreamInfo) -> bool:
    """Whether a stream goes further, or is closed, than is known where it is watched."""
    return info.tail > watch.tail or (info.closed and not watch.closed)


def _is_running_out(info: StreamInfo) -> bool:
    """Whether a stream with live readers has to be touched, so that it does not expire under them."""
    if info.ttl is None or info.deadline is None:
        return False
    margin = max(info.ttl / 2, 3 * config().poll_interval)
    remaining = (info.deadline - clock.now()).total_seconds()
    return remaining < margin

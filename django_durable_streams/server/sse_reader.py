"""SSE: a reader that stays, and makes one chunk of an event stream after the other (specification, section 5.8).

Makes bytes from a stream's data. It knows no connections: an entry point takes the chunks and sends them.

The invariant: a reader is a position. It has no queue, so a slow reader holds no data. The data past its position comes
from the watch, which all readers of a stream share, or from the database. A waiting reader takes 9.4 KB, and an event
is encoded once for all readers at a position (docs/decisions/readers-as-positions.md).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from ..engine import Engine
from ..engine.characters import begins_inside, held_before
from ..engine.live_reader_limit import LiveReaderSlot
from ..engine.snapshot_reader import Snapshot
from ..engine.watch import LARGE_EVENT_BYTES
from ..protocol import caching, content, sse
from ..protocol.errors import DurableStreamsError, ServiceUnavailable
from ..protocol.messages import ENDING_SECONDS, LiveGrant
from .event_stream_reader import EventStreamReader, Step
from .response_memory import Transfer, memory

MIN_BYTES_IN_PIECES = 1024 * 1024
"""Bytes of data from which an event is made in pieces.

The event may have six times as many bytes. In pieces it never is in memory as a whole, and other requests do not wait
for it. A page has fewer bytes, unless it is a single append.
"""


class SseReader(EventStreamReader):
    """A reader of a stream by Server-Sent Events of the protocol.

    Each chunk is a data event with its control event, a control event, or a comment.

    Args:
        snapshot: the stream as the request has seen it, with its first page.
        client_cursor: the query parameter `cursor`.
        slot: as for `EventStreamReader`.
        grant: as for `EventStreamReader`.
    """

    kind = "sse"

    __slots__ = (
        "_cursor_floor", "_end_timer", "_engine", "_has_begun", "_held", "_info", "_is_behind", "_pause", "_position",
        "_rest", "_transfer",
    )  # fmt: skip

    def __init__(
        self,
        engine: Engine,
        snapshot: Snapshot,
        client_cursor: str | None,
        slot: LiveReaderSlot,
        grant: LiveGrant | None = None,
    ) -> None:
        super().__init__(engine.hub(), snapshot, slot, grant)
        self._engine = engine
        self._info = snapshot.info
        self._position = snapshot.position
        self._held = b""
        """The beginning of a character, of which the rest has not come."""
        self._has_begun = False
        """Whether data has been sent."""
        self._is_behind = False
        """Whether the last control event did not say that the reader is up to date."""
        self._rest: Iterator[bytes] | None = None
        """The rest of a large event."""
        self._transfer: Transfer[bytes] | None = None
        """The data that the rest of a large event is made of."""
        self._end_timer: asyncio.TimerHandle | None = None
        """Cuts the rest of a large event off, once the server is about to end."""
        self._pause = 0.0
        self._cursor_floor = caching.cursor_floor(client_cursor, time.time())

    def close(self) -> None:
        """Leave, and release the slot and the data. May be called again."""
        self._end_rest()
        super().close()

    def take(self) -> bytes | Step:
        """Return the next chunk if it is at hand, otherwise the step that leads to it."""
        if self._first is not None:
            if self._is_cut(self._first):
                return Step.FETCH
            snapshot, self._first = self._first, None
            return self._from_snapshot(snapshot, opens=True)
        if self._rest is not None and not self._abandoned:
            return Step.FETCH
        watch = self.watch
        if self.finished or self._abandoned or watch.ended:
            return self._finish()
        now = time.monotonic()
        is_over = self._is_over(now)
        if self._position < watch.tail and not is_over:
            is_large = watch.tail - self._position > MIN_BYTES_IN_PIECES
            frame = None if is_large else watch.frame(self._position, self._cursor(), self._held)
            if frame is None or (frame.is_cut and not self._has_begun):
                return Step.FETCH
            chunk, self._position, self._held = frame.chunk, frame.end, frame.held
            self._has_begun = True
            if frame.is_large:
                self._rest = self._large_event(chunk, up_to_date=True, closed=frame.closed)
                return self._count(next(self._rest))
            self.finished = frame.closed
            if chunk:
                self._is_behind = False
                return self._count(chunk)
            if self._is_behind:  # the rest of the data is the beginning of a character
                return self._chunk(b"", up_to_date=True, closed=False)
        if watch.closed and self._position >= watch.tail:
            self.finished = True
            rest, self._held = self._held, b""
            event = sse.data_event(self._info.content_type, rest) if rest else b""
            return self._chunk(event, up_to_date=True, closed=True)
        if is_over:
            self.finished = True
            return self._chunk(b"", up_to_date=self._position >= watch.tail, closed=False)
        if now - self._last_chunk >= self._keep_alive:
            return self._count(sse.KEEP_ALIVE)
        return Step.WAIT

    @property
    def is_current(self) -> bool:
        """Whether no chunk is at hand until news arrive. Ask right after a chunk was taken."""
        watch = self.watch
        is_at_end = self._position >= watch.tail and self._rest is None
        return is_at_end and self._bytes_left > 0 and not (watch.closed or self.finished)

    def stop(self) -> None:
        """The server is about to end. So does the response, with a last control event.

        A client has ENDING_SECONDS for the rest of a large event.
        """
        if self._rest is not None and self._end_timer is None:
            self._end_timer = self.hub.loop.call_later(ENDING_SECONDS, self.cut_off)
        super().stop()

    def tick(self, now: float) -> None:
        """Time has passed. The response may be over, or a proxy may need traffic."""
        if self._rest is not None and not self.is_permitted(now):
            self.cut_off()
        else:
            super().tick(now)

    async def fetch(self) -> bytes:
        """Read data from the database, or make the next piece of an event."""
        if self._rest is not None:
            await asyncio.sleep(self._pause)  # other requests have twice the time that a piece takes
            start = time.monotonic()
            piece = next(self._rest, None)
            self._pause = 2 * (time.monotonic() - start)
            if piece is None:
                self._end_rest()
            elif self._transfer is not None:
                memory.report_progress(self._transfer)
            return self._count(piece or b"")
        try:
            snapshot, self._first = self._first, None
            opens = snapshot is not None
            if snapshot is None:
                snapshot = await self.hub.fetch(self.watch, self._position)
            if self._is_cut(snapshot):
                self._held = await held_before(self._engine, snapshot)
        except DurableStreamsError:
            return self._finish()  # the client reconnects, and gets the error as a response
        return b"" if snapshot.segment is None else self._from_snapshot(snapshot, opens=opens)

    def _is_cut(self, snapshot: Snapshot) -> bool:
        """Return whether the first data is the rest of a character that begins before the reader's offset."""
        return not self._has_begun and begins_inside(snapshot)

    def _from_snapshot(self, snapshot: Snapshot, *, opens: bool) -> bytes:
        self._info, self._position = snapshot.info, snapshot.end
        if snapshot.segment is not None and len(snapshot.segment.data) > MIN_BYTES_IN_PIECES:
            self._has_begun = True
            return self._start_pieces(snapshot, snapshot.segment.data)
        event = b""
        if snapshot.segment is not None:
            self._has_begun = True
            event, self._held = snapshot.segment.data_event(self._info.content_type, self._held, final=snapshot.at_end)
            if len(event) >= LARGE_EVENT_BYTES:
                self._rest = self._large_event(event, up_to_date=snapshot.up_to_date, closed=snapshot.at_end)
                return self._count(next(self._rest))
        self.finished = snapshot.at_end
        says_more = opens or snapshot.at_end or (self._is_behind and snapshot.up_to_date)
        if snapshot.segment is not None and not (event or says_more):
            return b""  # all of it is held back
        return self._chunk(event, up_to_date=snapshot.up_to_date, closed=snapshot.at_end)

    def _start_pieces(self, snapshot: Snapshot, data: bytes) -> bytes:
        """Return the first piece of an event that is never in memory as a whole. Its data is, until the last piece."""
        if content.holds_text(self._info.content_type):
            data, self._held = sse.split(self._held + data, final=snapshot.at_end)
        transfer = Transfer(data, self.hub.loop, self.cut_off)
        try:
            memory.admit(transfer)
        except ServiceUnavailable:
            return self._finish()  # the client reconnects
        self._transfer = transfer
        self._rest = self._pieces(snapshot, data)
        return self._count(next(self._rest))

    def _end_rest(self) -> None:
        transfer, self._transfer, self._rest = self._transfer, None, None
        if transfer is not None:
            memory.remove(transfer)
        if self._end_timer is not None:
            self._end_timer.cancel()

    def _pieces(self, snapshot: Snapshot, data: bytes) -> Iterator[bytes]:
        """Yield a data event and its control event in pieces."""
        yield sse.event_id(self._offset())
        yield from sse.event_pieces(self._info.content_type, data)
        yield self._last_piece(up_to_date=snapshot.up_to_date, closed=snapshot.at_end)

    def _large_event(self, event: bytes, *, up_to_date: bool, closed: bool) -> Iterator[bytes]:
        """Yield a data event that other readers get too, without a copy, and its control event."""
        yield sse.event_id(self._offset())
        yield event
        yield self._last_piece(up_to_date=up_to_date, closed=closed)

    def _last_piece(self, *, up_to_date: bool, closed: bool) -> bytes:
        self.finished = closed
        return self._control(up_to_date=up_to_date, closed=closed)

    def _chunk(self, event: bytes, *, up_to_date: bool, closed: bool) -> bytes:
        """Return a data event with its control event, or the control event alone. The first event has an id."""
        return self._count(sse.event_id(self._offset()) + event + self._control(up_to_date=up_to_date, closed=closed))

    def _control(self, *, up_to_date: bool, closed: bool) -> bytes:
        self._is_behind = not up_to_date
        return sse.control_event(self._offset(), cursor=self._cursor(), up_to_date=up_to_date, closed=closed)

    def _offset(self) -> str:
        """Return the offset at which the client continues: the one before the bytes that are held back."""
        return self._info.token(self._position - len(self._held))

    def _cursor(self) -> int:
        return max(self._cursor_floor, caching.interval(time.time()))

"""One stream of a socket: a live reader that makes one frame after the other.

The invariant is that of all live readers: it is a position, and has no queue. It takes data from the watch or from the
database only when there is room for a frame. A page that is read and cannot be sent is dropped. Knows no socket.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import Protocol, cast

from ...engine import Engine
from ...engine.characters import held_before
from ...engine.live_reader import LiveReader
from ...engine.live_reader_limit import LiveReaderSlot
from ...engine.snapshot_reader import Snapshot
from ...protocol import content, text, websocket
from ...protocol.errors import OffsetGone, OffsetTrimmed, StreamGone, StreamNotFound
from ...protocol.messages import LiveGrant
from ...protocol.segments import Segment
from ...protocol.websocket import ServerFrame, Subscribe
from ..response_memory import PIECE_BYTES

MAX_LIVE_BYTES = 8 * 1024
"""New data up to which the hub sends it itself. Its frame is never over PIECE_BYTES, whatever is escaped."""

MAX_SHARED_FRAMES = 16
"""Frames that the sockets of one commit share. Clients choose their ids."""


class Step(Enum):
    """What a subscription needs before its next frame."""

    FETCH = "data from the database"
    WAIT = "news"


class Socket(Protocol):
    """The socket of a subscription."""

    def mark_ready(self, subscription: Subscription) -> None:
        """Ask a subscription for its next frame soon."""

    def stop(self) -> None:
        """Close the socket, because the server is about to end."""


class Subscription(LiveReader):
    """A stream that a socket follows. Call `start` first, and `close` at the end.

    Args:
        frame: the client's frame, with the id of the subscription.
        snapshot: the stream as the request has seen it, with its first page.
        slot: its slot among all live readers. It is released by `close`.
        grant: the permission of the read, if it can end.
    """

    kind = "websocket"

    __slots__ = (
        "_binary", "_engine", "_has_begun", "_held", "_holds_text", "_info", "_is_behind", "_page", "_position",
        "_slot", "_socket", "finished", "is_closed", "is_ready", "name",
    )  # fmt: skip

    def __init__(
        self,
        engine: Engine,
        frame: Subscribe,
        snapshot: Snapshot,
        slot: LiveReaderSlot,
        grant: LiveGrant | None,
        socket: Socket,
    ) -> None:
        super().__init__(engine.hub(), grant)
        self.name = frame.name
        self.finished = False
        """Whether the last frame was the last one of the stream."""
        self.is_ready = True
        """Whether the socket is going to ask for a frame. True until the subscription has started."""
        self.is_closed = False
        self._engine = engine
        self._slot = slot
        self._socket = socket
        self._binary = frame.binary
        self._info = snapshot.info
        self._position = snapshot.position
        self._page: Segment | None = snapshot.segment
        """Data at the position that was read from the database."""
        self._holds_text = not frame.binary and content.holds_text(snapshot.info.content_type)
        self._held = b""
        """The beginning of a character, of which the rest has not come."""
        self._has_begun = False
        """Whether data was taken, so that `_held` is known."""
        self._is_behind = True
        """Whether the client does not know that it is up to date."""

    async def start(self, snapshot: Snapshot) -> ServerFrame:
        """Join the stream's watch, and return the frame that says so."""
        await self.join(snapshot)
        self.is_ready = False
        info = self._info
        fields = {"path": info.path, "contentType": info.content_type, "offset": self._offset()}
        return websocket.message("subscribed", id=self.name, **fields)

    def close(self) -> None:
        """Leave, and release the slot and the data. May be called again."""
        self.is_closed = True
        self._slot.release()
        self._page = None
        self.leave()

    def take(self) -> ServerFrame | Step:
        """Return the next frame if it is at hand, otherwise the step that leads to it.

        Raises:
            NotAuthenticated, PermissionDenied, ServiceUnavailable: the permission has ended, or cannot be checked.
        """
        if self.is_closed:
            return Step.WAIT
        if self._grant is not None and not self.is_permitted(time.monotonic()):
            self._grant.check()
        watch = self.watch
        while not watch.ended or self._page is not None:
            segment, self._page = self._page or watch.segment_after(self._position), None
            if segment is None and self._position < watch.tail:
                return self._fall_behind()
            if segment is None:
                return self._at_tail()
            if self._needs_beginning(segment):
                return self._fall_behind()
            frame = self._data(segment)
            if frame is not None:
                return frame
        return Step.FETCH

    def take_live(self) -> ServerFrame | None:
        """Return the frame with all new data, if it is at hand and small, and leaves the client up to date.

        Raises:
            NotAuthenticated, PermissionDenied, ServiceUnavailable: as for `take`.
        """
        watch = self.watch
        if self.is_closed or self._page is not None or self._is_behind or watch.closed or watch.ended:
            return None
        if not 0 < watch.tail - self._position <= MAX_LIVE_BYTES:
            return None
        # Sockets mostly have the same id for a stream, so they share the frame.
        key = Subscription, self.name, self._binary, self._position, self._held, self._has_begun
        shared = watch.shared_responses.get(key)
        if shared is not None and self.is_permitted(time.monotonic()):
            frame, self._position, self._held = shared
            self._has_begun = True
            return cast("ServerFrame", frame)
        if watch.segment_after(self._position) is None:
            return None
        step = self.take()
        if not isinstance(step, ServerFrame):
            return None
        if len(watch.shared_responses) < MAX_SHARED_FRAMES:
            watch.shared_responses[key] = step, self._position, self._held
        return step

    async def fetch(self) -> None:
        """Read the next data from the database.

        Raises:
            StreamNotFound, StreamGone: the stream was deleted or has expired.
            OffsetGone: the database has lost the data before the position.
            OffsetTrimmed: the data after the position was trimmed.
            ServiceUnavailable: the database does not answer.
        """
        watch = self.watch
        snapshot = await self.hub.fetch(watch, self._position)
        if watch.ended:  # the stream lives on in a new watch
            self.leave()
            await self.join(snapshot)
        if self.is_closed:  # meanwhile
            self.leave()
            return
        self._info, self._page = snapshot.info, snapshot.segment
        if self._page is not None and not self._has_begun:
            self._held = await held_before(self._engine, snapshot)
            self._has_begun = True

    @property
    def page_data(self) -> bytes | None:
        """The data that was read from the database and is not in a frame yet."""
        return None if self._page is None else self._page.data

    def drop_page(self) -> None:
        """Drop data that cannot be sent now. It is read again."""
        self._page = None

    def notify(self) -> None:
        """The stream has changed."""
        self._socket.mark_ready(self)

    def tick(self, now: float) -> None:
        """Time has passed. The permission may have ended."""
        if not self.is_permitted(now):
            self._socket.mark_ready(self)

    def stop(self) -> None:
        """The server is about to end."""
        self.is_stopped = True
        self._socket.stop()

    def _fall_behind(self) -> Step:
        self._is_behind = True
        return Step.FETCH

    def _needs_beginning(self, segment: Segment) -> bool:
        """Return whether the first data is the rest of a character that begins before the position."""
        if self._has_begun or not self._holds_text or self._position <= self._info.first_position:
            return False
        return text.is_cut(segment.data)

    def _data(self, segment: Segment) -> ServerFrame | None:
        """Return a frame with the first appends of a segment. None: all of it begins a character, or was removed."""
        piece = segment.upto(segment.start + PIECE_BYTES)
        # In a long chain of forks, a page may have no known offset before its end.
        if not (self._info.has_offset(piece.end) and self._info.has_offset(piece.end - text.MAX_HELD)):
            piece = segment
        if piece is not segment:
            self._page = segment.after(piece.end)
        self._position = piece.end
        self._has_begun = True
        content_type = self._info.content_type
        if not self._holds_text:
            return self._data_frame(piece.body(content_type)) if piece.data else None
        data, self._held = text.split(self._held + piece.data)
        return self._data_frame(data) if data else None

    def _at_tail(self) -> ServerFrame | Step:
        if self.watch.closed:
            if self._held:
                data, self._held = self._held, b""
                return self._data_frame(data)
            self.finished = True
            return websocket.message("closed", id=self.name, offset=self._offset())
        if self._is_behind:
            self._is_behind = False
            return websocket.message("up-to-date", id=self.name, offset=self._offset())
        return Step.WAIT

    def _data_frame(self, data: bytes) -> ServerFrame:
        return websocket.data_frame(self.name, self._offset(), self._info.content_type, data, binary=self._binary)

    def _offset(self) -> str:
        """Return the offset at which the client continues: the one before the bytes that are held back."""
        return self._info.token(self._position - len(self._held))


def is_end_of_stream(error: Exception) -> bool:
    """Return whether an error of a subscription says that its stream was deleted or has expired."""
    return isinstance(error, (StreamNotFound, StreamGone)) and not isinstance(error, (OffsetGone, OffsetTrimmed))

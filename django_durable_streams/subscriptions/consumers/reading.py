"""Reads the messages of a stream after a cursor, page by page and with the position of each. Knows no consumer.

If data after the cursor was trimmed, the reader goes on at the first data that is left, and logs how much is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice

from ...conf import config
from ...protocol import content, text
from ...protocol.segments import Segment
from ...store.read import lineage, log_reader
from ...store.read.segment_cache import SegmentCache
from ...store.stream_info import StreamInfo
from .messages import StoredMessage

logger = logging.getLogger(__name__)


class StreamReader:
    """The messages of a stream from a position to its tail, as the stream is now.

    A page stays in memory until all its messages are taken. So small batches do not read a page again and again.

    Args:
        info: the stream.
        position: the cursor: the position after the last message that was handled. None: none was.
        using: alias of the database.
    """

    def __init__(self, info: StreamInfo, position: int | None, using: str) -> None:
        self.info = info
        self._using = using
        self._next = position or 0
        self._has_cursor = position is not None
        self._messages: Iterator[StoredMessage] = iter(())
        self._held: bytes | None = None
        """The bytes of an incomplete character before the next message. None: nothing was read yet."""

    @property
    def position(self) -> int:
        """The position before which no message is left to take, once `take` has returned none."""
        return self._next - len(self._held or b"")

    def take(self, limit: int) -> list[StoredMessage]:
        """Return the next messages of one page, at most `limit`. None are left if there are none.

        The last bytes of a text may begin a character. They are no message until the character is complete.

        Raises:
            StreamNotFound, OffsetTrimmed: the stream was removed or trimmed meanwhile.
            ServiceUnavailable: data is damaged.
        """
        taken = list(islice(self._messages, limit))
        if not taken:
            self._pass_trimmed()
        while not taken and self._next < self.info.tail:
            self._messages = self._read_page()
            taken = list(islice(self._messages, limit))
        return taken

    def _pass_trimmed(self) -> None:
        missing = self.info.first_position - self._next
        if missing <= 0:
            return
        if self._has_cursor:  # otherwise the stream had been trimmed before it was followed, maybe
            logger.warning(
                "Messages were trimmed before they were read: %d bytes of %s. Reading goes on after them.",
                missing,
                self.info.path,
            )
        self._next, self._held = self.info.first_position, b""

    def _read_page(self) -> Iterator[StoredMessage]:
        start = self._next
        request = log_reader.PageRequest(self.info, start, config().page_bytes)
        segment = log_reader.pages([request], SegmentCache(0), self._using)[self.info.id, start]
        if segment is None:
            raise log_reader.explain_missing(self.info, start, self._using)
        self._next, self._has_cursor = segment.end, True
        if self._held is None:
            # A cursor that was set to the tail may be inside a character, whose first bytes nobody has handled.
            is_cut = content.holds_text(self.info.content_type) and text.is_cut(segment.data)
            self._held = log_reader.held_before(self.info, start, self._using) if is_cut else b""
        info = lineage.around(self.info, self._using, segment.start, segment.end)
        return self._messages_of(segment, start, info)

    def _messages_of(self, segment: Segment, start: int, info: StreamInfo) -> Iterator[StoredMessage]:
        kind = info.content_type
        is_text = content.holds_text(kind)
        for message in segment.messages(kind):
            if message.end <= start:  # the cursor may be between two messages of one append
                continue
            if not is_text:
                yield StoredMessage(message.data, message.end, info.token(message.end))
                continue
            is_final = info.closed and message.end >= info.tail
            data, self._held = text.split((self._held or b"") + message.data, final=is_final)
            if data:
                end = message.end - len(self._held)
                yield StoredMessage(data, end, info.token(end))

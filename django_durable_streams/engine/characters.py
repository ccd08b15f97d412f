"""The first data of a reader of text, who may begin inside a character (see `protocol.text`). Knows no reader."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from ..protocol import content, text
from ..store.stream_info import StreamInfo
from .snapshot_reader import Snapshot


class Follower(Protocol):
    """The part of the engine that reads data again."""

    def follow(self, info: StreamInfo, position: int) -> Awaitable[Snapshot]:
        """Read a stream from a position that a reader has reached."""


def begins_inside(snapshot: Snapshot) -> bool:
    """Return whether the data of a snapshot is the rest of a character that begins before its position."""
    segment, info = snapshot.segment, snapshot.info
    return (
        segment is not None
        and snapshot.position > info.first_position
        and text.is_cut(segment.data)
        and content.holds_text(info.content_type)
    )


async def held_before(engine: Follower, snapshot: Snapshot) -> bytes:
    """Return the bytes before a snapshot that begin the character with whose rest it begins.

    Raises:
        OffsetGone, StreamNotFound, StreamGone, ServiceUnavailable.
    """
    if not begins_inside(snapshot):
        return b""
    start = max(snapshot.position - text.MAX_HELD, snapshot.info.first_position)
    segment = (await engine.follow(snapshot.info, start)).segment
    return b"" if segment is None else segment.held_before(snapshot.position)

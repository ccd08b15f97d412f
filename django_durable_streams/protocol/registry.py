"""The messages of the registry, the stream that tells which streams were created, closed and deleted.

The specification has no registry. These messages follow the State Protocol, as those of the reference server do: the
type is `stream`, and the key is the path. The value has `closed` besides. A delete has the old value, with `expired`.
Knows no database.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

CONTENT_TYPE = "application/json"

TYPE = "stream"
"""The type of all messages."""


class RecordedStream(NamedTuple):
    """A stream, as messages describe it."""

    path: str
    content_type: str
    generation: int
    """Microseconds since 1970 at its creation, whatever archives it went through since."""
    closed: bool


def created(stream: RecordedStream, moment: datetime) -> bytes:
    """Return the message about a new stream."""
    return _message(stream, moment, "insert", value=_describe(stream))


def closed(stream: RecordedStream, moment: datetime) -> bytes:
    """Return the message about a stream that was closed."""
    return _message(stream, moment, "update", value=_describe(stream))


def deleted(stream: RecordedStream, moment: datetime, *, expired: bool) -> bytes:
    """Return the message about a stream that was deleted or has expired."""
    return _message(stream, moment, "delete", old_value={**_describe(stream), "expired": expired})


def _describe(stream: RecordedStream) -> dict[str, Any]:
    return {
        "path": stream.path,
        "contentType": stream.content_type,
        "createdAt": stream.generation // 1000,
        "closed": stream.closed,
    }


def _message(stream: RecordedStream, moment: datetime, operation: str, **values: dict[str, Any]) -> bytes:
    headers = {"operation": operation, "timestamp": _timestamp(moment)}
    return msgspec.json.encode({"type": TYPE, "key": stream.path, **values, "headers": headers})


@lru_cache(maxsize=1)  # a batch has one moment
def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

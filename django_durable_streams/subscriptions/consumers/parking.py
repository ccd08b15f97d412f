"""The dead-letter stream: messages that a handler could not handle, each with its error."""

from __future__ import annotations

import base64
import traceback
from datetime import UTC
from typing import Any

import msgspec

from ... import clock
from ...models import Stream
from ...protocol import content
from ...store.stream_info import StreamInfo
from .declarations import Consumer
from .messages import StoredMessage

MAX_VALUE_BYTES = 1024 * 1024
"""Larger messages are named by their offset only: databases limit the length of a statement."""

MAX_TRACEBACK_LENGTH = 20_000

JSON = "application/json"


def describe(error: BaseException) -> str:
    """Return an error with its traceback, as text that every database can store."""
    lines = "".join(traceback.format_exception(error))[-MAX_TRACEBACK_LENGTH:]
    return lines.encode(errors="replace").decode().replace("\x00", "\ufffd")


def park(consumer: Consumer, info: StreamInfo, message: StoredMessage, error: BaseException, using: str) -> None:
    """Append a message to the dead-letter stream of its consumer, which is created if it is missing.

    Raises:
        DurableStreamsError: the dead-letter stream is closed, or not in JSON mode.
    """
    streams = Stream.objects.using(using)
    stream = streams.alive().filter(path=consumer.dead_letters).first()
    if stream is None:
        stream, _ = streams.ensure(consumer.dead_letters, content_type=JSON)
    stream.append(record(consumer, info, message, error))


def record(consumer: Consumer, info: StreamInfo, message: StoredMessage, error: BaseException) -> bytes:
    """Return the dead letter of a message as JSON."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    text = str(error)[:MAX_TRACEBACK_LENGTH].encode(errors="replace").decode()
    return msgspec.json.encode(
        {
            "consumer": consumer.name,
            "stream": info.path,
            "offset": message.offset,
            "content_type": info.content_type,
            **_value(info.content_type, message),
            "error": {"type": name, "message": text, "traceback": describe(error)},
            "time": clock.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
    )


def _value(content_type: str, message: StoredMessage) -> dict[str, Any]:
    if len(message.raw) > MAX_VALUE_BYTES:
        return {"omitted_bytes": len(message.raw)}
    if content.is_json(content_type):
        return {"value": msgspec.Raw(message.raw)}  # as it was written: numbers keep their digits
    if content.holds_text(content_type):
        return {"value": message.value}
    return {"base64": base64.b64encode(message.raw).decode()}

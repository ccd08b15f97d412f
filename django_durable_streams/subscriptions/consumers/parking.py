"""The dead-letter stream: messages that a handler could not handle, each with its error."""

from __future__ import annotations

import base64
import traceback
from datetime import UTC
from typing import Any

import msgspec

from ... import clock
from ...conf import config
from ...models import Stream
from ...protocol import content, text
from ...store.stream_info import StreamInfo
from .declarations import Consumer
from .messages import StoredMessage

MAX_VALUE_BYTES = 1024 * 1024
"""Larger messages are named by their offset only: databases limit the length of a statement."""

MAX_TRACEBACK_LENGTH = 20_000

JSON = "application/json"


def describe(error: BaseException) -> str:
    """Return an error with its traceback, as text that every database can store."""
    try:
        lines = "".join(traceback.format_exception(error))
    except Exception:  # the error belongs to the project, and so do its attributes
        lines = f"{type(error).__name__}, whose traceback cannot be formatted"
    return _storable(lines[-MAX_TRACEBACK_LENGTH:])


def _storable(words: str) -> str:
    return words.encode(errors="replace").decode().replace("\x00", "\ufffd")


def park(consumer: Consumer, info: StreamInfo, message: StoredMessage, error: BaseException, using: str) -> None:
    """Append a message to the dead-letter stream of its consumer, which is created if it is missing.

    Raises:
        DurableStreamsError: the dead-letter stream is closed, or was deleted while forks read its data.
    """
    streams = Stream.objects.using(using)
    stream = streams.alive().filter(path=consumer.dead_letters).first()
    if stream is None:
        stream, _ = streams.ensure(consumer.dead_letters, content_type=JSON)
    stream.append(record(consumer, info, message, error))


def record(consumer: Consumer, info: StreamInfo, message: StoredMessage, error: BaseException) -> bytes:
    """Return the dead letter of a message as JSON. It leaves out what would make it larger than an append may be."""
    letter = {
        "consumer": consumer.name,
        "stream": info.path,
        "offset": message.offset,
        "content_type": info.content_type,
        **_value(info.content_type, message.raw),
        "error": {"type": _type_of(error), "message": _message_of(error), "traceback": describe(error)},
        "time": clock.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    encoded = msgspec.json.encode(letter)
    limit = config().max_append_bytes
    if len(encoded) > limit:
        for name in ("value", "base64"):
            if letter.pop(name, None) is not None:
                letter["omitted_bytes"] = len(message.raw)
        encoded = msgspec.json.encode(letter)
    if len(encoded) > limit:
        letter["error"] = {"type": _type_of(error)}
        encoded = msgspec.json.encode(letter)
    return encoded


def _type_of(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")


def _message_of(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception:  # the error belongs to the project
        message = "(the error has no text)"
    return _storable(message[:MAX_TRACEBACK_LENGTH])


def _value(content_type: str, raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_VALUE_BYTES:
        return {"omitted_bytes": len(raw)}
    if content.is_json(content_type):
        return {"value": msgspec.Raw(raw)}  # as it was written: numbers keep their digits
    if content.holds_text(content_type):
        return {"value": text.decode(raw)}
    return {"base64": base64.b64encode(raw).decode()}

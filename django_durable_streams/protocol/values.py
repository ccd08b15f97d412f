"""Messages as Python callers give and get them, and as they are stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from . import content
from .errors import InvalidJSON
from .segments import Segment

Data = Any
"""bytes or str; for JSON streams anything that JSON can say."""


def encode(content_type: str, value: Data) -> bytes:
    """Return one message as it is stored in a stream of a content type.

    Raises:
        InvalidJSON: JSON cannot say it.
        TypeError: the stream is not in JSON mode, and the value is neither bytes nor text.
    """
    if content.is_json(content_type):
        try:
            return msgspec.json.encode(value) + b"\n"
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidJSON(f"The message is not JSON: {error}") from error
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"A stream of {content_type} takes bytes or str, not {type(value).__name__}.")


def decode(content_type: str, stored: bytes) -> Data:
    """Return a stored message as Python sees it: the JSON value, text for `text/*`, else bytes."""
    if content.is_json(content_type):
        try:
            return msgspec.json.decode(stored)
        except msgspec.DecodeError:  # half of a surrogate pair, which `content.split` lets in
            return json.loads(stored)
    return stored.decode(errors="replace") if content.is_text(content_type) else stored


def messages(content_type: str, segment: Segment) -> Iterator[Data]:
    """Yield the messages of a segment as Python sees them."""
    for message in segment.messages(content_type):
        yield decode(content_type, message.data)

"""Conversion between Python values and stored messages.

In JSON mode bytes are JSON text, and an encoder writes any other value as JSON. A value that JSON cannot represent is
refused, and not stored in another form. Text of `text/*` is UTF-8, whatever its charset parameter says. There, a
character that two appends share belongs to the second one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import msgspec

from . import content, json_text, text
from .errors import BadRequest, InvalidJSON
from .segments import Segment

Data = Any
"""bytes or str; for JSON streams any JSON value."""

MAX_INTEGER_DIGITS = 4300
"""Python converts no longer number, because the time grows with the square of the digits."""

_HALF_PAIR = re.compile("[\ud800-\udfff]")


def encode(content_type: str, value: Data, encoder: json.JSONEncoder) -> bytes:
    """Return one message as it is stored in a stream of a content type.

    Args:
        content_type: content type of the stream.
        value: the message.
        encoder: encodes values that `json` cannot. It must refuse NaN, and escape only where JSON requires it.

    Raises:
        InvalidJSON: JSON cannot represent the value. The message says where in the value.
        TypeError: the stream is not in JSON mode, and the value is neither bytes nor text.
        BadRequest: the text has an unpaired surrogate.
    """
    is_bytes = isinstance(value, bytes | bytearray | memoryview)
    if content.is_json(content_type):
        return _one_line(bytes(value)) if is_bytes else _json(value, encoder)
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise BadRequest(
                f"The text has an unpaired surrogate at character {error.start}, which UTF-8 cannot encode. "
                "Remove it, or encode the text yourself and append bytes."
            ) from error
    if is_bytes:
        return bytes(value)
    raise TypeError(f"A stream of {content_type} takes bytes or str, not {type(value).__name__}.")


def _one_line(body: bytes) -> bytes:
    """Return JSON text as one stored message.

    Raises:
        InvalidJSON: the body is no JSON text, or has several values.
    """
    # `to_lines` splits an array into messages. The value is one message, also if it is an array.
    lines = json_text.to_lines(b"[%b]" % body) if body else b""
    if lines.count(b"\n") != 1:
        raise InvalidJSON("The bytes are not one JSON value. A JSON stream takes bytes as JSON text.")
    return lines


def _json(value: Any, encoder: json.JSONEncoder) -> bytes:
    try:
        json_string = encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidJSON(f"The message cannot be JSON: {_reason(value, encoder, error)}") from error
    try:
        data = json_string.encode()
    except UnicodeEncodeError:  # an unpaired surrogate, which JSON can write as an escape
        data = _HALF_PAIR.sub(lambda half: f"\\u{ord(half[0]):04x}", json_string).encode()
    kind = type(encoder)
    if kind.encode is not json.JSONEncoder.encode or kind.iterencode is not json.JSONEncoder.iterencode:
        return _one_line(data)  # the project's encoder may write line breaks
    return data + b"\n"


def _reason(value: Any, encoder: json.JSONEncoder, error: Exception) -> str:
    """Return the problem of a value, and its place in the value."""
    try:
        problem = _find_problem(value, encoder, "message")
    except (RecursionError, ValueError):  # nested too deeply, or with a key that is too long a number
        problem = None
    if problem is not None:
        return problem
    return "it is nested too deeply." if isinstance(error, RecursionError) else f"{error}."


def _find_problem(value: Any, encoder: json.JSONEncoder, name: str) -> str | None:
    """Return the first part of a value that JSON cannot represent, as a message."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not (key is None or isinstance(key, str | int | float)):
                return f"{name} has the key {key!r}, a {type(key).__name__}; the keys of JSON are text."
            if isinstance(key, float) and not math.isfinite(key):
                return f"{name} has the key {key}, which JSON does not have."
            if (problem := _find_problem(item, encoder, f"{name}[{key!r}]")) is not None:
                return problem
        return None
    if isinstance(value, list | tuple):
        problems = (_find_problem(item, encoder, f"{name}[{number}]") for number, item in enumerate(value))
        return next((problem for problem in problems if problem is not None), None)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} is {value}, which JSON does not have."
    if value is None or isinstance(value, str | int | float):
        return None
    try:
        return _find_problem(encoder.default(value), encoder, name)
    except (TypeError, ValueError) as error:
        return f"{name} is a {type(value).__name__}, which JSON does not have ({error})."


def decode(content_type: str, stored: bytes) -> Data:
    """Return the Python value of a stored message: the JSON value, text for `text/*`, else bytes."""
    if content.is_json(content_type):
        return _value(stored)
    return text.decode(stored) if content.holds_text(content_type) else stored


def _value(stored: bytes) -> Any:
    try:
        return _parsed(stored)
    except RecursionError:
        # It was accepted with less on the stack. A new thread has an empty stack.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(_parsed, stored).result()


def _parsed(stored: bytes) -> Any:
    try:
        return msgspec.json.decode(stored)
    except (msgspec.DecodeError, ValueError):  # an unpaired surrogate, or a large number
        return json.loads(stored, parse_int=_integer)


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else Decimal(digits)


class MessageReader:
    """Yields the Python values of the messages of consecutive segments.

    Args:
        content_type: content type of the stream.
        held: bytes before the first segment that begin an incomplete character.
    """

    def __init__(self, content_type: str, held: bytes = b"") -> None:
        self._kind = content_type
        self._is_text = content.holds_text(content_type)
        self.held = held
        """Bytes at the end that begin an incomplete character. They belong to the message that completes it."""

    def messages(self, segment: Segment, *, final: bool) -> Iterator[Data]:
        """Yield the messages of the next segment. `final`: whether no data can follow it."""
        if not self._is_text:
            for message in segment.messages(self._kind):
                yield decode(self._kind, message.data)
            return
        for message in segment.messages(self._kind):
            data, self.held = text.split(self.held + message.data, final=final and message.end == segment.end)
            if data:
                yield text.decode(data)

    def rest(self) -> Iterator[Data]:
        """Yield the bytes that are held back as a message. For a closed stream, after its last segment."""
        if self.held:
            data, self.held = self.held, b""
            yield text.decode(data)

"""Messages as Python callers give and get them, and as they are stored.

In JSON mode bytes are JSON text, and any other value is what `json.dumps` makes of it with an encoder: what JSON does
not have is refused, rather than stored as something else. Text of `text/*` is UTF-8, whatever a charset says. There an
append is no boundary of text: a character that appends cut goes with the one that completes it.
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
"""bytes or str; for JSON streams anything that JSON can say."""

MAX_INTEGER_DIGITS = 4300
"""Python makes no number of more digits, as that takes time that grows with their square."""

_HALF_PAIR = re.compile("[\ud800-\udfff]")


def encode(content_type: str, value: Data, encoder: json.JSONEncoder) -> bytes:
    """Return one message as it is stored in a stream of a content type.

    Args:
        encoder: says in JSON what `json` does not by itself. It refuses NaN, and escapes nothing that need not be.

    Raises:
        InvalidJSON: JSON cannot say it; the message says where in the value.
        TypeError: the stream is not in JSON mode, and the value is neither bytes nor text.
        BadRequest: text with half of a surrogate pair.
    """
    is_bytes = isinstance(value, bytes | bytearray | memoryview)
    if content.is_json(content_type):
        return _one_line(bytes(value)) if is_bytes else _json(value, encoder)
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise BadRequest(
                f"The text has half of a surrogate pair at character {error.start}, which UTF-8 cannot say. "
                "Remove it, or encode the text yourself and append bytes."
            ) from error
    if is_bytes:
        return bytes(value)
    raise TypeError(f"A stream of {content_type} takes bytes or str, not {type(value).__name__}.")


def _one_line(body: bytes) -> bytes:
    """Return JSON text as one stored message.

    Raises:
        InvalidJSON: it is none, or several values.
    """
    # An array is split into its messages, and this is one message, be it an array or not.
    lines = json_text.to_lines(b"[%b]" % body) if body else b""
    if lines.count(b"\n") != 1:
        raise InvalidJSON("Bytes are taken as JSON text in a JSON stream, and these are not one JSON value.")
    return lines


def _json(value: Any, encoder: json.JSONEncoder) -> bytes:
    try:
        found = encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidJSON(f"The message cannot be JSON: {_reason(value, encoder, error)}") from error
    try:
        data = found.encode()
    except UnicodeEncodeError:  # only strings can have them, and there JSON has a way to write them
        data = _HALF_PAIR.sub(lambda half: f"\\u{ord(half[0]):04x}", found).encode()
    kind = type(encoder)
    if kind.encode is not json.JSONEncoder.encode or kind.iterencode is not json.JSONEncoder.iterencode:
        return _one_line(data)  # it writes in a way of its own
    return data + b"\n"


def _reason(value: Any, encoder: json.JSONEncoder, error: Exception) -> str:
    """Return what is wrong with a value, and where in it."""
    try:
        found = _find(value, encoder, "message")
    except (RecursionError, ValueError):  # too deep, or with a key that is a number too long to be shown
        found = None
    if found is not None:
        return found
    return "it is nested too deeply." if isinstance(error, RecursionError) else f"{error}."


def _find(value: Any, encoder: json.JSONEncoder, name: str) -> str | None:
    """Return the first thing in a value that JSON does not have."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not (key is None or isinstance(key, str | int | float)):
                return f"{name} has the key {key!r}, a {type(key).__name__}; the keys of JSON are text."
            if isinstance(key, float) and not math.isfinite(key):
                return f"{name} has the key {key}, which JSON does not have."
            if (found := _find(item, encoder, f"{name}[{key!r}]")) is not None:
                return found
        return None
    if isinstance(value, list | tuple):
        each = (_find(item, encoder, f"{name}[{number}]") for number, item in enumerate(value))
        return next((found for found in each if found is not None), None)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} is {value}, which JSON does not have."
    if value is None or isinstance(value, str | int | float):
        return None
    try:
        return _find(encoder.default(value), encoder, name)
    except (TypeError, ValueError) as error:
        return f"{name} is a {type(value).__name__}, which JSON does not have ({error})."


def decode(content_type: str, stored: bytes) -> Data:
    """Return a stored message as Python sees it: the JSON value, text for `text/*`, else bytes."""
    if content.is_json(content_type):
        return _value(stored)
    return text.decode(stored) if content.holds_text(content_type) else stored


def _value(stored: bytes) -> Any:
    try:
        return _parsed(stored)
    except RecursionError:
        # It was accepted where there was less on the stack, and a new thread has an empty one.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(_parsed, stored).result()


def _parsed(stored: bytes) -> Any:
    try:
        return msgspec.json.decode(stored)
    except (msgspec.DecodeError, ValueError):  # half of a surrogate pair, or a number that is large
        return json.loads(stored, parse_int=_integer)


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else Decimal(digits)


class MessageReader:
    """Yields the messages of a stream's segments, one after the other, as Python sees them.

    Args:
        held: bytes before the first segment that begin a character.
    """

    def __init__(self, content_type: str, held: bytes = b"") -> None:
        self._kind = content_type
        self._is_text = content.holds_text(content_type)
        self.held = held
        """Bytes at the end that begin a character: they come with what completes it."""

    def messages(self, segment: Segment, *, final: bool) -> Iterator[Data]:
        """Yield the messages of the next segment. `final`: nothing will ever come behind it."""
        if not self._is_text:
            for message in segment.messages(self._kind):
                yield decode(self._kind, message.data)
            return
        for message in segment.messages(self._kind):
            data, self.held = text.split(self.held + message.data, final=final and message.end == segment.end)
            if data:
                yield text.decode(data)

    def rest(self) -> Iterator[Data]:
        """Yield what is held back, where nothing will ever come behind it."""
        if self.held:
            data, self.held = self.held, b""
            yield text.decode(data)

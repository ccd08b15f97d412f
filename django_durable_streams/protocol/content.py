"""Content types, and JSON mode: how appends become stored bytes and stored bytes become bodies (section 9).

In JSON mode every message is stored as the client wrote it, on one line: text, then a line feed. JSON allows line
breaks only between tokens, so turning those into spaces loses nothing, and a line feed can then only be the end of
a message. Reading puts commas in place of the line feeds, and parses nothing.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

import msgspec

from .errors import EmptyAppend, InvalidHeader, InvalidJSON

DEFAULT_CONTENT_TYPE = "application/octet-stream"
JSON_CONTENT_TYPE = "application/json"
MAX_CONTENT_TYPE_LENGTH = 255

_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_SPACES = bytes.maketrans(b"\r\n", b"  ")
_JSON_WHITESPACE = b" \t\r\n"


@lru_cache(maxsize=1024)
def essence(content_type: str) -> str:
    """Return the type/subtype of a content type in lower case, without its parameters."""
    return content_type.partition(";")[0].strip().lower()


@lru_cache(maxsize=1024)
def validate(content_type: str) -> str:
    """Return a content type as it came, if it is one.

    Raises:
        InvalidHeader: no type/subtype, or over 255 characters.
    """
    if len(content_type) > MAX_CONTENT_TYPE_LENGTH or _MEDIA_TYPE.fullmatch(content_type) is None:
        raise InvalidHeader("Content-Type must be a media type such as application/json.")
    return content_type


def is_json(content_type: str) -> bool:
    """Whether streams of this type are in JSON mode (section 9.1)."""
    return essence(content_type) == JSON_CONTENT_TYPE


def is_text(content_type: str) -> bool:
    """Whether SSE carries streams of this type as they are, rather than in base64 (section 5.8)."""
    kind = essence(content_type)
    return kind.startswith("text/") or kind == JSON_CONTENT_TYPE


def holds_text(content_type: str) -> bool:
    """Whether streams of this type are one text, whose characters appends may cut: `text/*`."""
    return essence(content_type).startswith("text/")


def same_type(one: str, other: str) -> bool:
    """Whether two content types are the same stream type: equal but for case and parameters."""
    return one == other or essence(one) == essence(other)


def pack(content_type: str, body: bytes) -> bytes:
    """Return what an append of `body` adds to a stream of `content_type`, as it is stored.

    Raises:
        InvalidJSON: JSON mode, and the body is no JSON text in UTF-8 (section 9.1.4).
        EmptyAppend: JSON mode, and the body is an empty array (section 9.1.3).
    """
    if essence(content_type) != JSON_CONTENT_TYPE:
        return body
    messages = split(body)
    if not messages:
        raise EmptyAppend("An empty array holds no message. Append at least one.")
    return b"\n".join(messages) + b"\n"


def pack_initial(content_type: str, body: bytes) -> bytes:
    """The same as `pack` for the body of a PUT, where nothing and an empty array make an empty stream."""
    if not body:
        return b""
    try:
        return pack(content_type, body)
    except EmptyAppend:
        return b""


def unpack(content_type: str, stored: bytes) -> bytes:
    """Return the response body for stored bytes: an array of messages in JSON mode, else the bytes themselves."""
    if essence(content_type) != JSON_CONTENT_TYPE:
        return stored
    return b"[" + stored[:-1].replace(b"\n", b",") + b"]"


_array = msgspec.json.Decoder(list[msgspec.Raw])
_value = msgspec.json.Decoder(msgspec.Raw)


def split(body: bytes) -> list[bytes]:
    """Return the messages in the body of a JSON append, each on one line: one level of array is flattened (9.1.2).

    Raises:
        InvalidJSON: the body is no JSON text in UTF-8.
    """
    is_array = body.lstrip(_JSON_WHITESPACE)[:1] == b"["
    try:
        if not body.isascii():
            body.decode()  # msgspec takes the bytes inside strings as they are
        parts = _array.decode(body) if is_array else [_value.decode(body)]
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"The body is not UTF-8: byte {error.start} cannot be decoded.") from error
    except RecursionError as error:
        raise InvalidJSON("The body is nested too deeply.") from error
    except msgspec.DecodeError as error:
        return _split_lenient(body, is_array, error)
    messages = [bytes(part) for part in parts]
    if b"\n" in body or b"\r" in body:
        return [message.translate(_SPACES) for message in messages]
    return messages


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


# Values are thrown away, so numbers need not be built: Python refuses integers of over 4,300 digits.
_scan = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=len, parse_float=len).raw_decode


def _split_lenient(body: bytes, is_array: bool, reason: Exception) -> list[bytes]:
    r"""Split what msgspec refuses and JSON's grammar allows: a lone half of a surrogate pair, written `\ud83d`.

    JavaScript's JSON.stringify writes it when a string, such as a token of a language model, ends in the middle of
    an emoji. Everything else is refused here again.
    """
    refusal = InvalidJSON(f"The body is not valid JSON: {reason}.")
    if b"\\u" not in body:
        raise refusal
    text = body.decode()
    whitespace = json.decoder.WHITESPACE.match  # type: ignore[attr-defined]
    messages: list[bytes] = []
    try:
        position = whitespace(text, 0).end()
        if not is_array:
            _, end = _scan(text, position)
            if whitespace(text, end).end() != len(text):
                raise refusal
            return [text[position:end].encode().translate(_SPACES)]
        position = whitespace(text, position + 1).end()
        while True:
            _, end = _scan(text, position)
            messages.append(text[position:end].encode().translate(_SPACES))
            position = whitespace(text, end).end()
            separator = text[position : position + 1]
            position = whitespace(text, position + 1).end()
            if separator == "]" and position == len(text):
                return messages
            if separator != ",":
                raise refusal
    except (ValueError, RecursionError) as error:
        raise refusal from error

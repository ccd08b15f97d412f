"""Content types, and JSON mode: how appends become stored bytes and stored bytes become bodies (section 9).

In JSON mode every message is stored as the client wrote it, on one line that ends with a line feed. Invariant: a line
feed in stored data is the end of a message. It holds because JSON allows line breaks only between tokens, where an
append turns them into spaces. So a read turns line feeds into commas, and parses nothing. The figures are in
docs/decisions/json-as-text.md.
"""

from __future__ import annotations

import re
from functools import lru_cache

from . import json_text
from .errors import EmptyAppend, InvalidHeader

DEFAULT_CONTENT_TYPE = "application/octet-stream"
JSON_CONTENT_TYPE = "application/json"
MAX_CONTENT_TYPE_LENGTH = 255

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
# Browsers read a comma outside of quotes as the start of another header, and use the last one (Fetch, section
# "extract a MIME type"). They would show the stream as a type that the server has not checked.
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}(?:[ \t]*;(?:[\t\x20\x21\x23-\x2b\x2d-\x7e\x80-\xff]|{_QUOTED})*)?")
_COMMAS = bytes.maketrans(b"\n", b",")

LARGE_BYTES = 64 * 1024
"""Stored bytes from which a translation table is faster than a search for line feeds, for any number of them."""


@lru_cache(maxsize=1024)
def essence(content_type: str) -> str:
    """Return the type/subtype of a content type in lower case, without its parameters."""
    return content_type.partition(";")[0].strip().lower()


@lru_cache(maxsize=1024)
def validate(content_type: str) -> str:
    """Return a content type unchanged.

    Raises:
        InvalidHeader: the value has no type/subtype, several of them, or over 255 characters.
    """
    if len(content_type) > MAX_CONTENT_TYPE_LENGTH or _MEDIA_TYPE.fullmatch(content_type) is None:
        raise InvalidHeader("Content-Type must be a media type such as application/json.")
    return content_type


@lru_cache(maxsize=1024)
def is_json(content_type: str) -> bool:
    """Whether streams of this type are in JSON mode (section 9.1)."""
    return essence(content_type) == JSON_CONTENT_TYPE


def is_text(content_type: str) -> bool:
    """Whether SSE carries streams of this type as text, and not in base64 (section 5.8)."""
    kind = essence(content_type)
    return kind.startswith("text/") or kind == JSON_CONTENT_TYPE


def holds_text(content_type: str) -> bool:
    """Whether streams of this type are one text, `text/*`: two appends may share a character."""
    return essence(content_type).startswith("text/")


def same_type(one: str, other: str) -> bool:
    """Whether two content types are the same stream type: equal but for case and parameters."""
    return one == other or essence(one) == essence(other)


def pack(content_type: str, body: bytes) -> bytes:
    """Return the stored form of the body of an append.

    Raises:
        InvalidJSON: in JSON mode, the body is no JSON text in UTF-8 (section 9.1.4).
        EmptyAppend: in JSON mode, the body is an empty array (section 9.1.3).
    """
    if essence(content_type) != JSON_CONTENT_TYPE:
        return body
    lines = json_text.to_lines(body)
    if not lines:
        raise EmptyAppend("An empty array holds no message. Append at least one.")
    return lines


def pack_initial(content_type: str, body: bytes) -> bytes:
    """The same as `pack` for the body of a PUT: no body and an empty array make an empty stream."""
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
    return b"[%b]" % messages_with_commas(stored[:-1])


def messages_with_commas(stored: bytes) -> bytes:
    """Return stored JSON messages, or a part of them, as the inside of an array."""
    return stored.translate(_COMMAS) if len(stored) > LARGE_BYTES else stored.replace(b"\n", b",")

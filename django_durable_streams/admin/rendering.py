"""Messages as text for pages: indented JSON, plain text, or bytes in hexadecimal, each up to a limit."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

import msgspec
from django.utils.translation import gettext as _

from ..protocol.segments import Message
from ..store.stream_info import StreamInfo
from .states import Kind

KIB = 1024


@dataclass(frozen=True)
class DisplayLimit:
    """How much of a message is shown: bytes of text or JSON, and bytes in hexadecimal."""

    text: int
    binary: int


LIST_LIMIT = DisplayLimit(text=4 * KIB, binary=256)
PAGE_LIMIT = DisplayLimit(text=512 * KIB, binary=16 * KIB)

_ONE_LINE_BYTES = 80
"""Bytes of JSON up to which it stays on one line."""

_MAX_DEPTH = 40
"""Levels of JSON up to which it is indented. The indentation grows with their square."""

_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])')
_ROW_BYTES = 16

# Control characters are invisible, and some change the text around them. Unicode has pictures of them.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}


@dataclass(frozen=True)
class DisplayedMessage:
    """A message for display. `start`, `end` and `size` are in bytes."""

    start: int
    end: int
    size: int
    kind: Kind
    text: str
    is_cut: bool
    offset: str
    """The offset after the message."""

    @property
    def note(self) -> str:
        """A hint that the text is not the whole message, or an empty text."""
        return _("Only the beginning is shown.") if self.is_cut else ""


def display(message: Message, info: StreamInfo, limit: DisplayLimit) -> DisplayedMessage:
    """Return a message of a stream for display, up to a limit."""
    kind = Kind.of(info.content_type)
    data = message.data
    if kind is Kind.BINARY:
        text, is_cut = hexadecimal(data[: limit.binary]), len(data) > limit.binary
    else:
        formatted = _format_json(data, limit.text) if kind is Kind.JSON else None
        is_cut = len(formatted if formatted is not None else data) > limit.text
        text = _decode((formatted if formatted is not None else data)[: limit.text], is_cut=is_cut)
    size = len(data) if kind is Kind.JSON else message.end - message.start
    return DisplayedMessage(message.start, message.end, size, kind, text, is_cut, info.token(message.end))


def _format_json(data: bytes, limit: int) -> bytes | None:
    """Return JSON with line breaks and indentation. Its numbers and strings do not change.

    None: the JSON is too long or too deep, or it has a lone surrogate, which JSON allows and the parser refuses.
    """
    if len(data) > limit or _depth(data) > _MAX_DEPTH:
        return None
    try:
        return msgspec.json.format(data, indent=0 if len(data) <= _ONE_LINE_BYTES else 2)
    except (msgspec.DecodeError, RecursionError):
        return None


def _depth(data: bytes) -> int:
    """Return an upper bound of the depth of JSON, exact if there are many brackets."""
    opening = data.count(b"[") + data.count(b"{")
    if opening <= _MAX_DEPTH:
        return opening
    depth = deepest = 0
    for bracket in _STRUCTURE.finditer(data):
        depth += (bracket[1] is not None) - (bracket[2] is not None)
        deepest = max(deepest, depth)
    return deepest


def _decode(data: bytes, *, is_cut: bool) -> str:
    # The part of a character at a cut is left out. Other invalid UTF-8 shows as replacement characters.
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(data, final=not is_cut)
    return text.replace("\r\n", "\n").translate(_PICTURES)


def hexadecimal(data: bytes) -> str:
    """Return bytes in rows of sixteen: the position, the bytes in hexadecimal, and their ASCII characters."""
    rows = []
    for first in range(0, len(data), _ROW_BYTES):
        row = data[first : first + _ROW_BYTES]
        ascii_ = "".join(chr(byte) if 0x20 <= byte < 0x7F else "·" for byte in row)
        rows.append(f"{first:08x}  {row[:8].hex(' '):23}  {row[8:].hex(' '):23}  {ascii_}".rstrip())
    return "\n".join(rows)

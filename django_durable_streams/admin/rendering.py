"""How a message is shown: JSON laid out, text as it is, bytes in hexadecimal; as much of it as has room."""

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
class Room:
    """How much of a message is shown: bytes of text, and bytes in hexadecimal."""

    text: int
    binary: int


IN_LIST = Room(text=4 * KIB, binary=256)
ALONE = Room(text=512 * KIB, binary=16 * KIB)

_ONE_LINE = 80
"""Bytes of JSON that stay on one line."""

_MAX_DEPTH = 40
"""Levels of JSON that are laid out: indentation grows with their square."""

_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])')
_ROW = 16

# Control characters would be invisible, or worse; Unicode has pictures of them.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}


@dataclass(frozen=True)
class ShownMessage:
    """A message as a page shows it."""

    start: int
    end: int
    size: int
    kind: Kind
    text: str
    is_cut: bool
    offset: str
    """The offset after the message, as the protocol writes it."""

    @property
    def note(self) -> str:
        """What a person should know who takes the text for the message."""
        return _("Only its beginning is shown.") if self.is_cut else ""


def show(message: Message, info: StreamInfo, room: Room) -> ShownMessage:
    """Return a message of a stream as it is shown where there is some room."""
    kind = Kind.of(info.content_type)
    data = message.data
    if kind is Kind.BINARY:
        text, is_cut = hexadecimal(data[: room.binary]), len(data) > room.binary
    else:
        laid_out = _lay_out(data, room.text) if kind is Kind.JSON else None
        is_cut = len(laid_out if laid_out is not None else data) > room.text
        text = _decode((laid_out if laid_out is not None else data)[: room.text], is_cut=is_cut)
    size = len(data) if kind is Kind.JSON else message.end - message.start
    return ShownMessage(message.start, message.end, size, kind, text, is_cut, info.token(message.end))


def _lay_out(data: bytes, room: int) -> bytes | None:
    """Return JSON with line breaks and indentation, its numbers and strings as they were written.

    None where that is not to be had: it is too long, too deep, or has strings that end in half a character, which
    JSON allows and the parser does not.
    """
    if len(data) > room or _depth(data) > _MAX_DEPTH:
        return None
    try:
        return msgspec.json.format(data, indent=0 if len(data) <= _ONE_LINE else 2)
    except (msgspec.DecodeError, RecursionError):
        return None


def _depth(data: bytes) -> int:
    """Return how deeply JSON is nested, or a bit more."""
    opening = data.count(b"[") + data.count(b"{")
    if opening <= _MAX_DEPTH:
        return opening
    depth = deepest = 0
    for found in _STRUCTURE.finditer(data):
        depth += (found[1] is not None) - (found[2] is not None)
        deepest = max(deepest, depth)
    return deepest


def _decode(data: bytes, *, is_cut: bool) -> str:
    # Cut inside a character, what is there of it is left out; everything else that is no UTF-8 shows as such.
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(data, final=not is_cut)
    return text.replace("\r\n", "\n").translate(_PICTURES)


def hexadecimal(data: bytes) -> str:
    """Return bytes in rows of sixteen: where they are, in hexadecimal, and the ASCII among them."""
    rows = []
    for first in range(0, len(data), _ROW):
        row = data[first : first + _ROW]
        ascii_ = "".join(chr(byte) if 0x20 <= byte < 0x7F else "·" for byte in row)
        rows.append(f"{first:08x}  {row[:8].hex(' '):23}  {row[8:].hex(' '):23}  {ascii_}".rstrip())
    return "\n".join(rows)

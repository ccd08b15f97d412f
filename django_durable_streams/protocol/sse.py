"""Server-Sent Events in the format of the protocol (specification, section 5.8)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

from . import content, text

KEEP_ALIVE = b":\n\n"
"""A comment, which clients ignore: traffic for proxies that cut idle connections."""

PIECE_BYTES = 48 * 1024
"""Stored bytes in a piece of a large event. In base64 it has to be a multiple of three."""

_INSEPARABLE = (b"\r\n", b"\r ", b"\n ")


def event_id(offset: str) -> bytes:
    """Return the first line of an event: its id, which is the offset after its data.

    Clients of the protocol ignore it. A browser's `EventSource` sends the last id back when it reconnects.
    """
    return b"id:" + offset.encode("ascii") + b"\n"


def split(data: bytes, *, final: bool = False) -> tuple[bytes, bytes]:
    """Return the part of a text that an event can carry, and the part that it holds back.

    It holds back an incomplete character (see `text`). It also holds back a carriage return, which may be half of a
    line break: cut in two, the line break would arrive as two.
    """
    data, held = text.split(data, final=final)
    if data.endswith(b"\r") and not (held or final):
        return data[:-1], b"\r"
    return data, held


def data_event(content_type: str, stored: bytes) -> bytes:
    """Return the `data` event for stored bytes: text unchanged, JSON messages as an array, other data in base64.

    Each of the three kinds of line breaks in the payload starts a new `data:` line, so no payload can end the event or
    forge another one. Clients strip one space after the colon. So a line that begins with a space, as tokens of
    language models do, gets one more. An event stream is UTF-8, so invalid bytes of a text are replaced (U+FFFD).
    """
    if content.is_json(content_type):
        # Line feeds end messages here and become commas. A carriage return cannot occur (see `content`).
        return b"event: data\ndata:" + content.unpack(content_type, stored) + b"\n\n"
    if not content.is_text(content_type):
        return b"event: data\ndata:" + b64encode(stored) + b"\n\n"
    return b"event: data\n" + data_field(text.valid(stored)) + b"\n"


def event_pieces(content_type: str, stored: bytes) -> Iterator[bytes]:
    """Yield the same event in pieces. Each takes a millisecond or two, so that a large event delays no other work."""
    if content.is_json(content_type):
        yield b"event: data\ndata:["
        for start in range(0, len(stored) - 1, PIECE_BYTES):
            yield content.messages_with_commas(stored[start : min(start + PIECE_BYTES, len(stored) - 1)])
        yield b"]\n\n"
    elif not content.is_text(content_type):
        yield b"event: data\ndata:"
        for start in range(0, len(stored), PIECE_BYTES):
            yield b64encode(stored[start : start + PIECE_BYTES])
        yield b"\n\n"
    else:
        yield b"event: data\ndata: " if stored.startswith(b" ") else b"event: data\ndata:"
        for piece in _pieces(stored):
            yield _data_lines(text.valid(piece))
        yield b"\n\n"


def data_field(text: bytes) -> bytes:
    """Return a text as the `data:` lines of an event. See `data_event` for its line breaks and spaces."""
    first = b"data: " if text.startswith(b" ") else b"data:"
    return first + _data_lines(text) + b"\n"


def _data_lines(text: bytes) -> bytes:
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    # After the first step, "data:" and the beginning of the line follow every line feed.
    return text.replace(b"\n", b"\ndata:").replace(b"\ndata: ", b"\ndata:  ")


def _pieces(stored: bytes) -> Iterator[bytes]:
    """Yield a text in pieces. None ends inside a character or a line break, or between a line break and a space."""
    start = 0
    while start < len(stored):
        end = start + PIECE_BYTES
        while stored[end - 1 : end + 1] in _INSEPARABLE:
            end += 1
        if end < len(stored):
            end -= text.incomplete(stored[max(start, end - text.MAX_HELD) : end]) if end - start > text.MAX_HELD else 0
        yield stored[start:end]
        start = end


def control_event(offset: str, *, cursor: int | None, up_to_date: bool, closed: bool) -> bytes:
    """Return the `control` event that follows every `data` event.

    Args:
        offset: offset at which the reader continues.
        cursor: the cursor of section 10.1, or None. A closed stream has none, because no client reconnects.
        up_to_date: whether the reader has all data of the stream.
        closed: whether the stream is closed, and the reader has all of it.
    """
    fields = f'{{"streamNextOffset":"{offset}"'
    if closed:
        fields += ',"streamClosed":true'
    elif cursor is not None:
        fields += f',"streamCursor":"{cursor}"'
    if up_to_date:
        fields += ',"upToDate":true'
    return b"event: control\ndata:" + fields.encode("ascii") + b"}\n\n"

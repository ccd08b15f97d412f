"""UTF-8 in pieces: appends to a stream of `text/*` may end anywhere, and so do characters.

Whoever hands out text holds back the bytes at the end that begin a character, at most three, until they are complete.
What can never become a character, and what is incomplete where a stream ends, is a replacement character (U+FFFD).
"""

from __future__ import annotations

from codecs import utf_8_decode

MAX_HELD = 3
"""Bytes of a character that is incomplete, at the most."""


def incomplete(data: bytes) -> int:
    """Return how many bytes at the end begin a character that others may complete."""
    if not data or data[-1] < 0x80:
        return 0
    end = data[-MAX_HELD:]
    return len(end) - utf_8_decode(end, "replace", False)[1]


def split(data: bytes, *, final: bool = False) -> tuple[bytes, bytes]:
    """Return what can be handed out, and what is held back; if the text is `final`, nothing is."""
    count = 0 if final else incomplete(data)
    return (data[:-count], data[-count:]) if count else (data, b"")


def is_cut(data: bytes) -> bool:
    """Whether data begins with the rest of a character, of which other bytes before may have the beginning."""
    return data[:1] != b"" and data[0] & 0xC0 == 0x80


def decode(data: bytes) -> str:
    """Return bytes as text."""
    return data.decode(errors="replace")


def valid(data: bytes) -> bytes:
    """Return bytes as UTF-8, with replacement characters for what is none."""
    if data.isascii():
        return data
    try:
        data.decode()
    except UnicodeDecodeError:
        return decode(data).encode()
    return data

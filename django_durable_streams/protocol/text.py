"""UTF-8 in pieces: an append to a stream of `text/*` may end inside a character.

A reader holds back the bytes at the end that begin a character, at most three, until the character is complete. Bytes
that cannot become a character, and an incomplete character at the end of a stream, become U+FFFD.
"""

from __future__ import annotations

from codecs import utf_8_decode

MAX_HELD = 3
"""Most bytes of an incomplete character."""


def incomplete(data: bytes) -> int:
    """Return how many bytes at the end begin a character that later bytes may complete."""
    if not data or data[-1] < 0x80:
        return 0
    end = data[-MAX_HELD:]
    return len(end) - utf_8_decode(end, "replace", False)[1]


def split(data: bytes, *, final: bool = False) -> tuple[bytes, bytes]:
    """Return the complete characters, and the bytes to hold back. With `final`, no bytes are held back."""
    count = 0 if final else incomplete(data)
    return (data[:-count], data[-count:]) if count else (data, b"")


def is_cut(data: bytes) -> bool:
    """Whether data begins inside a character whose first bytes may be before the data."""
    return data[:1] != b"" and data[0] & 0xC0 == 0x80


def decode(data: bytes) -> str:
    """Return bytes as text, with replacement characters for invalid bytes."""
    return data.decode(errors="replace")


def valid(data: bytes) -> bytes:
    """Return bytes as valid UTF-8, with replacement characters for invalid bytes."""
    if data.isascii():
        return data
    try:
        data.decode()
    except UnicodeDecodeError:
        return decode(data).encode()
    return data

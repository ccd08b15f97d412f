"""Offsets: the opaque tokens that name a position in a stream (specification, section 8).

A token is two zero-padded numbers of 16 digits, joined by an underscore, so that tokens sort as text in the order
of their positions. The first number is reserved and always zero; the second is the position: the count of bytes
before it, as they are stored. The rest of the package deals in positions only; tokens exist on the wire.
"""

from __future__ import annotations

import re
from enum import Enum

from .errors import InvalidOffset

# [0-9], not \d: other scripts have digits too.
_TOKEN = re.compile(r"([0-9]{16})_([0-9]{16})")

MAX_POSITION = 10**16 - 1
"""The largest position that a token can hold, in bytes."""

BEYOND = MAX_POSITION + 1
"""The position of a token that no stream of this server can have handed out: past every tail."""


class Sentinel(Enum):
    """The offsets that are words instead of positions (section 8, "Sentinel Values")."""

    START = "-1"
    NOW = "now"


def encode(position: int) -> str:
    """Return the token of a position, given in bytes."""
    return f"0000000000000000_{position:016d}"


def encode_bytes(position: int) -> bytes:
    """Return the token of a position as it stands in a header."""
    return b"0000000000000000_%016d" % position


def decode(token: str) -> int | Sentinel:
    """Return the position in bytes that a client's token names, or the sentinel that it is.

    Raises:
        InvalidOffset: the token is not one that a server of this kind hands out (400).
    """
    match = _TOKEN.fullmatch(token)
    if match is not None:
        return int(match[2]) if match[1] == "0000000000000000" else BEYOND
    if token == "-1":
        return Sentinel.START
    if token == "now":
        return Sentinel.NOW
    raise InvalidOffset(
        "The offset is not valid. Use -1, now, or a Stream-Next-Offset exactly as the server returned it."
    )

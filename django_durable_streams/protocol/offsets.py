"""Offsets: the opaque tokens that name a position in a stream (specification, section 8).

A token is two zero-padded numbers of 16 digits, joined by an underscore: a generation, and a position, which is the
count of bytes before it, as they are stored. The generation says which stream the byte before the position was appended
to: a stream that is made anew at a path has another one than its predecessor had, and a fork a greater one than its
source. So the tokens of a stream sort as text in the order of their positions, those of a fork are its source's up to
the cut, and a token of a stream that is no more is told from those of its successor. The token of position 0 is the
same in all streams: nothing lies before it.

What a token means depends on the stream (`store.info.StreamInfo.locate`). The rest of the package deals in positions.
"""

from __future__ import annotations

import re
import time
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from .errors import InvalidOffset

# [0-9], not \d: other scripts have digits too.
_TOKEN = re.compile(r"([0-9]{16})_([0-9]{16})")

MAX_NUMBER = 10**16 - 1
"""The largest position, in bytes, and the largest generation that a token can hold."""

ZERO = "0000000000000000_0000000000000000"
"""The token of position 0."""
_ZERO = ZERO.encode("ascii")


class Sentinel(Enum):
    """The offsets that are words instead of positions (section 8, "Sentinel Values")."""

    START = "-1"
    NOW = "now"


class Offset(NamedTuple):
    """What a token says: a generation, and a position in bytes."""

    generation: int
    position: int

    def __str__(self) -> str:
        return encode(*self)


def new_generation(after: int = 0) -> int:
    """Return the generation of a stream that is made now: microseconds since 1970, and more than `after`.

    Numbers that count streams would tell clients how many there are, and come again after a backup was restored.
    """
    return max(time.time_ns() // 1000, after + 1)


def encode(generation: int, position: int) -> str:
    """Return the token of a position. `generation` is that of the stream to which the byte before it was appended."""
    return f"{generation:016d}_{position:016d}" if position else ZERO


def encode_bytes(generation: int, position: int) -> bytes:
    """Return the token of a position as it stands in a header."""
    return b"%016d_%016d" % (generation, position) if position else _ZERO


@lru_cache(maxsize=1024)
def decode(token: str) -> Offset | Sentinel:
    """Return what a client's token says, or the sentinel that it is. Whether it is one of a stream is still to be seen.

    Raises:
        InvalidOffset: the token is not one that a server of this kind hands out (400).
    """
    match = _TOKEN.fullmatch(token)
    if match is not None:
        return Offset(int(match[1]), int(match[2]))
    if token == "-1":
        return Sentinel.START
    if token == "now":
        return Sentinel.NOW
    raise InvalidOffset(
        "The offset is not valid. Use -1, now, or a Stream-Next-Offset exactly as the server returned it."
    )

"""Offsets: the opaque tokens that name a position in a stream (specification, section 8).

A token is two zero-padded numbers of 16 digits, joined by an underscore: a generation, and a position. The position is
the number of stored bytes before it. The generation is that of the stream to which the last of these bytes was
appended. Each new stream at a path has a new generation, and a fork a greater one than its source. Consequences:

- The tokens of a stream sort as text in the order of their positions.
- Up to the cut, a fork has the tokens of its source.
- A token of an earlier stream at the path differs from those of the present stream.
- The token of position 0 is the same in all streams, because no byte precedes it.

The stream decides what a token means (`store.stream_info`). The rest of the package uses positions.
"""

from __future__ import annotations

import re
import time
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from .errors import InvalidOffset

# [0-9] and not \d, which matches digits of other scripts.
_TOKEN = re.compile(r"([0-9]{16})_([0-9]{16})")

MAX_NUMBER = 10**16 - 1
"""The largest position, in bytes, and the largest generation that a token can hold."""

ZERO = "0000000000000000_0000000000000000"
"""The token of position 0."""
_ZERO = ZERO.encode("ascii")


class Sentinel(Enum):
    """Offsets that are words (section 8, "Sentinel Values")."""

    START = "-1"
    NOW = "now"

    __hash__ = object.__hash__  # Enum's own is a function in Python, and each read hashes its offset


class Offset(NamedTuple):
    """The content of a token: a generation, and a position in bytes."""

    generation: int
    position: int

    def __str__(self) -> str:
        return encode(*self)


def new_generation(after: int = 0) -> int:
    """Return the generation of a new stream: microseconds since 1970, and greater than `after`.

    A count of streams would show clients how many there are, and would repeat after the restore of a backup.
    """
    return max(time.time_ns() // 1000, after + 1)


def encode(generation: int, position: int) -> str:
    """Return the token of a position. `generation`: that of the stream to which the byte before it was appended."""
    # A format takes twice as long.
    return str(generation).zfill(16) + "_" + str(position).zfill(16) if position else ZERO


def encode_bytes(generation: int, position: int) -> bytes:
    """Return the token of a position as the bytes of a header."""
    return b"%016d_%016d" % (generation, position) if position else _ZERO


@lru_cache(maxsize=1024)
def decode(token: str) -> Offset | Sentinel:
    """Return the parsed token of a client, or the sentinel. It may not belong to the stream of the request.

    Raises:
        InvalidOffset: the text is no token of this server and no sentinel (400).
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

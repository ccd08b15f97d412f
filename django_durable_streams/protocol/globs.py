"""Glob patterns over the paths of streams (specification, section 6.2).

`*` matches one segment, `**` any number of segments, also none. All other segments match themselves. Knows no
subscription.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from .errors import InvalidPath
from .paths import MAX_PATH_LENGTH, validate

ONE, ANY = "*", "**"


class Glob:
    """A compiled pattern.

    Attributes:
        text: the pattern as it was written.
        prefix: the text with which every matching path begins.

    Raises:
        InvalidPath: no path can match the pattern, or a segment has a wildcard among other characters.
    """

    __slots__ = ("_segments", "prefix", "text")

    def __init__(self, text: str) -> None:
        if not text or len(text) > MAX_PATH_LENGTH:
            raise InvalidPath(f"A pattern of paths has 1 to {MAX_PATH_LENGTH} characters.")
        segments = text.split("/")
        for segment in segments:
            if "*" in segment and segment not in (ONE, ANY):
                raise InvalidPath(
                    f"In the pattern {text!r}, {segment!r} is not allowed. A wildcard is a whole segment: * matches "
                    "one segment, ** any number."
                )
        validate("/".join("x" if segment in (ONE, ANY) else segment for segment in segments))
        self.text = text
        # One `**` after another adds nothing.
        self._segments = [
            segment
            for number, segment in enumerate(segments)
            if segment != ANY or segments[number - 1 : number] != [ANY]
        ]
        literals = self._segments[: next((n for n, one in enumerate(segments) if one in (ONE, ANY)), len(segments))]
        is_literal = len(literals) == len(self._segments)
        # `a/**` matches `a`, too.
        ends_open = not is_literal and self._segments[len(literals)] == ONE
        self.prefix = "/".join([*literals, ""] if ends_open and literals else literals)

    def matches(self, path: str) -> bool:
        """Return whether a path matches. Takes at most the product of both numbers of segments."""
        return path.startswith(self.prefix) and _matches(self._segments, path.split("/"))

    def __repr__(self) -> str:
        return f"Glob({self.text!r})"


def _matches(pattern: Sequence[str], path: Sequence[str]) -> bool:
    """Match segment by segment. On a mismatch, only the last `**` takes one segment more: no earlier one has to."""
    at = taken = 0
    last_any, resume = -1, 0
    while taken < len(path):
        segment = pattern[at] if at < len(pattern) else None
        if segment == ANY:
            last_any, resume = at, taken
            at += 1
        elif segment is not None and (segment in (ONE, path[taken])):
            at += 1
            taken += 1
        elif last_any >= 0:
            resume += 1
            at, taken = last_any + 1, resume
        else:
            return False
    return all(segment == ANY for segment in pattern[at:])


@lru_cache(maxsize=1024)
def glob(text: str) -> Glob:
    """Return the compiled pattern of a text. Compiled patterns are cached.

    Raises:
        InvalidPath: as for `Glob`.
    """
    return Glob(text)

"""Requests to list streams: a prefix of their paths, a pattern, and the cursor of the page before. Knows no database.

The specification has no listing. Its place, `__ds/streams`, is in the namespace of control APIs (section 6).
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple

from .errors import InvalidParameter
from .globs import Glob, glob
from .paths import FORBIDDEN, MAX_PATH_LENGTH

MAX_LIMIT = 1000
"""The largest number of streams in a page."""

DEFAULT_LIMIT = 100

_MAX_CURSOR_LENGTH = 4 * MAX_PATH_LENGTH * 4 // 3 + 4
_LAST = "\U0010ffff"
_BEFORE_SURROGATES, _AFTER_SURROGATES = "\ud7ff", "\ue000"


class ListingQuery(NamedTuple):
    """Which streams to list, in the order of their paths."""

    prefix: str = ""
    """Text with which the paths begin. It may end inside a segment."""
    pattern: Glob | None = None
    """A pattern that they match, too."""
    after: str = ""
    """The path after which the page begins."""
    limit: int = DEFAULT_LIMIT

    @classmethod
    def of(cls, prefix: str = "", pattern: str = "", cursor: str = "", limit: int = DEFAULT_LIMIT) -> ListingQuery:
        """Return the query for the values of a client or caller.

        Raises:
            InvalidParameter: the prefix, the cursor or the limit is invalid (400).
            InvalidPath: no path can match the pattern (400).
        """
        if not isinstance(prefix, str) or len(prefix) > MAX_PATH_LENGTH or FORBIDDEN.search(prefix) is not None:
            raise InvalidParameter(f"A prefix has at most {MAX_PATH_LENGTH} characters, which a path can have.")
        if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
            raise InvalidParameter(f"The limit must be a whole number from 1 to {MAX_LIMIT}.")
        return cls(prefix, glob(pattern) if pattern else None, path_of_cursor(cursor) if cursor else "", limit)

    def after_cursor(self, cursor: str) -> ListingQuery:
        """Return the query for the next page."""
        return self._replace(after=path_of_cursor(cursor))

    @property
    def common_prefix(self) -> str:
        """The text with which each of the paths begins, because of the prefix or of the pattern."""
        literal = self.pattern.prefix if self.pattern is not None else ""
        return literal if literal.startswith(self.prefix) else self.prefix


def end_of_prefix(prefix: str) -> str | None:
    """Return the smallest text after all texts that begin with a prefix, by code points. None: there is no such text.

    A range has the same meaning in every database. LIKE does not: some fold case, and some use no index for it.
    """
    rest = prefix.rstrip(_LAST)
    if not rest:
        return None
    last = rest[-1]
    return rest[:-1] + (_AFTER_SURROGATES if last == _BEFORE_SURROGATES else chr(ord(last) + 1))


def cursor_of_path(path: str) -> str:
    """Return the cursor for the page after a path."""
    return urlsafe_b64encode(path.encode()).rstrip(b"=").decode("ascii")


def path_of_cursor(cursor: str) -> str:
    """Return the path after which a page begins.

    Raises:
        InvalidParameter: no page returned this cursor (400).
    """
    try:
        if not isinstance(cursor, str) or not 0 < len(cursor) <= _MAX_CURSOR_LENGTH:
            raise ValueError
        path = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        if cursor_of_path(path) != cursor or FORBIDDEN.search(path) is not None:
            raise ValueError
    except ValueError as error:
        raise InvalidParameter("The cursor is not valid. Send the cursor of the last page exactly.") from error
    return path

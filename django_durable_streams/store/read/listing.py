"""Listing: the streams that can be read, page by page in the order of their paths.

A page begins after a path, so pages neither repeat nor miss streams that exist all the time, whatever is created and
deleted meanwhile. The unique index of the paths serves it. Knows no request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ... import clock
from ...models import Stream
from ...protocol import offsets
from ...protocol.listings import MAX_LIMIT, ListingQuery, cursor_of_path
from . import lineage, log_reader

MAX_EXAMINED = 5 * MAX_LIMIT
"""Rows that one page compares with a pattern. A page of a rare pattern may be empty, and still have a cursor."""

_COLUMNS = (
    "id",
    "path",
    "content_type",
    "generation",
    "tail_position",
    "closed",
    "ttl",
    "expires_at",
    "created_at",
    "appended_at",
    "fork_position",
)


class ListedStream(NamedTuple):
    """A stream in a listing. Times are aware, in UTC."""

    path: str
    content_type: str
    next_offset: str
    """The offset of the tail (`Stream-Next-Offset`)."""
    size: int
    """Stored bytes up to the tail. A fork counts what it shares with its source."""
    closed: bool
    ttl: int | None
    """Seconds of idle life."""
    expires_at: datetime | None
    created_at: datetime
    appended_at: datetime | None
    """The time of the last append."""
    id: int
    """The key of the row, which clients never see."""


class ListingPage(NamedTuple):
    """Some of the streams, and the cursor with which the next page begins. None: no streams follow."""

    streams: Sequence[ListedStream]
    cursor: str | None


def page(query: ListingQuery, using: str) -> ListingPage:
    """Return a page of the streams that can be read.

    Args:
        query: which streams.
        using: alias of the database.
    """
    rows: list[tuple[Any, ...]] = []
    after, examined, limit = query.after, 0, query.limit
    matches = query.pattern.matches if query.pattern is not None else None
    while True:
        # Without a pattern, one row more tells whether another page follows.
        portion = limit - len(rows) + 1 if matches is None else MAX_LIMIT
        fetched = list(_rows(query, after, using)[:portion])
        for row in fetched:
            if len(rows) == limit:
                return ListingPage(_listed(rows, using), cursor_of_path(after))
            after, examined = row[1], examined + 1
            if matches is None or matches(after):
                rows.append(row)
        if len(fetched) < portion:
            return ListingPage(_listed(rows, using), None)
        if examined >= MAX_EXAMINED:
            return ListingPage(_listed(rows, using), cursor_of_path(after))


def pages(query: ListingQuery, using: str) -> Iterator[Sequence[ListedStream]]:
    """Yield the streams from a query on, page by page, with the streams of one page in memory."""
    cursor: str | None = ""
    while cursor is not None:
        streams, cursor = page(query, using)
        if streams:
            yield streams
        if cursor is not None:
            query = query.after_cursor(cursor)


def _rows(query: ListingQuery, after: str, using: str) -> Any:
    streams = Stream.objects.using(using).alive().with_prefix(query.common_prefix)
    if after:
        streams = streams.filter(path__gt=after)
    return streams.order_by("path").values_list(*_COLUMNS)


def _listed(rows: Sequence[tuple[Any, ...]], using: str) -> list[ListedStream]:
    # A fork without appends of its own ends with an offset of a source, which its lineage has.
    bare_forks = {row[0]: row[4] for row in rows if row[10] is not None and row[10] == row[4]}
    tokens: dict[int, str] = {}
    if bare_forks:
        infos = log_reader.find_ids(bare_forks, using)
        around = lineage.look_up([(info, info.tail - 1, info.tail) for info in infos.values()], using)
        tokens = {info.id: info.token(bare_forks[info.id]) for info in around}
    return [
        ListedStream(
            path,
            content_type,
            tokens.get(stream_id) or offsets.encode(generation, tail),
            tail,
            closed,
            ttl,
            _utc(expires_at),
            clock.from_project(created_at).astimezone(UTC),
            _utc(appended_at),
            stream_id,
        )
        for (
            stream_id,
            path,
            content_type,
            generation,
            tail,
            closed,
            ttl,
            expires_at,
            created_at,
            appended_at,
            _,
        ) in rows
    ]


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else clock.from_project(moment).astimezone(UTC)

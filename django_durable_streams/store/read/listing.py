"""Listing: the streams that can be read, page by page in the order of their paths.

A page begins after a path, so pages neither repeat nor miss streams that exist all the time, whatever is created and
deleted meanwhile. The unique index of the paths serves it. Knows no request.

The rows are fetched without Django's conversion, which calls several functions for each value: with it, a listing took
several times as long as the database's own query. `time_reader` converts what a driver returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import connections
from django.utils import timezone

from ... import clock
from ...models import Stream
from ...protocol import offsets
from ...protocol.listings import MAX_LIMIT, ListingQuery, cursor_of_path, end_of_prefix
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
_TIMES = ("created_at", "appended_at")
"""Columns that SQLite returns as text: its driver would call a function of Django for each."""


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


class StreamKey(NamedTuple):
    """What names one stream: its path, and the id of its row, which a new stream at the path does not have."""

    path: str
    id: int


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
    values, cursor = page_values(query, using)
    return ListingPage([*map(ListedStream._make, values)], cursor)


def page_values(query: ListingQuery, using: str) -> tuple[list[tuple[Any, ...]], str | None]:
    """Return the values of the `ListedStream` of each stream of a page, and the cursor of the next page."""
    if query.pattern is None:
        # One row more tells whether another page follows.
        fetched = _fetch(query, query.after, _COLUMNS, query.limit + 1, using)
        rows = fetched[: query.limit]
        return _values(rows, using), cursor_of_path(rows[-1][1]) if len(fetched) > len(rows) else None
    rows, after, examined = [], query.after, 0
    while True:
        fetched = _fetch(query, after, _COLUMNS, MAX_LIMIT, using)
        for row in fetched:
            if len(rows) == query.limit:
                return _values(rows, using), cursor_of_path(after)
            after, examined = row[1], examined + 1
            if query.pattern.matches(after):
                rows.append(row)
        if len(fetched) < MAX_LIMIT:
            return _values(rows, using), None
        if examined >= MAX_EXAMINED:
            return _values(rows, using), cursor_of_path(after)


def pages(query: ListingQuery, using: str) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the values of the `ListedStream` of each stream from a query on, with one page at a time in memory."""
    cursor: str | None = ""
    while cursor is not None:
        values, cursor = page_values(query, using)
        if values:
            yield values
        if cursor is not None:
            query = query.after_cursor(cursor)


def keys(query: ListingQuery, using: str) -> Iterator[list[StreamKey]]:
    """Yield the keys of the streams from a query on, page by page."""
    for page_rows in rows(query, ("path", "id"), using):
        yield [*map(StreamKey._make, page_rows)]


def rows(query: ListingQuery, columns: Sequence[str], using: str) -> Iterator[list[tuple[Any, ...]]]:
    """Yield fields of the streams from a query on, with one page at a time in memory.

    Args:
        query: which streams.
        columns: names of fields of `Stream`, the first of them `path`. `time_reader` converts times.
        using: alias of the database.
    """
    matches = query.pattern.matches if query.pattern is not None else None
    after = query.after
    while True:
        fetched = _fetch(query, after, columns, query.limit, using)
        if matching := fetched if matches is None else [row for row in fetched if matches(row[0])]:
            yield matching
        if len(fetched) < query.limit:
            return
        after = fetched[-1][0]


def _fetch(query: ListingQuery, after: str, columns: Sequence[str], limit: int, using: str) -> list[tuple[Any, ...]]:
    """Return rows in the order of their paths, with the values as the driver returns them."""
    prefix = query.common_prefix
    end = end_of_prefix(prefix)
    bounds = {">": after, ">=": prefix, "<": end} if after else {">=": prefix, "<": end}
    conditions = {sign: text for sign, text in bounds.items() if text is not None}
    with connections[using].cursor() as cursor:
        parameters: list[Any] = [*conditions.values(), clock.to_microseconds(clock.now()), limit]
        cursor.execute(_sql(using, (*columns,), (*conditions,)), parameters)
        return [*cursor.fetchall()]


@lru_cache(maxsize=64)
def _sql(using: str, columns: tuple[str, ...], signs: tuple[str, ...]) -> str:
    """Return the query for streams that are `alive`. To make it by the ORM would take a fifth of the time of a page.

    Args:
        using: alias of the database.
        columns: names of fields of `Stream`.
        signs: how to compare the paths with each of the first parameters. The deadline and the limit follow.
    """
    quote = connections[using].ops.quote_name
    fields = {field.name: quote(field.column or field.name) for field in Stream._meta.concrete_fields}
    names = {name: fields[name] for name in (*columns, "path", "deadline", "deleted_at")}
    if connections[using].vendor == "sqlite":
        names |= {name: f"CAST({names[name]} AS text)" for name in _TIMES if name in names}
    paths = " AND ".join(f"{names['path']} {sign} %s" for sign in signs)
    return (
        f"SELECT {', '.join(names[column] for column in columns)} FROM {quote(Stream._meta.db_table)} WHERE {paths} "
        f"AND {names['deleted_at']} IS NULL AND ({names['deadline']} IS NULL OR {names['deadline']} > %s) "
        f"ORDER BY {names['path']} LIMIT %s"
    )


def _values(rows: Sequence[tuple[Any, ...]], using: str) -> list[tuple[Any, ...]]:
    # A fork without appends of its own ends with an offset of a source, which its lineage has.
    bare_forks = {row[0]: row[4] for row in rows if row[10] is not None and row[10] == row[4]}
    tokens: dict[int, str] = {}
    if bare_forks:
        infos = log_reader.find_ids(bare_forks, using)
        around = lineage.look_up([(info, info.tail - 1, info.tail) for info in infos.values()], using)
        tokens = {info.id: info.token(bare_forks[info.id]) for info in around}
    encode, time = offsets.encode, time_reader(using)
    return [
        (
            path,
            content_type,
            encode(generation, tail) if fork_position is None else tokens.get(stream_id) or encode(generation, tail),
            tail,
            bool(closed),
            ttl,
            None if expires_at is None else clock.from_microseconds(expires_at),
            time(created_at),
            None if appended_at is None else time(appended_at),
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
            fork_position,
        ) in rows
    ]


def time_reader(using: str) -> Callable[[Any], datetime]:
    """Return a function that returns a time of `rows` in UTC.

    Most drivers return times that are naive, in the time zone of the connection or, without `USE_TZ`, of the project.
    """
    zone: tzinfo = connections[using].timezone or timezone.get_default_timezone()
    from_text, epoch, naive_epoch = datetime.fromisoformat, clock.from_microseconds(0), datetime(1970, 1, 1)

    def general(moment: datetime) -> datetime:
        return clock.from_project(moment if moment.tzinfo is not None else moment.replace(tzinfo=zone))

    def text_in_utc(text: str) -> datetime:
        return from_text(text + "+00:00")

    def in_utc(moment: datetime) -> datetime:
        # `replace` takes ten times as long.
        return moment if moment.tzinfo is UTC else epoch + (moment - naive_epoch)

    if connections[using].vendor == "sqlite":
        return text_in_utc if zone is UTC else lambda text: general(from_text(text))
    return in_utc if zone is UTC else general

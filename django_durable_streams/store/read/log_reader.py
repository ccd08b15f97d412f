"""Reads: streams as they are now, and pages of their data, for many requests with few queries.

A page is a range of whole appends. It consists of segments from the cache and, for all pages together, of the missing
ones from one query. Knows no request and no event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from django.db import connections

from ... import clock
from ...models import Stream
from ...protocol import content, text
from ...protocol.errors import DurableStreamsError, OffsetTrimmed, ServiceUnavailable, StreamGone, StreamNotFound
from ...protocol.segments import Segment
from ..chunk_rows import segment_of
from ..sql import TO_THE_END, statements
from ..stream_info import LineageEntry, StreamInfo
from .lineage import MAX_PIECES, check_retained, has_runs, look_up
from .segment_cache import SegmentCache

logger = logging.getLogger(__name__)

MAX_PAGES_PER_QUERY = 8
"""Pages whose missing data one query fetches. This bounds the memory that a batch of reads takes."""

WARNING_SECONDS = 60.0
"""Time between two log lines about damaged data. Readers of damaged data come again and again."""

COMPACT_FROM_CHUNKS_IN_PAGE = 128
"""Chunks in one page from which a stream needs compaction. A compacted stream has far fewer."""

PageKey = tuple[int, int]
"""A stream's id and the position from which a page was requested."""


class PageRequest(NamedTuple):
    """A request for a page: from a position of a stream, up to about `limit` bytes."""

    info: StreamInfo
    position: int
    limit: int


def find(paths: Iterable[str], using: str) -> dict[str, StreamInfo | DurableStreamsError]:
    """Return the streams at some paths as they are now, or the error for a path that cannot be read.

    Takes one query, and a second one if a stream has expired.
    """
    now = clock.now()
    wanted = set(paths)
    results: dict[str, StreamInfo | DurableStreamsError] = {}
    expired: dict[int, str] = {}
    with connections[using].cursor() as cursor:
        rows = statements(using).select_streams(cursor, "path", wanted)
    for info in rows:
        if info.deleted_at is not None:
            results[info.path] = _gone()
        elif info.deadline is None or info.deadline > now:
            results[info.path] = info
        else:
            expired[info.id] = info.path
    if expired:  # an expired stream with forks counts as soft-deleted
        forks = Stream.objects.using(using).filter(source_id__in=expired, path__isnull=False)
        for source_id in forks.values_list("source_id", flat=True):
            if source_id is not None:
                results[expired[source_id]] = _gone()
    for path in wanted - results.keys():
        results[path] = StreamNotFound("There is no stream at this path. Create it with PUT.")
    return results


def _gone() -> StreamGone:
    return StreamGone("The stream was deleted; forks still read its data.")


def find_ids(ids: Iterable[int], using: str) -> dict[int, StreamInfo]:
    """Return the streams with some ids that still exist, by id, in one query."""
    now = clock.now()
    with connections[using].cursor() as cursor:
        rows = statements(using).select_streams(cursor, "id", set(ids))
    return {
        info.id: info
        for info in rows
        if info.path is not None and info.deleted_at is None and (info.deadline is None or info.deadline > now)
    }


def held_before(info: StreamInfo, position: int, using: str) -> bytes:
    """Return the bytes right before a position that begin a character.

    A reader of text that has read up to the position has not received these bytes.
    """
    if not content.holds_text(info.content_type) or position <= info.first_position:
        return b""
    start = max(position - text.MAX_HELD, info.first_position)
    segment = pages([PageRequest(info, start, position - start)], SegmentCache(0), using)[info.id, start]
    return b"" if segment is None else segment.held_before(position)


def explain_missing(info: StreamInfo, position: int, using: str) -> DurableStreamsError:
    """Return the error for a page that `pages` did not find although the stream had it: a new query tells."""
    present = find_ids([info.id], using).get(info.id)
    if present is None:  # its rows were deleted between the two queries
        return StreamNotFound("The stream was deleted.")
    try:
        check_retained(present, position, using)
    except OffsetTrimmed as error:
        return error
    return damaged(info.path)


def damaged(path: str) -> ServiceUnavailable:
    """Log that data of an existing stream is missing, and return the error for its readers."""
    global _next_warning
    now = time.monotonic()
    if now >= _next_warning:
        _next_warning = now + WARNING_SECONDS
        logger.error(
            "Data of the stream %s is damaged or missing. Restore it from a backup, or delete the stream.", path
        )
    return ServiceUnavailable("Data of this stream is damaged. Ask the operator of the server to restore it.")


_next_warning = 0.0


def pages(
    requests: Sequence[PageRequest],
    cache: SegmentCache,
    using: str,
    needs_compaction: set[int] | None = None,
) -> dict[PageKey, Segment | None]:
    """Return the requested pages, by stream id and position. None where no data follows the position.

    The result is None too if the data is incomplete: the stream was removed or trimmed meanwhile, or its data is
    damaged. A new query for the stream tells which (`explain_missing`).

    Args:
        requests: the requests.
        cache: segments of earlier reads. New segments are put into it.
        using: alias of the database.
        needs_compaction: a set to which the ids of streams with too many chunks in a page are added.
    """
    results: dict[PageKey, Segment | None] = {}
    waiting = []
    for request in requests:
        key = (request.info.id, request.position)
        if key not in results:
            results[key] = None
            if request.position < request.info.tail:
                waiting.append(request)
    for first in range(0, len(waiting), MAX_PAGES_PER_QUERY):
        some = waiting[first : first + MAX_PAGES_PER_QUERY]
        for request, page in zip(some, _read(some, cache, using, needs_compaction), strict=True):
            if page is not None and not page.data:
                page = _after_removed(request, page, cache, using)
            results[request.info.id, request.position] = page
    return results


def _read(
    requests: Sequence[PageRequest], cache: SegmentCache, using: str, needs_compaction: set[int] | None = None
) -> list[Segment | None]:
    """Return the pages of a few requests from the cache and one query. A page may have no message that is left."""
    requests = _with_pieces(requests, using)
    parts = [_parts(request, cache) for request in requests]
    gaps = [gap for request, some in zip(requests, parts, strict=True) for gap in _gaps(request, some, cache)]
    fetched = _fetch(gaps, using, needs_compaction) if gaps else {}
    return [_assemble(request, some, cache, fetched) for request, some in zip(requests, parts, strict=True)]


def _after_removed(request: PageRequest, page: Segment, cache: SegmentCache, using: str) -> Segment | None:
    """Return a page all of whose messages were removed, with the data that follows it.

    Gigabytes may have been removed. Each query covers twice as much as the one before, up to the memory of a batch.
    """
    pages_without_data, limit = [page], request.limit
    while not page.data and page.end < request.info.tail:
        limit = min(2 * limit, MAX_PAGES_PER_QUERY * request.limit)
        (following,) = _read([request._replace(position=page.end, limit=limit)], cache, using)
        if following is None:
            return None
        page = following.upto(following.start + request.limit)
        pages_without_data.append(page)
    return Segment.join(pages_without_data)


def _with_pieces(requests: Sequence[PageRequest], using: str) -> Sequence[PageRequest]:
    """Return the requests with pieces in place of runs where their pages may reach."""
    for request in requests:
        if request.info.lineage is not None and has_runs(request.info.lineage):
            break
    else:
        return requests
    infos = look_up([(request.info, request.position, request.position + request.limit) for request in requests], using)
    return [request._replace(info=info) for request, info in zip(requests, infos, strict=True)]


class _Gap(NamedTuple):
    """Data that the cache does not have: a range of one stream's own bytes, for pages from the position `key`."""

    owner: int
    key: int
    position: int
    limit: int
    end: int
    """The end of the range that is queried: the cut of a fork, or the limit. TO_THE_END if that is the tail."""


class _Part(NamedTuple):
    """A piece that a page may reach, the position from which it is read, and the data from there that was cached."""

    piece: LineageEntry
    position: int
    cached: Segment | None


def _parts(request: PageRequest, cache: SegmentCache) -> list[_Part]:
    """Return the pieces that a page may reach. The cache may lose its segments before the page is complete."""
    parts = []
    for piece, position in _overlapping(request):
        cached = cache.get(piece.owner, position, piece.generation)
        if cached is not None and cached.end > piece.end and piece.owner == request.info.id:
            # The stream ends before the cached segment does: the database has lost data, maybe of other streams too.
            cache.clear()
            cached = None
        parts.append(_Part(piece, position, cached))
    return parts


def _overlapping(request: PageRequest) -> Iterator[tuple[LineageEntry, int]]:
    """Yield the pieces that a page may reach, each with the position from which it is read.

    Yields at most `MAX_PIECES`, because each piece may bring a chunk of which the page needs only a few bytes.
    """
    limit = request.position + request.limit
    count = 0
    for piece in request.info.pieces():
        position = max(piece.start, request.position)
        if position < piece.end and piece.start < limit:
            if count == MAX_PIECES:
                return  # the next page begins with the other pieces
            count += 1
            yield piece, position


def _gaps(request: PageRequest, parts: Sequence[_Part], cache: SegmentCache) -> Iterator[_Gap]:
    for piece, position, cached in parts:
        limit = position + request.limit
        start = position if cached is None else cached.end
        if cached is None or (not cached.full and start < min(piece.end, limit)):
            # After the stream's own tail there is at most data that was committed right now.
            is_tail = piece.owner == request.info.id and piece.end <= limit
            cache.misses += 1  # by the one thread that reads for all
            yield _Gap(piece.owner, position, start, limit, TO_THE_END if is_tail else min(piece.end, limit))
        else:
            cache.hits += 1


def _fetch(gaps: Sequence[_Gap], using: str, needs_compaction: set[int] | None) -> dict[_Gap, Segment]:
    """Return the data of gaps from one query. Gaps whose data is missing or incomplete are left out.

    A transaction that has locked a stream knows its current tail, but its snapshot may be older. A second query then
    fetches the newest data.
    """
    segments = _select(gaps, using, needs_compaction, latest=False)
    missing = [gap for gap in gaps if gap not in segments]
    if missing and statements(using).reads_old_snapshot():
        segments |= _select(missing, using, needs_compaction, latest=True)
    return segments


def _select(
    gaps: Sequence[_Gap], using: str, needs_compaction: set[int] | None, *, latest: bool
) -> dict[_Gap, Segment]:
    ranges = {(gap.owner, gap.position, gap.end) for gap in gaps}
    with connections[using].cursor() as cursor:
        chunks = statements(using).select_chunks(cursor, ranges, latest=latest)
    rows: dict[int, dict[int, Segment]] = {}
    for owner, start, end, data, ends in chunks:
        by_start = rows.setdefault(owner, {})
        if start not in by_start:  # a chunk of overlapping ranges may come twice
            segment = segment_of(start, end, bytes(data), bytes(ends))
            if segment is not None:  # a damaged chunk counts as missing
                by_start[start] = segment
    if needs_compaction is not None:
        needs_compaction.update(
            owner for owner, by_start in rows.items() if len(by_start) > COMPACT_FROM_CHUNKS_IN_PAGE
        )
    runs = {owner: _runs(by_start) for owner, by_start in rows.items()}
    return {gap: segment for gap in gaps for segment in [_within(runs.get(gap.owner, ()), gap)] if segment is not None}


def _runs(rows: Mapping[int, Segment]) -> list[Segment]:
    """Return a stream's chunks, given by their starts, as segments. Neighbouring chunks become one segment."""
    runs: list[list[Segment]] = []
    for start, segment in sorted(rows.items()):
        if runs and runs[-1][-1].end == start:
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return [Segment.join(run) for run in runs]


def _within(runs: Sequence[Segment], gap: _Gap) -> Segment | None:
    for run in runs:
        if run.start <= gap.position < run.end:
            tail = run.after(gap.position)
            return None if tail is None else tail.upto(gap.limit)
    return None


def _assemble(
    request: PageRequest, pieces: Sequence[_Part], cache: SegmentCache, fetched: dict[_Gap, Segment]
) -> Segment | None:
    """Return the page of a request from cached and fetched segments, and put the latter into the cache."""
    by_key = {(gap.owner, gap.key): segment for gap, segment in fetched.items()}
    limit = request.position + request.limit
    parts: list[Segment] = []
    for piece, position, segment in pieces:
        more = by_key.get((piece.owner, position))
        if more is not None and (segment is None or segment.end == more.start):
            joined = more if segment is None else Segment.join([segment, more]).upto(position + request.limit)
            cache.put(piece.owner, position, joined, piece.generation)
            segment = joined
        if segment is None or (parts and segment.start != parts[-1].end):
            break
        segment = segment.clip(piece.end)
        if parts and segment.ends[0] > limit:
            break
        segment = segment.upto(limit)
        parts.append(segment)
        if segment.end < piece.end:
            break
    if not parts:
        return None
    page = Segment.join(parts)
    if page.start < request.position and content.holds_text(request.info.content_type):
        # The reader goes on inside an append, because the bytes after the position were no whole character before (see
        # `protocol.text`).
        return page.beginning(request.position)
    return page

"""Reading: what streams are like now, and pages of their data, for many requests with few queries.

A page is a run of whole appends. It is put together from segments, which come from the cache or, all that are missing,
from one query.
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
from ...protocol.errors import DurableStreamsError, ServiceUnavailable, StreamGone, StreamNotFound
from ...protocol.segments import Segment
from ..chunk_rows import readable_ends
from ..sql import TO_THE_END, statements
from ..stream_info import LineageEntry, StreamInfo
from .lineage import MAX_PIECES, has_runs, look_up
from .segment_cache import SegmentCache

logger = logging.getLogger(__name__)

MAX_PAGES_PER_QUERY = 8
"""Pages whose missing data one query fetches: it bounds the memory that a batch of reads takes."""


WARNING_SECONDS = 60.0
"""Time between two messages of damaged data: its readers come again and again."""

CROWD = 128
"""Chunks in a page from which a stream's chunks should be merged: far more than those that merging leaves."""


def find(paths: Iterable[str], using: str) -> dict[str, StreamInfo | DurableStreamsError]:
    """Return what the streams at some paths are like now, or why they cannot be read, in one query."""
    now = clock.now()
    wanted = set(paths)
    found: dict[str, StreamInfo | DurableStreamsError] = {}
    expired: dict[int, str] = {}
    with connections[using].cursor() as cursor:
        rows = statements(using).select_streams(cursor, "path", wanted)
    for info in rows:
        if info.deleted_at is not None:
            found[info.path] = _gone()
        elif info.deadline is None or info.deadline > now:
            found[info.path] = info
        else:
            expired[info.id] = info.path
    if expired:  # an expired stream with forks is one that was deleted with forks
        forks = Stream.objects.using(using).filter(source_id__in=expired, path__isnull=False)
        for source_id in forks.values_list("source_id", flat=True):
            if source_id is not None:
                found[expired[source_id]] = _gone()
    for path in wanted - found.keys():
        found[path] = StreamNotFound("There is no stream at this path. Create it with PUT.")
    return found


def _gone() -> StreamGone:
    return StreamGone("The stream was deleted; forks still read its data.")


def find_ids(ids: Iterable[int], using: str) -> dict[int, StreamInfo]:
    """Return those of some streams that are still alive, by their ids, in one query."""
    now = clock.now()
    with connections[using].cursor() as cursor:
        rows = statements(using).select_streams(cursor, "id", set(ids))
    return {
        info.id: info
        for info in rows
        if info.path is not None and info.deleted_at is None and (info.deadline is None or info.deadline > now)
    }


def held_before(info: StreamInfo, position: int, using: str) -> bytes:
    """Return the bytes before a position that begin a character, which who has read up to there has not got."""
    if not content.holds_text(info.content_type) or position <= info.first_position:
        return b""
    start = max(position - text.MAX_HELD, info.first_position)
    segment = pages([PageRequest(info, start, position - start)], SegmentCache(0), using)[info.id, start]
    return b"" if segment is None else segment.held_before(position)


def damaged(path: str) -> ServiceUnavailable:
    """Return the error for data that is not there though its stream is: of a stream that is gone there is none."""
    global _next_warning
    now = time.monotonic()
    if now >= _next_warning:
        _next_warning = now + WARNING_SECONDS
        logger.error(
            "Data of the stream %s is damaged or missing. Restore it from a backup, or delete the stream.", path
        )
    return ServiceUnavailable("Data of this stream is damaged. It has to be restored by whoever runs the server.")


_next_warning = 0.0


class PageRequest(NamedTuple):
    """A page wanted: from a position of a stream, up to about `limit` bytes."""

    info: StreamInfo
    position: int
    limit: int


def pages(
    requests: Sequence[PageRequest],
    cache: SegmentCache,
    using: str,
    crowded: set[int] | None = None,
) -> dict[PageRequestKey, Segment | None]:
    """Return the pages for some requests, by (stream id, position): None where there is nothing past the position.

    A page that came out torn, as its stream was removed meanwhile, or its data damaged, is None too; look again to see
    why (`damaged`).

    Args:
        cache: what was read before.
        crowded: gets the ids of streams with so many chunks in a page that they should be merged.
    """
    found: dict[PageRequestKey, Segment | None] = {}
    waiting = []
    for request in requests:
        key = (request.info.id, request.position)
        if key not in found:
            found[key] = None
            if request.position < request.info.tail:
                waiting.append(request)
    for first in range(0, len(waiting), MAX_PAGES_PER_QUERY):
        some = _looked_up(waiting[first : first + MAX_PAGES_PER_QUERY], using)
        gaps = [gap for request in some for gap in _gaps(request, cache)]
        fetched = _fetch(gaps, using, crowded) if gaps else {}
        for request in some:
            found[request.info.id, request.position] = _assemble(request, cache, fetched)
    return found


def _looked_up(requests: Sequence[PageRequest], using: str) -> Sequence[PageRequest]:
    for request in requests:
        if request.info.lineage is not None and has_runs(request.info.lineage):
            break
    else:
        return requests
    wanted = [(request.info, request.position, request.position + request.limit) for request in requests]
    infos = look_up(wanted, using)
    return [request._replace(info=info) for request, info in zip(requests, infos, strict=True)]


PageRequestKey = tuple[int, int]


class _Gap(NamedTuple):
    """Data that the cache does not have: a stream's own, from a position up to a limit, for reads from `key`."""

    owner: int
    key: int
    position: int
    limit: int
    end: int
    """The position behind which nobody needs anything: where a fork was cut, or the limit, unless that is the tail."""


def _overlapping(request: PageRequest) -> Iterator[tuple[LineageEntry, int]]:
    """Yield the pieces that a page may reach into, each with the position from which it is read.

    No more than `MAX_PIECES`: each may bring a chunk of which it needs only a few bytes.
    """
    limit = request.position + request.limit
    count = 0
    for piece in request.info.pieces():
        position = max(piece.start, request.position)
        if position < piece.end and piece.start < limit:
            if count == MAX_PIECES:
                return  # the next page goes on with the next ones
            count += 1
            yield piece, position


def _gaps(request: PageRequest, cache: SegmentCache) -> Iterator[_Gap]:
    for piece, position in _overlapping(request):
        limit = position + request.limit
        known = cache.get(piece.owner, position)
        if known is not None and known.end > piece.end and piece.owner == request.info.id:
            # The stream ends before it: the log has gone back, and whatever else was read of it may be lost too.
            cache.clear()
            known = None
        start = position if known is None else known.end
        if known is None or (not known.full and start < min(piece.end, limit)):
            # Behind the stream's own tail there is nothing, or what has come this moment.
            is_tail = piece.owner == request.info.id and piece.end <= limit
            yield _Gap(piece.owner, position, start, limit, TO_THE_END if is_tail else min(piece.end, limit))


def _fetch(gaps: Sequence[_Gap], using: str, crowded: set[int] | None) -> dict[_Gap, Segment]:
    """Return the data for gaps, in one query. What is not there, or not in one run, is left out.

    A transaction that has locked a stream sees how long that is now, and its snapshot may be older than some of the
    data: what it lacks takes another query.
    """
    found = _select(gaps, using, crowded, latest=False)
    missing = [gap for gap in gaps if gap not in found]
    if missing and statements(using).reads_old_snapshot():
        found |= _select(missing, using, crowded, latest=True)
    return found


def _select(gaps: Sequence[_Gap], using: str, crowded: set[int] | None, *, latest: bool) -> dict[_Gap, Segment]:
    ranges = {(gap.owner, gap.position, gap.end) for gap in gaps}
    with connections[using].cursor() as cursor:
        chunks = statements(using).select_chunks(cursor, ranges, latest=latest)
    rows: dict[int, dict[int, tuple[bytes, bytes]]] = {}
    for owner, start, end, data, ends in chunks:  # where ranges overlap, the same one may come twice
        if end - start == len(data):  # otherwise something else has changed it, and it is not there
            rows.setdefault(owner, {})[start] = bytes(data), bytes(ends)
    if crowded is not None:
        crowded.update(owner for owner, found in rows.items() if len(found) > CROWD)
    segments = {owner: _runs(found) for owner, found in rows.items()}
    return {
        gap: segment for gap in gaps for segment in [_within(segments.get(gap.owner, ()), gap)] if segment is not None
    }


def _runs(rows: Mapping[int, tuple[bytes, bytes]]) -> list[Segment]:
    """Return a stream's chunks, by their starts, as segments; neighbours become one."""
    runs: list[list[Segment]] = []
    for start, (data, ends) in sorted(rows.items()):
        segment = Segment(start, data, readable_ends(start, start + len(data), ends))
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


def _assemble(request: PageRequest, cache: SegmentCache, fetched: dict[_Gap, Segment]) -> Segment | None:
    by_key = {(gap.owner, gap.key): segment for gap, segment in fetched.items()}
    limit = request.position + request.limit
    parts: list[Segment] = []
    for piece, position in _overlapping(request):
        segment = cache.get(piece.owner, position)
        more = by_key.get((piece.owner, position))
        if more is not None and (segment is None or segment.end == more.start):
            segment = more if segment is None else Segment.join([segment, more]).upto(position + request.limit)
            cache.put(piece.owner, position, segment)
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
        # Where a reader was told to go on, as what lies behind was no whole character then (see `protocol.text`).
        return page.beginning(request.position)
    return page

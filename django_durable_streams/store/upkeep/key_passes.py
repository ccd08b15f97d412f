"""One pass of key compaction over one stream (`key_compaction`): which chunks change, and how.

Only reads, some data at a time. So a pass may end anywhere, and what it has contents_by_id may be written or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from django.db.models.functions import Length, Substr

from ...models import Chunk
from ...protocol.content import JSON_CONTENT_TYPE
from ...protocol.key_compaction import change_of
from ...protocol.segments import Message, Segment
from ..chunk_rows import MAX_CHUNK_BYTES, MAX_SPARSE_RANGE, checked_segment, data_size, pack_layout
from .key_compaction import Job, Mark, Notes, Portion

ROWS = 500
BYTES = 256 * 1024
"""Chunks, and data, that one portion reads at most, except for a single larger chunk."""

SMALL_BYTES = 64 * 1024
"""Data of a sparse chunk up to which it is merged with its neighbours."""

MAX_KEYS = 100_000
"""Keys that one pass remembers, which takes about 20 MB. Further passes do the rest."""

MAX_PASSES = 16
"""Ends of passes that the notes have at most."""


class _Stored(NamedTuple):
    """A chunk with its data."""

    id: int
    segment: Segment


class Pass:
    """One pass over one stream: call `scan` until it returns False, and then `find` until the pass `is_complete`.

    Args:
        using: alias of the database.
        job: what to do.
    """

    def __init__(self, using: str, job: Job) -> None:
        self._using = using
        self.job = job
        self._newest: dict[bytes, int] = {}
        self._until = job.clean
        self._position = job.start
        self._before = job.start
        self._left = self._deletes = 0
        self._counted = 0, 0

    def scan(self) -> bool:
        """Remember the newest message of each key in the next data. Return whether data is left.

        Raises:
            CorruptChunk: the columns of a chunk contradict each other.
        """
        stored = self._read(self._until, self.job.limit)
        for _, segment in stored:
            for message in segment.messages(JSON_CONTENT_TYPE):
                if self._until < message.end <= self.job.limit:
                    change = change_of(message.data)
                    if change is not None:
                        self._newest[change.digest] = message.end
            self._until = max(self._until, min(segment.end, self.job.limit))
        return bool(stored) and self._until < self.job.limit and len(self._newest) < MAX_KEYS

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return self._position >= self._until

    def find(self) -> Portion | None:
        """Return the next chunks that change, maybe none. None: their data is missing, or was just merged.

        Raises:
            CorruptChunk: the columns of a chunk contradict each other.
        """
        self._before, self._counted = self._position, (self._left, self._deletes)
        stored = self._read(self._position, self._until)
        if not stored:
            return None
        group: list[tuple[int, Segment, bool]] = []
        portion = Portion([], [])
        for chunk_id, segment in stored:
            changed = self._without_replaced(segment)
            is_small = changed.places is not None and len(changed.data) <= SMALL_BYTES
            if changed is segment and not is_small:
                self._write(group, portion)
                group = []
            else:
                if group and not _fit([one for _, one, _ in group], changed):
                    self._write(group, portion)
                    group = []
                group.append((chunk_id, changed, changed is not segment))
        self._write(group, portion)
        self._position = stored[-1].segment.end
        return portion

    def repeat(self) -> None:
        """Have `find` return the last portion again: its chunks were merged meanwhile."""
        self._position, (self._left, self._deletes) = self._before, self._counted

    def notes(self, now: int) -> Notes:
        """Return the notes after a complete pass."""
        # Of the passes up to the horizon, none but the last one counts.
        passes = [mark for mark in self.job.notes.passes if mark[0] >= self.job.horizon]
        return self.job.notes._replace(
            start=self.job.start,
            clean=self._until,
            kept=self._left,
            deletes=self._deletes,
            horizon=self.job.horizon,
            passes=_thinned([*passes, (self._until, now)]),
            claimed_until=0,
        )

    def _write(self, group: Sequence[tuple[int, Segment, bool]], portion: Portion) -> None:
        """Add the chunk that replaces neighbouring ones. A single chunk without a change stays as it is."""
        if len(group) > 1 or (group and group[0][2]):
            joined = Segment.join([segment for _, segment, _ in group])
            portion.ids.extend(chunk_id for chunk_id, _, _ in group)
            ends = pack_layout(joined.start, joined.ends, joined.places)
            portion.rows.append((self.job.stream_id, joined.start, joined.end, joined.data, ends))

    def _without_replaced(self, segment: Segment) -> Segment:
        """Return what stays of a chunk: the same object if that is everything."""
        kept = [message for message in segment.messages(JSON_CONTENT_TYPE) if self._stays(message)]
        size = sum(len(message.data) + 1 for message in kept)
        if size == len(segment.data):
            return segment
        append_ends = {*segment.ends}
        ends: list[int] = []
        places: list[int] = []
        place = 0
        for message in kept:
            place += len(message.data) + 1
            if ends and ends[-1] == message.start and message.start not in append_ends:
                ends[-1], places[-1] = message.end, place
            else:
                ends.append(message.end)
                places.append(place)
        if not ends or ends[-1] < segment.end:
            ends.append(segment.end)
            places.append(place)
        data = b"".join([message.data + b"\n" for message in kept])
        return Segment(segment.start, data, ends, places=places)

    def _stays(self, message: Message) -> bool:
        if not self.job.start < message.end <= self._until:
            return True
        change = change_of(message.data)
        if change is not None:
            if self._newest.get(change.digest, 0) > message.end:
                return False
            if change.is_delete:
                if message.end <= self.job.horizon and message.end < self.job.limit:
                    return False
                self._deletes += 1
        self._left += len(message.data) + 1
        return True

    def _read(self, position: int, until: int) -> list[_Stored]:
        """Return the chunks from a position on that follow each other. Staged chunks end them."""
        if position >= until:
            return []
        rows = Chunk.objects.using(self._using).filter(stream_id=self.job.stream_id, end__gt=position, start__lt=until)
        # Without the data: MariaDB and MySQL read all of it for its length.
        size, last = Length("ends"), Substr("ends", Length("ends") - 3, 4)
        spans = rows.order_by("end").values_list("id", "start", "end", size, last)[:ROWS]
        wanted = [*_following(spans, position)]
        contents = Chunk.objects.using(self._using).filter(pk__in=[chunk_id for chunk_id, _, _ in wanted])
        contents_by_id = {
            pk: (bytes(data), bytes(ends)) for pk, data, ends in contents.values_list("id", "data", "ends")
        }
        stored = []
        for chunk_id, start, end in wanted:
            if chunk_id not in contents_by_id:  # merged meanwhile: the next call reads the merged one
                break
            stored.append(_Stored(chunk_id, checked_segment(start, end, *contents_by_id[chunk_id])))
        return stored


def _following(spans: Any, position: int) -> Iterator[tuple[int, int, int]]:
    size = 0
    for chunk_id, start, end, layout_size, last in spans:
        chunk_size = data_size(start, end, layout_size, bytes(last or b""))
        size += chunk_size
        if start > position or (size > BYTES and size > chunk_size):
            return
        yield chunk_id, start, end
        position = end


def _fit(segments: Sequence[Segment], following: Segment) -> bool:
    """Return whether one chunk can have segments that follow each other."""
    first = segments[0].start
    size = sum(len(segment.data) for segment in segments) + len(following.data)
    is_next = segments[-1].end == following.start
    return is_next and size <= MAX_CHUNK_BYTES and following.end - first <= MAX_SPARSE_RANGE


def _thinned(passes: Sequence[Mark]) -> Sequence[Mark]:
    """Return the ends of passes without those in between, once they are many. The last one counts latest."""
    return passes if len(passes) <= MAX_PASSES else [*passes[: -MAX_PASSES // 2 : 2], *passes[-MAX_PASSES // 2 :]]

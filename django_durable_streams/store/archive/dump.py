"""Reads streams into records, each as it was at one moment, without a long transaction.

The bytes before a tail never change. So only the row of a stream and its producers have to be of one moment, and one
statement reads both. The data is read afterwards, up to the tail of that moment. A stream is read again that is trimmed
before its data was read, and one whose keys are compacted meanwhile: messages after the tail may have replaced others.

Knows no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

from django.db import connections

from ... import clock
from ...models import Chunk, Producer, Retention, Stream
from ...protocol.segments import Segment
from .. import staged_rows
from ..chunk_rows import CorruptChunk, checked_segment
from ..sql import statements
from ..upkeep.key_compaction import Notes
from .records import ArchiveError, BlockWriter, EndRecord, ProducerRecord, Record, StreamRecord

STREAMS_PER_QUERY = 200

WINDOW_BYTES = 1024 * 1024
"""Data that one query reads, about."""

_AT_ONE_MOMENT = (
    "tail_position",
    "first_position",
    "closed",
    "closed_by",
    "last_seq",
    "ttl",
    "expires_at",
    "deadline",
    "deleted_at",
    "appended_at",
)


class StreamVanished(Exception):
    """A stream was deleted while it was read. Its records must be dropped."""


class StreamTrimmed(Exception):
    """A stream was trimmed, or its keys were compacted, while it was read. Drop its records, and read it again."""


ReadRecords = Callable[[], Iterator[Record]]
"""Reads the records of a stream, as it is at the call."""


class Dump:
    """Reads streams by their ids.

    Args:
        using: alias of the database.
    """

    def __init__(self, using: str) -> None:
        self._using = using
        self._vanished: set[int] = set()

    def streams(self, ids: Sequence[int]) -> Iterator[tuple[str, ReadRecords]]:
        """Yield the path of each stream that still exists, and the function that reads its records.

        An iterator of records raises StreamVanished if its stream is deleted meanwhile, and StreamTrimmed if it is
        trimmed.

        Raises:
            ArchiveError: data of a stream is damaged.
        """
        for first in range(0, len(ids), STREAMS_PER_QUERY):
            portion = [*ids[first : first + STREAMS_PER_QUERY]]
            rows = Stream.objects.using(self._using).filter(path__isnull=False).select_related("retention_row")
            streams = rows.in_bulk(portion)
            with_producers = self._with_producers(portion)
            paths = self._paths(streams.values())
            for stream_id in portion:
                stream = streams.get(stream_id)
                if stream is not None:
                    yield stream.path or "", self._reader(stream, paths, stream_id in with_producers)

    def _reader(self, stream: Stream, paths: dict[int, str], has_producers: bool) -> ReadRecords:
        loaded: Stream | None = stream

        def read() -> Iterator[Record]:
            nonlocal loaded
            row, loaded = loaded, None
            if row is not None:
                return self._records(row, paths, has_producers)
            return self._records(self._load(stream.pk), paths, has_producers=True)

        return read

    def _load(self, stream_id: int) -> Stream:
        rows = Stream.objects.using(self._using).filter(pk=stream_id, path__isnull=False)
        stream: Stream | None = rows.select_related("retention_row").first()
        if stream is None:
            raise self._vanish(stream_id)
        return stream

    def _vanish(self, stream_id: int) -> StreamVanished:
        self._vanished.add(stream_id)
        return StreamVanished()

    def _with_producers(self, ids: list[int]) -> set[int]:
        producers = Producer.objects.using(self._using).filter(stream_id__in=ids)
        return set(producers.values_list("stream_id", flat=True).distinct())

    def _paths(self, streams: Any) -> dict[int, str]:
        """Return the paths of all streams in the lineages, by their ids."""
        owners = {entry[0] for stream in streams for entry in stream.lineage or ()}
        owners |= {stream.source_id for stream in streams if stream.source_id is not None}
        rows = Stream.objects.using(self._using).filter(pk__in=owners, path__isnull=False)
        return {pk: path for pk, path in rows.values_list("pk", "path") if path is not None}

    def _records(self, stream: Stream, paths: dict[int, str], has_producers: bool) -> Iterator[Record]:
        producers = self._producers(stream) if has_producers else iter(())
        first = next(producers, None)  # with it, the stream is of the moment of the producers
        data_from = self._data_from(stream)
        retained = max(stream.first_position, stream.fork_position or 0)
        if data_from > retained:
            raise self._missing(stream, retained)
        yield self._stream_record(stream, paths, data_from)
        if first is not None:
            yield first
            yield from producers
        blocks = BlockWriter(data_from)
        is_sparse = False
        for segment in self._chunks(stream, data_from):
            is_sparse = is_sparse or segment.places is not None
            yield from blocks.add(segment)
        if is_sparse and self._passes(stream.pk) != Notes.of(getattr(stream, "retention_row", None)).begun:
            raise StreamTrimmed  # messages may be gone that later ones replace, which are not in the archive
        yield from blocks.rest()
        yield EndRecord(stream.path or "")

    def _producers(self, stream: Stream) -> Iterator[ProducerRecord]:
        """Yield the producers of a stream, and set the stream's fields to the same moment before the first one."""
        query = Producer.objects.using(self._using).filter(stream_id=stream.pk).order_by("producer_id")
        fields = [f"stream__{name}" for name in _AT_ONE_MOMENT]
        is_first = True
        for row in query.values_list("producer_id", "epoch", "seq", "updated_at", *fields).iterator(chunk_size=2000):
            producer_id, epoch, seq, updated_at, *values = row
            if is_first:
                is_first = False
                for name, value in zip(_AT_ONE_MOMENT, values, strict=True):
                    setattr(stream, name, value)
            yield ProducerRecord(producer_id, epoch, seq, _microseconds(updated_at))

    def _stream_record(self, stream: Stream, paths: dict[int, str], data_from: int) -> StreamRecord:
        lineage = None
        source = None
        if stream.source_id is not None:
            owners = {stream.source_id, *(entry[0] for entry in stream.lineage or ())}
            if not owners <= paths.keys() or not owners.isdisjoint(self._vanished):
                raise self._vanish(stream.pk)  # the fork was deleted, and then its source
            source = paths[stream.source_id]
            lineage = [(paths[owner], *rest) for owner, *rest in stream.lineage or ()]
        return StreamRecord(
            stream.path or "",
            stream.content_type,
            stream.generation,
            stream.tail_position,
            data_from,
            stream.first_position,
            stream.closed,
            stream.closed_by,
            stream.last_seq,
            stream.ttl,
            _optional(stream.expires_at),
            _optional(stream.deadline),
            source,
            stream.fork_position,
            stream.inherited_from,
            lineage,
            _optional(stream.deleted_at),
            _microseconds(stream.created_at),
            _optional(stream.appended_at),
            _own_rules(stream),
        )

    def _data_from(self, stream: Stream) -> int:
        begin = stream.fork_position or 0
        if not stream.first_position or begin == stream.tail_position:
            return begin
        first = [
            table.filter(stream_id=stream.pk).order_by("end").values_list("start", flat=True).first()
            for table in (staged_rows.chunks(self._using), Chunk.objects.using(self._using))
        ]
        return min([start for start in first if start is not None], default=stream.tail_position)

    def _chunks(self, stream: Stream, position: int) -> Iterator[Segment]:
        """Yield the stored data from a position to the tail, in order."""
        tail = stream.tail_position
        while position < tail:
            window = {(stream.pk, position, min(position + WINDOW_BYTES, tail))}
            with connections[self._using].cursor() as cursor:
                rows = statements(self._using).select_chunks(cursor, window)
            before = position
            for _, start, end, data, packed in sorted(rows, key=itemgetter(1)):
                if not start <= position < min(end, tail):
                    continue
                try:
                    segment = checked_segment(start, end, bytes(data), bytes(packed))
                except CorruptChunk as error:
                    raise self._damaged(stream, position) from error
                # A compaction may have merged it with earlier appends, which were read before, and with later ones.
                segment = segment.beginning(position).clip(tail)
                yield segment
                position = segment.end
            if position == before:
                raise self._missing(stream, position)

    def _passes(self, stream_id: int) -> int:
        """Return how many passes of key compaction over a stream have begun."""
        return Notes.of(Retention.objects.using(self._using).filter(pk=stream_id).first()).begun

    def _missing(self, stream: Stream, position: int) -> Exception:
        """Return the error for a position without data: the stream was purged or trimmed meanwhile, or is damaged."""
        rows = Stream.objects.using(self._using).filter(pk=stream.pk, path__isnull=False)
        first_position = rows.values_list("first_position", flat=True).first()
        if first_position is None:
            return self._vanish(stream.pk)
        return StreamTrimmed() if first_position > position else self._damaged(stream, position)

    def _damaged(self, stream: Stream, position: int) -> ArchiveError:
        return ArchiveError(
            f"The data of {stream.path} is damaged or missing at position {position}. Restore it from a backup, or "
            "delete the stream."
        )


def _own_rules(stream: Stream) -> tuple[int | None, int | None, int | None] | None:
    row: Retention | None = getattr(stream, "retention_row", None)
    return (row.age, row.max_bytes, row.max_messages) if row is not None and row.is_explicit else None


def _microseconds(moment: datetime) -> int:
    return clock.to_microseconds(clock.from_project(moment))


def _optional(moment: datetime | None) -> int | None:
    return None if moment is None else _microseconds(moment)

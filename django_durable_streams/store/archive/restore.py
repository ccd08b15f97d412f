"""Writes streams from records, each in one transaction with all of its data, small ones and some families together.

A restored stream has its old generation, so its offsets are valid, and its producers go on. Subscriptions of this
database whose patterns it matches follow it from its beginning, as every new stream. A stream that is there already,
with the same generation, is left alone: a restore that was interrupted goes on where it stopped.

Knows no file. The records were checked before (`RecordReader`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connections

from ... import clock
from ...protocol.retention import RetentionRules
from ...runtime.write_lock import write_lock
from ..chunk_rows import pack_layout
from ..sql import Row, Statements, plain_errors, statements
from ..sql.columns import STREAM_COLUMNS
from ..stream_info import StreamInfo
from ..upkeep import retention
from ..write import registry_entries
from ..write.linking import Linker
from ..write.stream_state import StreamState
from .presence import Presence, check_sources
from .records import ArchiveError, DataRecord, ProducerRecord, Record, StreamRecord

STREAMS_PER_TRANSACTION = 200
BYTES_PER_TRANSACTION = 2 * 1024 * 1024
"""Streams and data of one transaction. A larger stream has a transaction of its own, in which it is written in parts of
this size."""

ROWS_AT_ONCE = 1000


class Restore:
    """Writes streams into a database.

    Args:
        using: alias of the database.
    """

    def __init__(self, using: str) -> None:
        self._using = using
        self._presence = Presence(using)
        self._waiting: list[list[Record]] = []
        self._waiting_bytes = 0
        self._cursor: Any = None
        """That of the transaction of `together`."""
        self._new_ids: set[int] = set()
        """The streams that the present transaction has written."""
        self.restored = 0
        self.skipped = 0

    def add(self, records: Iterator[Record]) -> None:
        """Write a stream, now or together with others.

        Raises:
            ArchiveError: another stream has its path, or its source is missing.
        """
        collected: list[Record] = []
        size = 0
        for record in records:
            collected.append(record)
            if isinstance(record, DataRecord):
                size += len(record.data)
            if size > BYTES_PER_TRANSACTION or len(collected) > ROWS_AT_ONCE:
                self.flush()
                self._write_large(collected, records)
                return
        self._waiting.append(collected)
        self._waiting_bytes += size
        if self._waiting_bytes > BYTES_PER_TRANSACTION or len(self._waiting) >= STREAMS_PER_TRANSACTION:
            self.flush()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write all streams that are added in the block in one transaction."""
        self.flush()
        with self._transaction() as self._cursor:
            try:
                yield
                self.flush()
            finally:
                self._cursor = None

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        if self._cursor is not None:
            yield self._cursor
            return
        self._new_ids.clear()
        with write_lock(self._using).hold(), plain_errors(), statements(self._using).transaction() as cursor:
            yield cursor

    def flush(self) -> None:
        """Write all streams that were added."""
        if not self._waiting:
            return
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        heads = [records[0] for records in waiting if isinstance(records[0], StreamRecord)]
        present = self._presence.check(heads)
        self.skipped += len(present)
        missing = [records for records in waiting if _head(records).path not in present]
        if missing:
            # A fork may have its source in the same transaction: the ids come in the order of the sources.
            for group in _without_sources_inside(missing):
                self._write(group)
            self.restored += len(missing)

    def _write(self, group: list[list[Record]]) -> None:
        sql = statements(self._using)
        heads = [_head(records) for records in group]
        with self._transaction() as cursor:
            ids = self._insert_streams(sql, cursor, heads)
            contents = _Contents(sql, cursor, self._using)
            for records in group:
                contents.add(ids[_head(records).path], records)
            contents.save()

    def _write_large(self, beginning: list[Record], rest: Iterator[Record]) -> None:
        """Write a stream in parts, within one transaction."""
        stream = _head(beginning)
        if self._presence.check([stream]):
            self.skipped += 1
            for _ in rest:
                pass
            return
        sql = statements(self._using)
        with self._transaction() as cursor:
            stream_id = self._insert_streams(sql, cursor, [stream])[stream.path]
            contents = _Contents(sql, cursor, self._using)
            contents.add(stream_id, beginning)
            contents.add(stream_id, rest)
            contents.save()
        self.restored += 1

    def _insert_streams(self, sql: Statements, cursor: Any, streams: Sequence[StreamRecord]) -> dict[str, int]:
        """Insert the rows of streams with their links, and return their ids by path."""
        linker = Linker(self._using, cursor)
        linker.lock_rules()
        owners = self._owners(sql, cursor, streams)
        states = {stream.path: StreamState(_info(stream, owners)) for stream in streams}
        followed = [states[stream.path] for stream in streams if stream.deleted_at is None]
        links = linker.match(followed)
        rows = [self._row(stream, states[stream.path]) for stream in streams]
        for stream_id, path in sql.insert_streams(cursor, rows):
            states[path].id = stream_id
        linker.insert(links)
        by_moment: dict[int, list[int]] = {}
        for stream in streams:
            if stream.deleted_at is not None:
                by_moment.setdefault(stream.deleted_at, []).append(states[stream.path].id)
        for moment, ids in by_moment.items():
            sql.soft_delete_streams(cursor, moment, ids)
        if registry_entries.path() is not None:
            messages = registry_entries.messages((), followed, (), clock.now())
            registry_entries.insert(sql, cursor, messages)
        retention.restore(sql, cursor, [_retention(stream, states[stream.path].id) for stream in streams])
        self._new_ids.update(state.id for state in states.values())
        return {path: state.id for path, state in states.items()}

    def _owners(self, sql: Statements, cursor: Any, streams: Sequence[StreamRecord]) -> dict[str, int]:
        """Lock the streams in lineages, so that they are not removed meanwhile, and return their ids by path."""
        needed = {owner for stream in streams for owner in stream.owners()}
        paths = {path for path, _ in needed}
        rows = sql.select_streams(cursor, "path", paths, lock="wait") if paths else []
        owners = {info.path: info.id for info in rows}
        present = {(info.path, generation) for info in rows for generation in (info.generation, -1)}
        if missing := {path for path, generation in needed if (path, max(generation, -1)) not in present}:
            raise ArchiveError(f"The stream {min(missing)}, whose data a fork has, is neither here nor in the archive.")
        first_positions = {info.path: info.first_position for info in rows if info.id not in self._new_ids}
        for stream in streams:
            check_sources(stream, first_positions)
        return owners

    def _row(self, stream: StreamRecord, state: StreamState) -> Row:
        values = {
            "path": stream.path,
            "content_type": stream.content_type,
            "generation": stream.generation,
            "tail": stream.tail,
            "first_position": stream.first_position,
            "closed": stream.closed,
            "closed_by": stream.closed_by,
            "last_seq": stream.last_seq,
            "ttl": stream.ttl,
            "expires_at": stream.expires_at,
            "deadline": stream.deadline,
            "source_id": state.source_id,
            "fork_position": stream.fork_position,
            "inherited_from": stream.inherited_from,
            "lineage": None if state.lineage is None else json.dumps(state.lineage),
            "link_state": state.link_state,
            "created_at": _stamp(stream.created_at, self._using),
            "appended_at": None if stream.appended_at is None else _stamp(stream.appended_at, self._using),
        }
        return tuple(values[column] for column in STREAM_COLUMNS)


def _retention(stream: StreamRecord, stream_id: int) -> retention.Restored:
    rules = None if stream.retention is None else RetentionRules(*stream.retention)
    return retention.Restored(stream_id, rules, stream.first_position)


class _Contents:
    """Collects the chunks and producers of streams, and writes them in portions."""

    def __init__(self, sql: Statements, cursor: Any, using: str) -> None:
        self._sql = sql
        self._cursor = cursor
        self._using = using
        self._chunks: list[Row] = []
        self._producers: list[Row] = []
        self._size = 0

    def add(self, stream_id: int, records: Iterable[Record]) -> None:
        """Add the records of a stream, or a part of them."""
        for record in records:
            if isinstance(record, StreamRecord):
                self._created_at = _stamp(record.appended_at or record.created_at, self._using)
            elif isinstance(record, ProducerRecord):
                moment = _stamp(record.updated_at, self._using)
                self._producers.append((stream_id, record.id, record.epoch, record.seq, moment))
            elif isinstance(record, DataRecord):
                self._chunks.append((stream_id, *_chunk(record), self._created_at))
                self._size += len(record.data)
            rows = max(len(self._producers), len(self._chunks))
            if self._size > BYTES_PER_TRANSACTION or rows >= ROWS_AT_ONCE:
                self.save()

    def save(self) -> None:
        """Write everything that was added."""
        if self._chunks:
            self._sql.insert_chunks(self._cursor, self._chunks)
        if self._producers:
            self._sql.insert_producers(self._cursor, self._producers)
        self._chunks, self._producers, self._size = [], [], 0


def _head(records: Sequence[Record]) -> StreamRecord:
    head = records[0]
    assert isinstance(head, StreamRecord)
    return head


def _without_sources_inside(waiting: list[list[Record]]) -> Iterator[list[list[Record]]]:
    """Yield groups of streams none of which is forked from another one of its group."""
    group: list[list[Record]] = []
    paths: set[str] = set()
    for records in waiting:
        head = _head(records)
        needed = {head.source, *(entry[0] for entry in head.lineage or ())}
        if not paths.isdisjoint(path for path in needed if path is not None):
            yield group
            group, paths = [], set()
        group.append(records)
        paths.add(head.path)
    yield group


def _info(stream: StreamRecord, owners: dict[str, int]) -> StreamInfo:
    lineage = stream.lineage
    return StreamInfo(
        0,
        stream.path,
        stream.content_type,
        stream.generation,
        stream.tail,
        stream.closed,
        source_id=None if stream.source is None else owners[stream.source],
        fork_position=stream.fork_position,
        lineage=None if lineage is None else [[owners[path], *rest] for path, *rest in lineage],
    )


def _chunk(record: DataRecord) -> tuple[int, int, bytes, bytes]:
    gaps = record.gaps if record.gaps is not None else [0] * len(record.sizes)
    ends, places = [], []
    position, place = record.start, 0
    for size, gap in zip(record.sizes, gaps, strict=True):
        position, place = position + gap + size, place + size
        ends.append(position)
        places.append(place)
    return record.start, position, record.data, pack_layout(record.start, ends, places)


def _stamp(microseconds: int, using: str) -> Any:
    """Return a time as the database stores it in a DateTimeField."""
    moment = clock.to_project(clock.from_microseconds(microseconds))
    return connections[using].ops.adapt_datetimefield_value(moment)

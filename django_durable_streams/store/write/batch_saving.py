"""How a batch writes its changes, and what it reports once they are committed.

One chunk for each stream, one row for each producer: the number of statements does not depend on the number of
operations. Knows no operation and no rule of the protocol.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from ... import clock
from ..operations import Commit
from ..sql import Statements, statements
from . import registry_entries, row_mapping
from .linking import Linker
from .row_cache import RowCache
from .stream_state import StreamState


class _Saved(NamedTuple):
    """The streams of one save, and the ids and paths of those that were created."""

    changed: list[StreamState]
    created: list[StreamState]
    ids: Iterable[tuple[int, str]]
    ended: list[StreamState]


class BatchSaver:
    """Writes the streams of one batch, in its transaction.

    Args:
        using: alias of the database.
        cursor: the transaction's cursor (see `sql.Statements.transaction`).
        now: the time of the batch.
        row_cache: gets the streams once they are committed.
        stage: whether small chunks may go to the table of staged chunks.
    """

    def __init__(self, using: str, cursor: Any, now: datetime, row_cache: RowCache | None, stage: bool) -> None:
        self._using = using
        self._cursor = cursor
        self._now = now
        self._row_cache = row_cache
        self._stage = stage
        self._sql: Statements = statements(using)
        self.linker = Linker(using, cursor)
        self._commits: list[Commit] = []
        self._saved: list[_Saved] = []
        self._written: list[StreamState] = []
        # The future result with the row version of the written rows.
        self._row_version: Iterable[Sequence[Any]] | None = None
        # The future result with the id and the new version of each row that `save_if_unchanged` has updated.
        self._updated: Iterable[Sequence[Any]] = ()
        self._registry_path = registry_entries.path()
        self.moved: dict[str, int] = {}
        """By path: the bytes that others had appended before, of which the outcomes do not know."""

    def save(
        self,
        streams: Collection[StreamState],
        removed: Collection[StreamState],
        soft_deleted: Collection[StreamState],
    ) -> None:
        """Write all changes since the last save.

        Args:
            streams: the existing streams, changed or not.
            removed: streams to remove. Those without an id were created in this batch and have no row.
            soft_deleted: streams to mark as deleted, because they have forks.
        """
        sql, cursor = self._sql, self._cursor
        if self._saved:
            self.mark_saved()
        now = self._sql.stamp(self._cursor, self._now)
        removed_rows = [state for state in removed if state.id] if removed else []
        changed = [state for state in streams if state.changed and state.id]
        created = [state for state in streams if not state.id]
        ids: Iterable[tuple[int, str]] = ()
        if removed_rows:
            sql.remove_streams(cursor, clock.to_microseconds(self._now), [state.id for state in removed_rows])
        if soft_deleted:
            sql.soft_delete_streams(cursor, clock.to_microseconds(self._now), [state.id for state in soft_deleted])
        if created:
            links = self.linker.match(created)
            ids = sql.insert_streams(cursor, [row_mapping.stream_insert(state, now) for state in created])
            if links or any(state.ends or state.changed_producers for state in created):
                _set_ids(created, ids)  # the rows of chunks, producers and links need them
            if links:
                self.linker.insert(links)
        if changed:
            sql.update_streams(cursor, [row_mapping.stream_update(state, now) for state in changed])
        self._save_contents(changed, [*changed, *created], now)
        if self._registry_path is not None:
            self._record([*removed_rows, *soft_deleted], created, changed)
        if changed and self._row_cache is not None and self._row_version is None:
            self._row_version = sql.row_version_written(cursor)
        self._saved.append(_Saved(changed, created, ids, [*removed_rows, *soft_deleted]))

    def _record(self, ended: list[StreamState], created: list[StreamState], changed: list[StreamState]) -> None:
        """Write the entries of the registry about this save."""
        messages = registry_entries.messages(ended, created, changed, self._now)
        registry_entries.insert(self._sql, self._cursor, messages)

    def _save_contents(self, changed: list[StreamState], written: list[StreamState], now: Any) -> None:
        """Write lifetimes, trims, chunks and producers of streams whose rows are written."""
        sql, cursor = self._sql, self._cursor
        lifetimes = row_mapping.lifetimes(changed)
        if lifetimes:
            sql.update_lifetimes(cursor, lifetimes)
        trims = row_mapping.trims(changed)
        if trims:
            sql.update_first_positions(cursor, trims)
        chunks = row_mapping.chunks(written, now)
        if chunks:
            sql.insert_chunks(cursor, chunks, self._stage)
        new_producers, changed_producers = row_mapping.producers(written, now)
        if new_producers:
            sql.insert_producers(cursor, new_producers)
        if changed_producers:
            sql.update_producers(cursor, changed_producers)
        self._written += written

    def save_if_unchanged(self, streams: Iterable[StreamState]) -> bool:
        """Write changes to those streams whose rows still are as the row cache has them (see `confirm`).

        Returns False, with nothing written, where a stream has no change. Its row would not be checked, and the
        outcome of its operations could be wrong.
        """
        now = self._sql.stamp(self._cursor, self._now)
        states = sorted(streams, key=attrgetter("id"))
        if not all(state.changed for state in states):
            return False
        _, changed_producers = row_mapping.producers(states, now)  # the row cache has all of them, so none is new
        self._updated = self._sql.update_if_unchanged(
            self._cursor,
            [(*row_mapping.stream_update(state, now), state.row_version, state.start) for state in states],
            row_mapping.chunks(states, now),
            changed_producers,
        )
        return True

    def save_if_plain(self, streams: Iterable[StreamState]) -> bool:
        """Write plain appends at the tails of their streams, wherever these are by now (see `confirm`).

        Returns False, with nothing written, where a stream has no change, as in `save_if_unchanged`.
        """
        now = self._sql.stamp(self._cursor, self._now)
        states = sorted(streams, key=attrgetter("id"))
        if not all(state.changed for state in states):
            return False
        self._updated = self._sql.append_where_plain(
            self._cursor,
            [row_mapping.plain_append(state, now) for state in states],
            row_mapping.chunks_before_tail(states, now),
        )
        return True

    def confirm(self, streams: Collection[StreamState]) -> list[StreamState]:
        """Return those streams that were written. The others are unchanged in the database.

        Streams that `save_if_plain` has found at another tail are moved there.
        """
        updated = {stream_id: others for stream_id, *others in self._updated}
        confirmed = [state for state in streams if state.id in updated]
        for state in confirmed:
            version, *tail = updated[state.id]
            state.row_version = int(version)
            if tail and tail[0] != state.tail:
                self.moved[state.path] = tail[0] - state.tail
                state.move(tail[0] - state.tail)
        self._saved.append(_Saved([*confirmed], [], (), []))
        return confirmed

    def commits(self, streams: Iterable[StreamState]) -> list[Commit]:
        """Return all changes of the batch, once they are committed.

        Args:
            streams: the existing streams, for the row cache.
        """
        self.mark_saved()
        if self._row_cache is not None:
            row_version = self._read_row_version()
            for state in self._written:
                state.row_version = row_version
            self._row_cache.put(streams)
        return self._commits

    def _read_row_version(self) -> int | None:
        if self._row_version is None:
            return None
        ((version,),) = self._row_version
        return int(version)

    def mark_saved(self) -> None:
        """Collect the commits of all saves so far. The working copies are then as their rows."""
        for changed, created, ids, ended in self._saved:
            _set_ids(created, ids)
            commits = [state.commit() for state in changed if state.has_visible_changes]
            commits += [state.commit(created=True) for state in created]
            commits += [state.removal() for state in ended]
            if self._registry_path is not None:
                registry_entries.mark(commits)
            self._commits += commits
            for state in (*changed, *created):
                state.mark_saved()
        self._saved.clear()


def _set_ids(created: list[StreamState], ids: Iterable[tuple[int, str]]) -> None:
    if created and not created[0].id:
        by_path = {state.path: state for state in created}
        for stream_id, path in ids:
            by_path[path].id = stream_id

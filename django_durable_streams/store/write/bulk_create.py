"""Many new and empty streams at once, without a query for existing streams.

This is an optimisation for applications that create a stream for each conversation or task.

Invariant: the streams differ only in their paths, and none has data or a link, so they share one outcome and one row.
If one of the paths is taken, or the rules for links have changed, the statement inserts nothing, and the batch goes the
general way. Only on SQLite and PostgreSQL.

Gain: the batch needs no query, no working copy and no outcome for each stream. On PostgreSQL it is one round trip.
docs/benchmarks.md has the rate of creates. `Statements.supports_blind_insert` switches it off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import Any

from django.db import IntegrityError

from ... import clock
from ..operations import Commit, Create, Operation
from ..sql import Statements, statements
from ..stream_info import StreamInfo
from . import registry_entries, row_mapping
from .batch import Outcome
from .commit_context import CommitContext
from .linking import cached_rules
from .row_cache import SQLiteRowCache
from .stream_creation import new_info
from .stream_state import StreamState

_path = attrgetter("path")
_configuration = attrgetter("content_type", "ttl", "expires_at", "closed", "data", "defect", "fork")
_WITHOUT_DATA = (b"", None, None)
"""The data, defect and fork of a create of an empty stream."""


def bulk_create_empty(
    operations: Sequence[Operation],
    using: str,
    context: CommitContext,
    lock_ms: int | None,
) -> tuple[list[Outcome], list[Commit]] | None:
    """Create streams without data that differ only in their paths. The arguments are those of `group_commit.apply`.

    Returns the outcomes and changes as `group_commit.apply` does. None, with nothing changed, where the operations are
    of another kind, or where one of the paths is taken.
    """
    sql = statements(using)
    row_cache = context.row_cache if isinstance(context.row_cache, SQLiteRowCache) else None
    paths = _paths_of_copies(operations) if sql.supports_blind_insert else None
    if paths is None:
        return None
    rules = cached_rules(using)
    if rules is None or rules.concern(paths) or registry_entries.path() in paths:
        return None
    first = operations[0]
    assert isinstance(first, Create)
    now = clock.now()
    common = new_info(first, now)
    state = StreamState(common)
    outcomes: list[Outcome] = [state.created_result(created=True)] * len(paths)
    is_recorded = registry_entries.path() is not None
    try:
        with _opened(sql, len(paths), is_recorded, lock_ms, context) as cursor:
            if row_cache is not None:
                row_cache.start_counting(cursor, sql)
            context.before_commit(outcomes)
            row = row_mapping.stream_insert(state, sql.stamp(cursor, now))
            inserted = sql.insert_copies(cursor, row, paths, rules.version)
            if is_recorded:
                inserted = list(inserted)
                _record(sql, cursor, common, inserted if len(inserted) == len(paths) else ())
    except IntegrityError:
        return None
    ids = list(inserted)
    if len(ids) < len(paths):
        return None
    if row_cache is not None:
        row_cache.put_new(common, ids)
    if not context.reports_empty_streams():
        return outcomes, []
    states = [StreamState(common._replace(id=stream_id, path=path)) for stream_id, path in ids]
    commits = [state.commit(created=True) for state in states]
    if is_recorded:
        registry_entries.mark(commits)
    return outcomes, commits


def _opened(
    sql: Statements, rows: int, is_recorded: bool, lock_ms: int | None, context: CommitContext
) -> AbstractContextManager[Any]:
    """Return the transaction: one of a single statement, unless entries of the registry belong to it."""
    if is_recorded:
        return sql.transaction(lock_ms, context.before_wait)
    return sql.insertion(rows, lock_ms, context.before_wait)


def _record(sql: Statements, cursor: Any, common: StreamInfo, ids: Iterable[tuple[int, str]]) -> None:
    """Write the entries of the registry about new streams."""
    states = [StreamState(common._replace(path=path)) for _, path in ids]
    registry_entries.insert(sql, cursor, registry_entries.messages((), states, (), clock.now()))


def _paths_of_copies(operations: Sequence[Operation]) -> list[str] | None:
    """Return the paths of the new streams if the operations create empty streams that differ only in their paths."""
    if not operations or type(operations[0]) is not Create or set(map(type, operations)) != {Create}:
        return None
    configurations = [*map(_configuration, operations)]
    paths = [*map(_path, operations)]
    first = configurations[0]
    if first[4:] != _WITHOUT_DATA or configurations.count(first) < len(paths) or len(set(paths)) < len(paths):
        return None
    return paths

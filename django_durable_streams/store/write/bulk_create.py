"""Making many new and empty streams at once, without looking first whether they are there.

Nothing is done for each of them that can be done for all: that is what clients wait for who make streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from django.db import IntegrityError

from ... import clock
from ..operations import Commit, Create, Operation
from ..sql import statements
from . import row_mapping
from .batch import Outcome
from .commit_context import CommitContext
from .stream_state import StreamState, new_info

_path = attrgetter("path")
_kind = attrgetter("content_type", "ttl", "expires_at", "closed", "data", "defect", "fork")
_NOTHING = (b"", None, None)
"""What `_kind` ends with where a stream is to have nothing in it."""


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
    sql, row_cache = statements(using), context.row_cache
    paths = _bulk_create(operations) if sql.supports_blind_insert else None
    if paths is None:
        return None
    first = operations[0]
    assert isinstance(first, Create)
    like = new_info(first, clock.now())
    state = StreamState(like)
    outcomes: list[Outcome] = [state.describe(created=True)] * len(paths)
    try:
        with sql.insertion(len(paths), lock_ms, context.before_wait) as cursor:
            if row_cache is not None and not row_cache.has_begun:
                row_cache.check(cursor, sql)
            context.before_commit(outcomes)
            numbers = sql.insert_copies(cursor, row_mapping.stream_insert(state, row_mapping.stamp(using)), paths)
    except IntegrityError:
        return None
    made = list(numbers)
    if len(made) < len(paths):
        return None
    if row_cache is not None:
        row_cache.put_new(like, made)
    if not context.reports_empty_streams():
        return outcomes, []
    states = [StreamState(like._replace(id=stream_id, path=path)) for stream_id, path in made]
    return outcomes, [state.commit(created=True) for state in states]


def _bulk_create(operations: Sequence[Operation]) -> list[str] | None:
    """Return the paths of the streams that operations make, if these are all that they differ in."""
    if set(map(type, operations)) != {Create}:
        return None
    kinds = [*map(_kind, operations)]
    paths = [*map(_path, operations)]
    if kinds[0][4:] != _NOTHING or kinds.count(kinds[0]) < len(kinds) or len(set(paths)) < len(paths):
        return None
    return paths

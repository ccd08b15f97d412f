"""What a batch has made of streams, as rows of the tables: in the order in which `sql` takes the columns.

Times are `now` and what `moment` makes of others: as the database takes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from . import rows
from .sql import Row
from .state import StreamState

Moment = Callable[[datetime | None], Any]


def stream_insert(state: StreamState, now: Any, moment: Moment) -> Row:
    """Return a new stream's row."""
    return (
        state.path,
        state.content_type,
        state.generation,
        state.tail,
        0,
        state.closed,
        state.closed_by,
        state.last_seq,
        state.ttl,
        moment(state.expires_at) if state.expires_at is not None else None,
        moment(state.deadline) if state.deadline is not None else None,
        state.source_id,
        state.fork_position,
        None if state.lineage is None else json.dumps(state.lineage),
        now,
        now if state.ends else None,
    )


def stream_update(state: StreamState, now: Any, moment: Moment) -> Row:
    """Return what has changed in a stream's row, or may have."""
    deadline = moment(state.deadline) if state.deadline is not None else None
    appended_at = now if state.ends else None
    return state.tail, state.closed, state.closed_by, state.last_seq, deadline, appended_at, state.id


def chunks(states: Iterable[StreamState], now: Any) -> list[Row]:
    """Return the chunks for what was appended to streams."""
    found: list[Row] = []
    for state in states:
        ends = state.ends
        if len(ends) == 1:
            found.append((state.id, state.start, ends[0], state.data[0], b"", now))
        elif ends:
            found += [(state.id, *chunk, now) for chunk in rows.chunks(state.start, state.data, ends)]
    return found


def producers(states: Iterable[StreamState], now: Any) -> tuple[list[Row], list[Row]]:
    """Return the rows of new producers of streams, and what has changed in those of others."""
    new: list[Row] = []
    known: list[Row] = []
    for state in states:
        for name, is_new in state.changed_producers.items():
            if is_new:
                new.append((state.id, name, *state.producers[name], now))
            else:
                known.append((*state.producers[name], now, state.id, name))
    return new, known

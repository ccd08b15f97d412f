"""What a batch has made of streams, as rows of the tables: in the order in which `sql` takes the columns.

`now` is for people, as Django's DateTimeField stores it. What the protocol decides by is stored as microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import connections
from django.utils import timezone

from ...clock import to_microseconds
from .. import chunk_rows
from ..sql import Row
from .stream_state import StreamState


def stamp(using: str) -> Any:
    """Return the time as the database takes it for a DateTimeField of Django's."""
    return connections[using].ops.adapt_datetimefield_value(timezone.now())


def _instant(moment: datetime | None) -> int | None:
    return None if moment is None else to_microseconds(moment)


def stream_insert(state: StreamState, now: Any) -> Row:
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
        _instant(state.expires_at),
        _instant(state.deadline),
        state.source_id,
        state.fork_position,
        None if state.lineage is None else json.dumps(state.lineage),
        now,
        now if state.ends else None,
    )


def stream_update(state: StreamState, now: Any) -> Row:
    """Return what has changed in a stream's row, or may have."""
    appended_at = now if state.ends else None
    deadline = _instant(state.deadline)
    return state.tail, state.closed, state.closed_by, state.last_seq, deadline, appended_at, state.id


def lifetimes(states: Iterable[StreamState]) -> list[Row]:
    """Return the lifetimes of the streams that were given another one. Hardly any is, so it is no part of the rest."""
    return [
        (state.ttl, _instant(state.expires_at), _instant(state.deadline), state.id)
        for state in states
        if state.lifetime_changed
    ]


def chunks(states: Iterable[StreamState], now: Any) -> list[Row]:
    """Return the chunks for what was appended to streams."""
    found: list[Row] = []
    for state in states:
        ends = state.ends
        if len(ends) == 1:
            found.append((state.id, state.start, ends[0], state.data[0], b"", now))
        elif ends:
            found += [(state.id, *chunk, now) for chunk in chunk_rows.chunks(state.start, state.data, ends)]
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

"""The rows of the tables for the changes of a batch, with the values in the order of `sql.columns`.

`now` is the time that people see, as Django's DateTimeField stores it. Times by which the protocol decides are stored
in microseconds since 1970. Knows no statement.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from ...clock import to_microseconds
from .. import chunk_rows
from ..sql import Row
from .stream_state import StreamState


def _instant(moment: datetime | None) -> int | None:
    return None if moment is None else to_microseconds(moment)


def stream_insert(state: StreamState, now: Any) -> Row:
    """Return the row of a new stream (`STREAM_COLUMNS`)."""
    return (
        state.path,
        state.content_type,
        state.generation,
        state.tail,
        state.first_position,
        state.closed,
        state.closed_by,
        state.last_seq,
        state.ttl,
        _instant(state.expires_at),
        _instant(state.deadline),
        state.source_id,
        state.fork_position,
        None if state.source_id is None else state.first_position,
        None if state.lineage is None else json.dumps(state.lineage),
        state.link_state,
        now,
        now if state.ends else None,
    )


def stream_update(state: StreamState, now: Any) -> Row:
    """Return the values of a changed stream (`UPDATED_STREAM_COLUMNS`)."""
    appended_at = now if state.ends else None
    deadline = None if state.deadline is None else to_microseconds(state.deadline)
    return (
        state.tail,
        state.closed,
        state.closed_by,
        state.last_seq,
        deadline,
        state.link_state,
        appended_at,
        state.id,
    )


def plain_append(state: StreamState, now: Any) -> Row:
    """Return the values of a stream that has only grown (`GROWN_STREAM_COLUMNS`)."""
    return state.tail - state.start, now, state.path, state.generation, state.id


def lifetimes(states: Iterable[StreamState]) -> list[Row]:
    """Return the lifetimes of the streams whose lifetime has changed, for `update_lifetimes`.

    Such changes are rare, so their columns are not a part of `stream_update`.
    """
    return [
        (state.ttl, _instant(state.expires_at), _instant(state.deadline), state.id)
        for state in states
        if state.lifetime_changed
    ]


def trims(states: Iterable[StreamState]) -> list[Row]:
    """Return the first positions of the streams that were trimmed, for `update_first_positions`."""
    return [(state.first_position, state.id) for state in states if state.trimmed]


def chunks(states: Iterable[StreamState], now: Any) -> list[Row]:
    """Return the chunks of all appends since the last save (`CHUNK_COLUMNS`)."""
    rows: list[Row] = []
    for state in states:
        ends = state.ends
        if len(ends) == 1:
            rows.append((state.id, state.start, ends[0], state.appends[0], b"", now))
        elif ends:
            rows += [(state.id, *chunk, now) for chunk in chunk_rows.chunks(state.start, state.appends, ends)]
    return rows


def chunks_before_tail(states: Iterable[StreamState], now: Any) -> list[Row]:
    """The same as `chunks`, with the distances of starts and ends from the stream's new tail in their place."""
    return [
        (stream_id, state.tail - start, state.tail - end, *others)
        for state in states
        for stream_id, start, end, *others in chunks([state], now)
    ]


def producers(states: Iterable[StreamState], now: Any) -> tuple[list[Row], list[Row]]:
    """Return the rows of new producers (`PRODUCER_COLUMNS`), and the changes of others (`UPDATED_PRODUCER_COLUMNS`)."""
    inserts: list[Row] = []
    updates: list[Row] = []
    for state in states:
        for producer_id, is_new in state.changed_producers.items():
            if is_new:
                inserts.append((state.id, producer_id, *state.producers[producer_id], now))
            else:
                updates.append((*state.producers[producer_id], now, state.id, producer_id))
    return inserts, updates

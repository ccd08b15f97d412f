"""The protocol's rules for creates: new streams, forks, and repeated creates (sections 4.2 and 5.1).

Knows no database. The position at which a fork is cut is decided in `forking`.
"""

from __future__ import annotations

from datetime import datetime

from ...protocol import content, headers, offsets
from ...protocol.errors import ContentTypeMismatch, StreamExists
from .. import lifetime
from ..operations import Create, Created
from ..read.lineage import of_fork
from ..stream_info import StreamInfo
from .stream_state import StreamState


def new_info(operation: Create, now: datetime, previous_generation: int = 0) -> StreamInfo:
    """Return a new stream that has no id and no data yet.

    Args:
        previous_generation: the generation of an earlier stream that lost this path in the same batch. The generation
            of the new stream is greater.
    """
    return StreamInfo(
        0,
        operation.path,
        operation.content_type or content.DEFAULT_CONTENT_TYPE,
        offsets.new_generation(previous_generation),
        closed=operation.closed,
        ttl=operation.ttl,
        expires_at=operation.expires_at,
        deadline=lifetime.deadline(operation.ttl, operation.expires_at, now),
    )


def new_stream(operation: Create, now: datetime, previous_generation: int = 0) -> StreamState:
    """Return a new stream with its initial content. The arguments are those of `new_info`.

    Raises:
        BadRequest: the defect that the operation carries.
    """
    state = StreamState(new_info(operation, now, previous_generation))
    _add_initial_data(state, operation)
    return state


def new_fork(
    operation: Create, source: StreamState, cut: int, now: datetime, previous_generation: int = 0
) -> StreamState:
    """Return a new stream that begins with the data of another stream.

    Args:
        source: the other stream.
        cut: the position up to which the data of the source belongs to the fork, from the source's first position on.
        previous_generation: see `new_info`.

    Raises:
        ContentTypeMismatch: the requested content type is not the source's (409).
        BadRequest: the defect that the operation carries.
    """
    if operation.content_type is not None and not content.same_type(operation.content_type, source.content_type):
        raise ContentTypeMismatch(f"The content type of the source is {source.content_type}.")
    ttl, expires_at = _fork_lifetime(operation, source)
    state = StreamState(
        StreamInfo(
            0,
            operation.path,
            operation.content_type or source.content_type,
            offsets.new_generation(max(previous_generation, source.generation)),
            tail=cut,
            closed=operation.closed,
            ttl=ttl,
            expires_at=expires_at,
            deadline=lifetime.deadline(ttl, expires_at, now),
            first_position=source.first_position,
            source_id=source.id,
            fork_position=cut,
            lineage=of_fork(source.info(), cut),
        )
    )
    _add_initial_data(state, operation)
    return state


def confirm(state: StreamState, operation: Create) -> Created:
    """Return the result of a create whose path has this stream already (section 5.1).

    Raises:
        StreamExists: the create asks for another configuration.
    """
    if (
        state.source_id is not None
        or not content.same_type(operation.content_type or content.DEFAULT_CONTENT_TYPE, state.content_type)
        or (operation.ttl, operation.expires_at) != (state.ttl, state.expires_at)
        or operation.closed != state.closed
    ):
        raise _exists(state)
    return state.created_result(created=False)


def confirm_fork(state: StreamState, operation: Create, source: StreamState | None, cut: int | None) -> Created:
    """Return the result of a fork whose path has this stream already (section 4.2, "Idempotent fork creation").

    Args:
        source: the stream that the create names as the source, if it exists.
        cut: the requested position of the cut. None for the source's tail. The tail moves on, and a repeated request
            must not fail because of that.

    Raises:
        StreamExists: the create asks for another configuration.
    """
    if (
        source is None
        or state.source_id != source.id
        or (cut is not None and cut != state.fork_position)
        or not content.same_type(operation.content_type or source.content_type, state.content_type)
        or (state.ttl, state.expires_at) != _fork_lifetime(operation, source)
        or operation.closed != state.closed
    ):
        raise _exists(state)
    return state.created_result(created=False)


def _add_initial_data(state: StreamState, operation: Create) -> None:
    if operation.defect is not None:
        raise operation.defect
    data = operation.data
    if operation.content_type is None:
        data = content.pack_initial(state.content_type, data)
    if data:
        state.add(data)


def _exists(state: StreamState) -> StreamExists:
    return StreamExists(
        "This path has a stream with another content type, TTL, expiry, closure or source. "
        "Use another path, or delete that stream first.",
        ((headers.STREAM_CLOSED, b"true"),) if state.closed else (),
    )


def _fork_lifetime(operation: Create, source: StreamState) -> tuple[int | None, datetime | None]:
    """Return the TTL and expiry of a fork: its own or, without any, its source's (section 4.2, the table)."""
    if operation.ttl is not None or operation.expires_at is not None:
        return operation.ttl, operation.expires_at
    return source.ttl, source.expires_at

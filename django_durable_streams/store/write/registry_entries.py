"""The entries of the registry: each change that it will tell, written by the transaction that makes the change.

The registry is one stream, and all creates would wait for its row if they wrote to it. So they insert a row into a
table of their own, an outbox. `MoveEntries` moves these rows into the stream later, many in one transaction.

Invariants:

- An entry is committed with its change, or not at all. The transaction that appends it to the registry deletes it. So
  each change is told once.
- Entries of one path are told in the order of their changes. A change waits for the commit of the change before it, by
  the lock of the row or of the path, and inserts its entry afterwards. So its id is greater. A transaction that moves
  entries holds the row of the registry, and then reads them with one query. So it never sees an entry without the
  earlier ones of its path.

Knows no thread. The messages are those of `protocol.registry`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from ...conf import config
from ...models import RegistryEntry, Stream
from ...protocol import headers, registry
from ...protocol.content import is_json
from ...protocol.errors import ContentTypeMismatch, RegistryReadOnly, StreamClosed, StreamExists
from ...protocol.registry import CONTENT_TYPE as CONTENT_TYPE
from ...protocol.registry import RecordedStream
from ..operations import Append, Commit, Create, Delete, Operation, TakeOver
from ..sql import Statements
from .stream_state import StreamState


def path() -> str | None:
    """Return the path of the registry. None: there is none, and no change is recorded."""
    return config().registry_path or None


def check_writer(operation: Operation) -> None:
    """Check that an operation on the registry comes from the server, or changes no data.

    Callers that name the stream's id have found it in the database. They may delete it, to begin anew.

    Raises:
        RegistryReadOnly: it would write to the registry (405, carries `Allow`).
    """
    is_clients_delete = type(operation) is Delete and operation.stream_id is None
    if is_clients_delete or type(operation) in (Append, Create, TakeOver):
        raise RegistryReadOnly(
            "Only the server writes to the registry of streams.", ((headers.ALLOW, b"GET, HEAD, OPTIONS"),)
        )


def check_stream(state: StreamState) -> None:
    """Check that the stream at the path of the registry can be the registry.

    Raises:
        StreamClosed, ContentTypeMismatch: it cannot.
    """
    if state.closed:
        raise StreamClosed("The stream at its path has ended. Delete that stream.")
    if not is_json(state.content_type):
        raise ContentTypeMismatch(
            f"The stream at its path has the content type {state.content_type}. Delete that stream."
        )


def check_creation(*, is_kept: bool) -> None:
    """Check that the registry can be created.

    Args:
        is_kept: whether a deleted stream keeps its path.

    Raises:
        StreamExists: it cannot.
    """
    if is_kept:
        raise StreamExists("The stream at its path was deleted, and keeps the path while it has forks. Delete these.")


def append_all(state: StreamState, entries: Iterable[str], now: datetime) -> None:
    """Append entries to the registry, each of them with an offset of its own."""
    for message in entries:
        state.append(Append(state.path, state.content_type, b"%b\n" % message.encode()), now)


def messages(
    ended: Iterable[StreamState], created: Iterable[StreamState], changed: Iterable[StreamState], now: datetime
) -> list[bytes]:
    """Return the messages about the changes of one save, in their order: a path may be used again in it."""
    own = path()  # the registry does not tell of itself
    result = [registry.deleted(_recorded(state), now, expired=state.expired) for state in ended if state.path != own]
    result += [registry.created(_recorded(state), now) for state in created if state.path != own]
    closed = (state for state in changed if state.closed and not state.was_closed)
    return result + [registry.closed(_recorded(state), now) for state in closed if state.path != own]


def expirations(streams: Iterable[Stream], moment: datetime) -> list[bytes]:
    """Return the messages about streams that have expired."""
    registry_path = path()
    if registry_path is None:
        return []
    expired = [
        RecordedStream(stream.path or "", stream.content_type, stream.generation, stream.closed)
        for stream in streams
        if stream.path != registry_path
    ]
    return [registry.deleted(stream, moment, expired=True) for stream in expired]


def _recorded(state: StreamState) -> RecordedStream:
    return RecordedStream(state.path, state.content_type, state.generation, state.closed)


def insert(sql: Statements, cursor: Any, recorded: Sequence[bytes]) -> None:
    """Write entries in the transaction of their changes, after the rows of the streams."""
    if recorded:
        sql.insert_registry_entries(cursor, [(message.decode(),) for message in recorded])


def mark(commits: Iterable[Commit]) -> None:
    """Mark the commits of which the registry tells, so that the delivery moves their entries."""
    for commit in commits:
        if commit.created or commit.closes or commit.removed:
            commit.concerns_delivery = True


def are_waiting(using: str) -> bool:
    """Return whether there are entries that the registry has not told yet."""
    return RegistryEntry.objects.using(using).exists()

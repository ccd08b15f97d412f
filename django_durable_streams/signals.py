"""Signals about committed changes of streams.

Only the process that commits a change sends its signal. If every process connects a receiver, the receiver is called
once for each change. All signals have the sender `Stream` and the arguments `path`, `stream_id`, `content_type` and
`using`, the alias of the database. `stream_appended` also has `offset` and `next_offset`. The new data lies between
them, and `stream.read(offset)` returns it.

- Signals for changes by Python code are sent in the caller's thread when its transaction commits.
- Signals for requests, writers and expired streams are sent by a thread of their own, so that a slow receiver delays
  neither appends nor readers.

An error in a receiver is logged, and affects no other receiver. If a process is killed between a commit and its signal,
the signal is never sent. Work that must not be missed belongs into the transaction of the append, or to a reader that
stores its offset.
"""

from __future__ import annotations

from django.dispatch import Signal

stream_created = Signal()
"""A stream or a fork was created."""

stream_appended = Signal()
"""Data was appended. There is one signal for all appends of a commit to a stream."""

stream_closed = Signal()
"""A stream was closed, or created closed."""

stream_deleted = Signal()
"""A stream was deleted."""

stream_expired = Signal()
"""A stream has expired. Housekeeping sends the signal within a few seconds, or a create that reuses the path before."""

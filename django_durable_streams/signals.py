"""Signals: what has happened to streams, once it is committed.

The process that has committed sends them, and no other: a receiver hears of everything once in all processes together,
if each of them connects it. All have the sender `Stream` and the arguments `path`, `stream_id`, `content_type` and
`using`, the alias of the database; `stream_appended` has `offset` and `next_offset` too, between which the new data
lies: `stream.read(offset)` returns it.

- What Python code has done is sent where and when its transaction commits, by `transaction.on_commit`.
- What came by HTTP, what a writer wrote, and what the housekeeping thread has found expired, is sent from a thread
  that does nothing else, so that a slow receiver keeps neither appends nor readers waiting.

An error in a receiver is logged, and harms nobody. If a process is killed between a commit and its signal, that is
never sent: what must not be missed belongs into the transaction of the append, or to a reader that keeps its offset.
"""

from __future__ import annotations

from django.dispatch import Signal

stream_created = Signal()
"""A stream was created, a fork included."""

stream_appended = Signal()
"""Data was appended. One signal stands for all appends of a commit to a stream."""

stream_closed = Signal()
"""A stream was closed, or created closed."""

stream_deleted = Signal()
"""A stream was deleted."""

stream_expired = Signal()
"""A stream has reached the end of its life. Sent when the process that cleans up finds it, within a few seconds; or
before that, by who takes its path."""

"""Starting TTLs anew for reads, which never wait for that: another transaction may hold the stream's row for long."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from .. import clock
from ..protocol.errors import DurableStreamsError
from ..runtime.results import ResultCallback
from ..store import lifetime
from ..store.operations import Touch
from ..store.stream_info import StreamInfo

logger = logging.getLogger(__name__)


class TtlRenewals:
    """Streams whose TTL is about to start anew: each waits once for many reads, and again for those much later.

    Args:
        queue: queues a touch for a receiver, which may be told in any thread.
    """

    def __init__(self, queue: Callable[[Touch, ResultCallback], None]) -> None:
        self._queue = queue
        self._queued: dict[int, datetime] = {}
        """By stream, the moment of the last read that waits: as good as written, unless it cannot be."""

    def renew(self, info: StreamInfo) -> None:
        """Start a stream's TTL anew where a read has to. Safe to call from any thread."""
        now = clock.now()
        if not lifetime.needs_touch(info.ttl, info.deadline, now):
            return
        queued = self._queued.get(info.id)
        if queued is not None and not lifetime.needs_touch(info.ttl, lifetime.deadline(info.ttl, None, queued), now):
            return
        self._queued[info.id] = now
        renewal = _Renewal(self._queued, info.id, now)
        try:
            self._queue(Touch(info.path, now, info.id), renewal)
        except DurableStreamsError as error:  # the next read tries again
            renewal.resolve(error)
            logger.debug("The TTL of %s did not start anew: %s", info.path, error)


class _Renewal:
    """Receives what becomes of one touch."""

    def __init__(self, queued: dict[int, datetime], stream_id: int, moment: datetime) -> None:
        self._queued = queued
        self._stream_id = stream_id
        self._moment = moment

    def prepare(self, value: object) -> None:
        """There is nothing to make ready."""

    def resolve(self, value: object) -> None:
        """Let the next read start it anew. A stream that has ended meanwhile needs no more of that."""
        if self._queued.get(self._stream_id) == self._moment:
            self._queued.pop(self._stream_id, None)

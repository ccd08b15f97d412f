"""TTL renewals: reads start the sliding TTL of their stream again, without a wait for the write.

The write goes through the committer, because another transaction may hold the stream's row for long.
"""

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
    """The streams whose renewal is queued. Many reads share one renewal.

    Args:
        queue: queues a touch. Its callback may be called in any thread.
    """

    def __init__(self, queue: Callable[[Touch, ResultCallback], None]) -> None:
        self._queue = queue
        self._queued: dict[int, datetime] = {}
        """By stream id, the time of the last read with a queued renewal. It counts as written unless that fails."""

    def renew(self, info: StreamInfo) -> None:
        """Start a stream's TTL again if a read has to. Safe to call from any thread."""
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
            logger.debug("The TTL of %s was not renewed: %s", info.path, error)


class _Renewal:
    """The callback of one renewal."""

    def __init__(self, queued: dict[int, datetime], stream_id: int, moment: datetime) -> None:
        self._queued = queued
        self._stream_id = stream_id
        self._moment = moment

    def prepare(self, value: object) -> None:
        """Prepare nothing, because no caller waits."""

    def resolve(self, value: object) -> None:
        """Allow the next renewal of the stream."""
        if self._queued.get(self._stream_id) == self._moment:
            self._queued.pop(self._stream_id, None)

"""Starting TTLs anew for reads, which never wait for that: another transaction may hold the stream's row for long."""

from __future__ import annotations

import logging
from collections.abc import Callable

from .. import clock
from ..protocol.errors import DurableStreamsError
from ..runtime.batch_worker import ResultCallback
from ..store import lifetime
from ..store.operations import Touch
from ..store.stream_info import StreamInfo

logger = logging.getLogger(__name__)


class TtlRenewals:
    """Streams whose TTL is about to start anew: each waits once, however many read it meanwhile.

    Args:
        queue: queues a touch for a receiver, which may be told in any thread.
    """

    def __init__(self, queue: Callable[[Touch, ResultCallback], None]) -> None:
        self._queue = queue
        self._paths: set[str] = set()

    def renew(self, info: StreamInfo) -> None:
        """Start a stream's TTL anew where a read has to. Safe to call from any thread."""
        now = clock.now()
        if not lifetime.needs_touch(info.ttl, info.deadline, now) or info.path in self._paths:
            return
        self._paths.add(info.path)
        try:
            self._queue(Touch(info.path, now, info.id), _Renewal(self._paths, info.path))
        except DurableStreamsError as error:  # the next read tries again
            self._paths.discard(info.path)
            logger.debug("The TTL of %s did not start anew: %s", info.path, error)


class _Renewal:
    """Receives what becomes of one touch."""

    def __init__(self, paths: set[str], path: str) -> None:
        self._paths = paths
        self._path = path

    def prepare(self, value: object) -> None:
        """There is nothing to make ready."""

    def resolve(self, value: object) -> None:
        """Let the next read start it anew. A stream that has ended meanwhile needs no more of that."""
        self._paths.discard(self._path)

"""Long-poll: a reader that waits once (specification, section 5.7).

Returns snapshots. It knows no requests and no responses: the caller makes a response from a snapshot.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async

from ..conf import config
from ..engine import Engine
from ..engine.live_reader import LiveReader
from ..engine.snapshot_reader import Snapshot
from ..protocol.messages import LiveGrant
from ..runtime.servers import servers_of_thread


class LongPoll(LiveReader):
    """Waits on a stream until there is data past a position.

    Args:
        snapshot: the stream as the request has seen it, without data past its position.
        deliver: sends the response that a snapshot leads to, if it can do so at once, and returns whether it did. It
            gets the snapshot, and a dict that all readers share that get the same news.
        grant: the permission of the read, if it can end. The wait ends with it.
        lasting: whether the event loop goes on after the request. Under WSGI it does not.
    """

    kind = "long_poll"

    __slots__ = ("_deliver", "_lasting", "_snapshot", "delivered")

    def __init__(
        self,
        engine: Engine,
        snapshot: Snapshot,
        deliver: Callable[[Snapshot, dict[Any, Any]], bool],
        grant: LiveGrant | None = None,
        *,
        lasting: bool = True,
    ) -> None:
        super().__init__(engine.hub(lasting=lasting), grant)
        self.delivered = False
        """Whether `deliver` has sent the response."""
        self._snapshot = snapshot
        self._deliver = deliver
        self._lasting = lasting

    def notify(self) -> None:
        """The stream has changed: send the response from here, or end the wait."""
        wait = self._wait
        if wait is None or self.delivered or wait.done():
            return  # before its wait, the reader looks at the watch itself
        watch = self.watch
        is_over = watch.ended or not self.is_permitted(time.monotonic())
        snapshot = None if is_over else watch.snapshot(self._snapshot.position)
        if snapshot is not None and snapshot.segment is not None:
            self.delivered = self._deliver(snapshot, watch.shared_responses)
            if self.delivered:
                watch.after_notify.append(self.wake)
                return
        elif snapshot is not None and not snapshot.closed:
            return  # the hub has caught up with what this reader has seen already
        self.wake()

    async def wait(self) -> Snapshot:
        """Return the stream with the data past the position. Without data, the time is over, or `delivered` is set.

        Raises:
            StreamNotFound: the stream was deleted or has expired meanwhile.
            OffsetGone: the database has lost the data before the position.
        """
        position = self._snapshot.position
        # Under WSGI the event loop belongs to no server. The server waits further up, in the thread of the request.
        servers = () if self._lasting else await sync_to_async(servers_of_thread)()
        watch = await self.join(self._snapshot, servers)
        try:
            if not (watch.tail > position or watch.closed or watch.ended or self.is_stopped):
                seconds = config().long_poll_timeout
                if self._grant is not None:
                    seconds = min(seconds, self._grant.seconds_left)
                await self.wait_for_news(seconds)
            if self.delivered:
                return self._snapshot  # whatever has happened since: a request has one response
            if not watch.ended:
                snapshot = watch.snapshot(position)
                if snapshot is not None:
                    return snapshot
        finally:
            self.leave()
        return await self.hub.fetch(watch, position)

"""The part that all live readers share: join a stream's watch, wait for news, leave.

Long-polls, SSE readers and Python's `tail` build on it, and add what they do with the news. A waiting reader is an
object in the hub. It holds no thread and no database connection, and needs no task of its own. Knows no responses and
no formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..runtime.results import Reply

if TYPE_CHECKING:
    from ..protocol.messages import LiveGrant
    from ..runtime.servers import RunningServer
    from .hub import Hub, Watch
    from .snapshot_reader import Snapshot


class LiveReader:
    """A reader that waits on one stream: a `Listener` of the hub.

    A subclass may do more in `notify`, `tick` and `stop`. Here each of them ends the wait.

    Args:
        hub: the hub of the event loop in which the reader waits.
        grant: the permission of the read, if it can end. The wait ends with it.
    """

    __slots__ = ("_grant", "_is_joined", "_is_woken", "_wait", "hub", "is_stopped", "watch")

    kind = "other"
    """The way in which the reader waits, for statistics."""

    watch: Watch
    """The stream as the hub knows it, from `join` on."""

    def __init__(self, hub: Hub, grant: LiveGrant | None = None) -> None:
        self.hub = hub
        self.is_stopped = False
        """Whether the server is about to end."""
        self._grant = grant
        self._is_joined = False
        self._is_woken = False
        self._wait: Reply | None = None
        """Set while the reader waits."""

    async def join(self, snapshot: Snapshot, servers: Sequence[RunningServer] = ()) -> Watch:
        """Join the watch of a stream. From now on no commit is missed.

        Args:
            snapshot: the stream as the reader has seen it.
            servers: the servers that the reader depends on, beyond those of its event loop.
        """
        if not self._is_joined:
            self.watch = await self.hub.join(snapshot.info, self, servers, seen_at=snapshot.seen_at)
            self._is_joined = True
        return self.watch

    def leave(self) -> None:
        """Leave the watch. May be called again, or without a join."""
        if self._is_joined:
            self._is_joined = False
            self.hub.leave(self.watch, self)

    async def wait_for_news(self, seconds: float | None = None) -> None:
        """Wait until the reader is woken, or until the time is over. A wake-up before the wait ends it at once."""
        if not self._is_woken:
            wait = self._wait = Reply(loop=self.hub.loop)
            if seconds is not None:
                self.hub.timeouts.add(self, seconds)
            try:
                await wait
            finally:
                self._wait = None
                if seconds is not None:
                    self.hub.timeouts.remove(self, seconds)
        self._is_woken = False

    def wake(self) -> None:
        """End the wait."""
        self._is_woken = True
        if self._wait is not None:
            self._wait.resolve(None)

    def notify(self) -> None:
        """The stream has changed."""
        self.wake()

    def tick(self, now: float) -> None:
        """Time has passed. `now` is in monotonic seconds."""
        if not self.is_permitted(now):
            self.wake()

    def stop(self) -> None:
        """The server is about to end."""
        self.is_stopped = True
        self.wake()

    def is_permitted(self, now: float) -> bool:
        """Return whether the permission of the read still holds."""
        return self._grant is None or self._grant.holds(now)

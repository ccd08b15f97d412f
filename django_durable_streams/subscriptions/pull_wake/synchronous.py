"""A claimed wake for synchronous code. The wake itself lives in the background loop, which extends its lease."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...runtime import background
from .base import ClaimedStream, WakeMessage
from .wake import Wake


class SyncWake:
    """A claimed wake. See `Wake` for what its attributes and methods mean."""

    def __init__(self, wake: Wake) -> None:
        self._wake = wake

    @property
    def id(self) -> str:
        """The id of the wake."""
        return self._wake.id

    @property
    def generation(self) -> int:
        """The generation of the wake."""
        return self._wake.generation

    @property
    def lease(self) -> float:
        """The lease in seconds."""
        return self._wake.lease

    @property
    def streams(self) -> tuple[ClaimedStream, ...]:
        """The streams with new messages."""
        return self._wake.streams

    @property
    def is_over(self) -> bool:
        """Whether the lease has ended. Stop the work then."""
        return self._wake.is_over

    def __repr__(self) -> str:
        return repr(self._wake)

    def messages(self, *paths: str) -> Iterator[WakeMessage]:
        """Yield the new messages, stream by stream and in the order of each stream. See `Wake.messages`."""
        yield from background.iterate(self._wake.messages(*paths))

    def ack(self, offsets: Mapping[str, str] | None = None, *, done: bool = False) -> bool:
        """Acknowledge messages, and extend the lease. See `Wake.ack`."""
        return background.run(self._wake.ack(offsets, done=done))

    def release(self) -> None:
        """Give the lease back. All that was not acknowledged is pending again at once."""
        background.run(self._wake.release())

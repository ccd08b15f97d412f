"""What a worker needs of the server of its subscription, and the values that they exchange (specification, 7.2)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from ...protocol.structs import examine
from ...protocol.subscriptions import SubscriptionConfig


class ClaimedStream(msgspec.Struct, frozen=True):
    """A stream of a wake."""

    path: str
    acked_offset: str
    """How far it was processed. `-1`: nothing of it was."""
    tail_offset: str
    """Its end when the worker claimed the subscription."""
    link_type: str = ""
    """`explicit` or `glob`."""
    has_pending: bool = True


class ClaimedWake(msgspec.Struct, frozen=True):
    """The answer to a claim."""

    wake_id: str
    generation: int
    token: str
    lease_ttl_ms: int
    streams: tuple[ClaimedStream, ...]

    @property
    def lease(self) -> float:
        """The lease in seconds."""
        return self.lease_ttl_ms / 1000


@dataclass(frozen=True, slots=True)
class WakeMessage:
    """A message that a wake hands over."""

    stream: str
    """The path of its stream."""
    value: Any
    """The JSON value; text for `text/*`; else bytes."""
    offset: str | None
    """The offset after the message. None: another server has not told it, because more messages of its page follow."""


class SubscriptionServer(Protocol):
    """The server of one subscription. It belongs to one event loop.

    All methods raise `ServiceUnavailable` while the server does not answer, and another `DurableStreamsError` if it
    refuses.
    """

    is_stopping: bool
    """Whether the server that runs in this process is about to end."""

    async def ensure(self, config: SubscriptionConfig) -> bool:
        """Create the subscription and its wake stream, where they do not exist. Return whether it is new."""

    async def wake_stream(self) -> str:
        """Return the path of the wake stream."""

    def wake_events(self, path: str) -> AsyncGenerator[None, None]:
        """Yield once when the wake stream is watched, and then for each page with an event of the subscription.

        It ends if the wake stream ends, or `is_stopping` is set.
        """

    async def claim(self, worker: str) -> ClaimedWake:
        """Claim the subscription."""

    async def ack(self, wake: ClaimedWake, offsets: Mapping[str, str], *, done: bool) -> None:
        """Acknowledge offsets by path, and extend the lease or, with `done`, end it."""

    async def release(self, wake: ClaimedWake) -> None:
        """Give the lease back."""

    def messages(self, stream: ClaimedStream, offset: str) -> AsyncGenerator[WakeMessage, None]:
        """Yield the messages of a stream after an offset, at least up to the tail of the claim. None if it is gone."""

    async def close(self) -> None:
        """Close all connections."""


def is_event_of(name: str, message: Any) -> bool:
    """Return whether a message of a wake stream concerns a subscription. It may be anything: others write it, too."""
    if isinstance(message, bytes | str):  # the wake stream is not in JSON mode
        return name in (message if isinstance(message, str) else message.decode(errors="replace"))
    return isinstance(message, dict) and message.get("subscription_id") == name


examine(globals())

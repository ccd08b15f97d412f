"""A wake that a worker has claimed: it hands over messages, acknowledges them, and extends its lease.

Invariant: nothing is acknowledged that was not handed over, unless the caller names the offset. A wake that is over
sends no request any more. So no request of it concerns a later wake, even before the server fences it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing

from ...protocol.errors import DurableStreamsError, ServiceUnavailable
from ...protocol.subscriptions import FENCED, INVALID_OFFSET, TOKEN_EXPIRED, TOKEN_INVALID, SubscriptionError
from .base import ClaimedStream, ClaimedWake, SubscriptionServer, WakeMessage

logger = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 3
"""The lease is extended after this part of it."""

RETRIES_PER_LEASE = 12
"""How often a request is tried again while the server does not answer, until the lease is over."""

RELEASE_SECONDS = 5.0
"""How long the release of a wake waits for the server. After that, the lease ends by itself."""

_ENDS = frozenset({FENCED, TOKEN_EXPIRED, TOKEN_INVALID})
"""Errors that say that a wake is over."""


class Wake:
    """A claimed wake (specification, section 7.2).

    Args:
        claimed: the answer to the claim.
        server: the server of the subscription.
        began: when the claim was sent, in seconds of the event loop's clock.

    Attributes:
        has_progress: whether something was acknowledged.
    """

    def __init__(self, claimed: ClaimedWake, server: SubscriptionServer, began: float) -> None:
        self.has_progress = False
        self._has_ended = False
        self._claimed = claimed
        self._server = server
        self._handed_over: dict[str, str] = {}
        self._acked: dict[str, str] = {}
        self._loop = asyncio.get_running_loop()
        self._expires_at = began + claimed.lease
        self._requests = asyncio.Lock()
        self._heartbeats: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        """The id of the wake."""
        return self._claimed.wake_id

    @property
    def generation(self) -> int:
        """The generation of the wake, which grows with each wake of the subscription."""
        return self._claimed.generation

    @property
    def lease(self) -> float:
        """The lease in seconds. It is extended while the work goes on."""
        return self._claimed.lease

    @property
    def streams(self) -> tuple[ClaimedStream, ...]:
        """The streams with new messages."""
        return tuple(stream for stream in self._claimed.streams if stream.has_pending)

    @property
    def is_over(self) -> bool:
        """Whether the lease has ended: it was given back, or lost to another worker. Stop the work then.

        The clock decides, too: nothing may have extended the lease, such as an event loop that was blocked.
        """
        return self._has_ended or self._loop.time() >= self._expires_at

    def __repr__(self) -> str:
        return f"<Wake {self.id}, generation {self.generation}>"

    async def messages(self, *paths: str) -> AsyncGenerator[WakeMessage, None]:
        """Yield the new messages, stream by stream and in the order of each stream.

        It ends early if the wake is over, or the server in this process ends. A second call goes on where the first one
        was left. A stream that cannot be read now is left for a later wake.

        Args:
            *paths: only these streams. None: all streams of the wake.
        """
        for stream in self.streams:
            if paths and stream.path not in paths:
                continue
            offset = self._handed_over.get(stream.path, stream.acked_offset)
            try:
                async with aclosing(self._server.messages(stream, offset)) as messages:
                    async for message in messages:
                        if self.is_over or self._server.is_stopping:
                            return
                        if message.offset is not None:
                            self._handed_over[stream.path] = message.offset
                        yield message
            except ServiceUnavailable as error:
                logger.warning("The stream %s cannot be read now, and is left for a later wake: %s", stream.path, error)

    async def ack(self, offsets: Mapping[str, str] | None = None, *, done: bool = False) -> bool:
        """Acknowledge messages, and extend the lease. While the server does not answer, it tries until the lease ends.

        Args:
            offsets: offsets of processed messages by path, inclusive. None: all messages that were handed over.
            done: whether to end the wake.

        Returns:
            False if the wake is over, so that nothing was acknowledged. Another worker gets the messages.

        Raises:
            SubscriptionError: an offset is not one of its stream, or goes back (`INVALID_OFFSET`).
        """
        async with self._requests:
            return await self._ack(self._handed_over if offsets is None else offsets, done, skips=offsets is None)

    async def _ack(self, offsets: Mapping[str, str], done: bool, *, skips: bool) -> bool:
        new = {path: offset for path, offset in offsets.items() if self._acked.get(path) != offset}
        try:
            is_applied = await self._send(lambda: self._server.ack(self._claimed, new, done=done))
        except SubscriptionError as error:
            if error.error_code != INVALID_OFFSET or not skips:
                raise
            # A stream has ended since it was read. The acknowledgements of the others count.
            return await self._ack_one_by_one(new, done)
        if is_applied:
            self._acked |= new
            self.has_progress = self.has_progress or bool(new)
            self._has_ended = self._has_ended or done
        return is_applied

    async def _ack_one_by_one(self, offsets: Mapping[str, str], done: bool) -> bool:
        for path, offset in offsets.items():
            try:
                await self._ack({path: offset}, False, skips=False)
            except SubscriptionError as error:
                if error.error_code != INVALID_OFFSET:
                    raise
                logger.info("The stream %s has ended, and was not acknowledged: %s", path, error)
                self._handed_over.pop(path, None)
        return await self._ack({}, done, skips=False)

    async def _send(self, request: Callable[[], Awaitable[None]]) -> bool:
        """Send a request until the server answers, or the lease is over. Return whether the wake was not over."""
        while not self.is_over:
            sent_at = self._loop.time()
            try:
                async with asyncio.timeout_at(self._expires_at):
                    await request()
            except TimeoutError:
                break
            except ServiceUnavailable as error:
                if self._server.is_stopping:
                    break
                logger.debug("A request of %r was not answered: %s", self, error)
                await asyncio.sleep(min(self.lease / RETRIES_PER_LEASE, max(self._expires_at - sent_at, 0.0)))
            except SubscriptionError as error:
                if error.error_code not in _ENDS:
                    raise
                logger.info("%r is over: %s", self, error)
                break
            else:
                self._expires_at = sent_at + self.lease
                return True
        self._has_ended = True
        return False

    async def release(self) -> None:
        """Give the lease back. All that was not acknowledged is pending again at once."""
        async with self._requests:
            if self.is_over:
                return
            self._has_ended = True
            try:
                async with asyncio.timeout(RELEASE_SECONDS):
                    await self._server.release(self._claimed)
            except (DurableStreamsError, TimeoutError) as error:
                logger.debug("%r was not released, so its lease has to end: %s", self, error)

    # For the loop that made it.

    def start_heartbeats(self) -> None:
        """Extend the lease from now on."""
        self._heartbeats = self._loop.create_task(self._keep())

    def stop_heartbeats(self) -> None:
        """Extend the lease no longer."""
        if self._heartbeats is not None:
            self._heartbeats.cancel()

    async def _keep(self) -> None:
        while not self.is_over:
            renew_at = self._expires_at - self.lease * (RENEWALS_PER_LEASE - 1) / RENEWALS_PER_LEASE
            if (seconds := renew_at - self._loop.time()) > 0:
                await asyncio.sleep(seconds)
                continue
            try:
                await self.ack({})
            except DurableStreamsError as error:  # the subscription was deleted, or the server refuses
                logger.info("%r is over: %s", self, error)
                self._has_ended = True
            except Exception:  # of code of the project, such as its headers: nothing else would tell the body
                logger.exception("%r is over, because its lease cannot be extended.", self)
                self._has_ended = True

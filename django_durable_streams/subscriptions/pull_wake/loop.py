"""The loop of a worker: it claims whenever something may be pending, and hands over one wake after the other.

Events in the wake stream make it claim at once. A poll finds what an event did not tell of: it was lost, it came while
another worker had the lease, or the wake stream is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from ...protocol.errors import DurableStreamsError, ServiceUnavailable
from ...protocol.subscriptions import SubscriptionError
from ..backoff import backoff
from .base import ClaimedWake, SubscriptionServer
from .wake import RELEASE_SECONDS, Wake

logger = logging.getLogger(__name__)

WATCH_SECONDS = 5.0
"""How long the first claim waits for the watch of the wake stream."""

CLAIM_SECONDS = 5.0
"""How long a claim waits for its answer, at least. A wake that the server has given out meanwhile is given back."""

CONFLICT = 409


async def consume(
    server: SubscriptionServer, worker: str, poll_interval: float, timeout: float | None
) -> AsyncGenerator[Wake, None]:
    """Yield the wakes that a worker has claimed.

    A wake is acknowledged when the next one is asked for. It is given back when the generator is closed.

    Args:
        server: the server of the subscription.
        worker: name of the worker.
        poll_interval: seconds between two claims without an event.
        timeout: seconds to wait for a wake; after that the generator ends. None: no limit. 0: no wait.

    Raises:
        DurableStreamsError: the server refuses the worker.
    """
    claims = _Claims(server, worker, poll_interval, timeout)
    try:
        await claims.start()
        while (wake := await claims.next()) is not None:
            wake.start_heartbeats()
            try:
                yield wake
                await wake.ack(done=True)
            finally:
                wake.stop_heartbeats()
                await wake.release()  # unless it is over
            claims.note(wake)
    finally:
        await claims.stop()
        await server.close()


class _Claims:
    """The claims of one worker, one after the other. The arguments are those of `consume`."""

    def __init__(self, server: SubscriptionServer, worker: str, poll_interval: float, timeout: float | None) -> None:
        self._server = server
        self._worker = worker
        self._poll_interval = poll_interval
        self._timeout = timeout
        self._watch = _Watch(server)
        self._waits_since: float | None = None
        """Since when it waits for the first wake."""
        self._failures = 0
        """Claims without an answer, or wakes without progress, one after the other."""

    async def start(self) -> None:
        """Watch the wake stream from now on."""
        if self._timeout == 0:  # nobody waits for its events: it only tells of the end of the server
            self._watch.start_soon()
            return
        self._waits_since = asyncio.get_running_loop().time()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._watch.start()

    async def stop(self) -> None:
        """Watch the wake stream no longer."""
        await self._watch.stop()

    async def next(self) -> Wake | None:
        """Wait for the next wake. None: the time is over, or the server in this process ends."""
        loop = asyncio.get_running_loop()
        since, self._waits_since = self._waits_since or loop.time(), None
        until = None if self._timeout is None else since + self._timeout
        goes_on = not self._failures or await self._watch.pause(backoff(self._failures), until)
        while goes_on and not self._server.is_stopping:
            self._watch.news.clear()
            began = loop.time()
            try:
                claimed = await self._claim(until)
            except ServiceUnavailable as error:
                self._failures += 1
                logger.info("The subscription cannot be claimed now: %s", error)
                goes_on = await self._watch.pause(backoff(self._failures), until)
                continue
            if claimed is not None:
                return Wake(claimed, self._server, began)
            self._failures = 0
            goes_on = await self._watch.wait(self._poll_interval, until)
        return None

    def note(self, wake: Wake) -> None:
        """Record how a wake has ended. After one without progress, the next claim waits: it would get the same."""
        self._failures = 0 if wake.has_progress else self._failures + 1

    async def _claim(self, until: float | None) -> ClaimedWake | None:
        """Claim the subscription. None: nothing is pending, or another worker has the lease.

        A claim has `CLAIM_SECONDS` for its answer, also if the time is over before.
        """
        claiming = asyncio.ensure_future(self._server.claim(self._worker))
        soonest = asyncio.get_running_loop().time() + CLAIM_SECONDS
        try:
            async with asyncio.timeout_at(None if until is None else max(until, soonest)):
                return await asyncio.shield(claiming)
        except TimeoutError as error:
            await self._give_back(claiming)
            raise ServiceUnavailable("The server has not answered the claim in time.") from error
        except SubscriptionError as error:
            if error.status != CONFLICT:
                raise
            return None
        except asyncio.CancelledError:
            await self._give_back(claiming)
            raise

    async def _give_back(self, claiming: asyncio.Future[ClaimedWake]) -> None:
        """Give a lease back that was claimed while the worker was cancelled."""
        with suppress(DurableStreamsError, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                claimed = await claiming
            await Wake(claimed, self._server, asyncio.get_running_loop().time()).release()


class _Watch:
    """Watches the wake stream in a task of its own.

    Attributes:
        news: set when the wake stream has an event, when it may have had one, and at the end.
    """

    def __init__(self, server: SubscriptionServer) -> None:
        self.news = asyncio.Event()
        self._server = server
        self._has_ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start, and wait until no further event can be missed, or the wake stream cannot be watched.

        Raises:
            DurableStreamsError: the server refuses the worker.
        """
        path = await self._wake_stream()
        if path:
            self._task = asyncio.create_task(self._follow(path))
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self.news.wait()

    def start_soon(self) -> None:
        """Start without a wait. If the server refuses the worker, so does it with the claim."""
        self._task = asyncio.create_task(self._find_and_follow())

    async def _find_and_follow(self) -> None:
        try:
            path = await self._wake_stream()
        except Exception as error:  # the claim has it too
            logger.debug("The wake stream is not watched: %s", error)
            return
        if path:
            await self._follow(path)

    async def _wake_stream(self) -> str:
        failures = 0
        while True:
            try:
                return await self._server.wake_stream()
            except ServiceUnavailable as error:
                if self._server.is_stopping:
                    return ""
                failures += 1
                logger.info("The subscription cannot be read now: %s", error)
            await asyncio.sleep(backoff(failures))

    async def _follow(self, path: str) -> None:
        failures = 0
        while True:
            try:
                async with aclosing(self._server.wake_events(path)) as events:
                    async for _ in events:
                        failures = 0
                        self.news.set()
            except DurableStreamsError as error:
                logger.info("The wake stream %s cannot be followed now, so it is polled: %s", path, error)
            except Exception:  # the watch must outlive every bug
                logger.exception("The wake stream %s cannot be followed now, so it is polled.", path)
            self.news.set()
            if self._server.is_stopping:
                self._has_ended.set()
                return
            failures += 1
            await asyncio.sleep(backoff(failures))

    async def wait(self, seconds: float, until: float | None) -> bool:
        """Wait for news, at most for some seconds. Return False if the time is over then."""
        return await self._wait(self.news, seconds, until)

    async def pause(self, seconds: float, until: float | None) -> bool:
        """Wait for some seconds, or for the end of the server. Return False if the time is over then."""
        return await self._wait(self._has_ended, seconds, until)

    async def _wait(self, event: asyncio.Event, seconds: float, until: float | None) -> bool:
        loop = asyncio.get_running_loop()
        wake_at = loop.time() + seconds
        try:
            async with asyncio.timeout_at(wake_at if until is None else min(wake_at, until)):
                await event.wait()
        except TimeoutError:
            return until is None or loop.time() < until
        return True

    async def stop(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

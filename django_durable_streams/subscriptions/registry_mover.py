"""Moves the entries of changes into the registry, the stream of streams, in each process that delivers.

A commit that creates, closes or ends a stream wakes the mover of its own process at once. Others are woken by a wake-up
message, or find the entries by polling. Any number of processes may move entries: one transaction moves each entry
(`store.write.registry_entries`). Commits that come meanwhile share the next move.

It runs in the event loop of the delivery, beside the looks. While another transaction holds the row of the registry,
all wakes go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ..conf import config
from ..engine import Engine
from ..protocol.errors import DurableStreamsError, ServiceUnavailable
from ..runtime.log_once import LogOnce
from ..store.operations import Moved, MoveEntries
from ..store.write import registry_entries

logger = logging.getLogger(__name__)

ENTRIES_PER_MOVE = 1000
"""Entries that one transaction moves."""

MIN_PAUSE = 0.05
"""Shortest time between the beginnings of two moves, in seconds, unless many entries wait. A batch of creates takes
longer if it shares its transaction with a move."""

RECEIVING_INTERVAL = 2.0
"""How often to look for entries while wake-up messages arrive, in seconds."""

FAILURE_PAUSE = 1.0
"""Time until the next attempt after a failure, in seconds."""

WARNING_SECONDS = 60.0


class Receiving(Protocol):
    """Says whether wake-up messages arrive."""

    @property
    def is_receiving(self) -> bool:
        """Whether messages arrive now."""


class RegistryMover:
    """Moves entries into the registry, for one process and one database.

    Args:
        engine: the engine of the database.
        call: calls a function in the thread of the delivery.
    """

    def __init__(self, engine: Engine, call: Callable[..., Awaitable[Any]]) -> None:
        self._engine = engine
        self._call = call
        self.woken = asyncio.Event()
        """Set in the event loop of the delivery when there may be entries."""
        self._is_there = False
        """Whether the registry was there once. The first move creates it."""
        self._failures = LogOnce(WARNING_SECONDS)

    async def run(self, subscriber: Receiving | None) -> None:
        """Move entries until the task is cancelled.

        Args:
            subscriber: what receives the wake-up messages of other processes. None: nothing does.
        """
        while config().registry_path:
            self.woken.clear()
            began = time.monotonic()
            pause = await self._move_or_log()
            if pause:
                is_receiving = subscriber is not None and subscriber.is_receiving
                await self._rest(max(pause, RECEIVING_INTERVAL) if is_receiving else pause)
                await asyncio.sleep(max(began + MIN_PAUSE - time.monotonic(), 0.0))

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        except TimeoutError:
            return

    async def _move_or_log(self) -> float:
        """Move some entries, and return the seconds until the next move. 0: more entries wait."""
        try:
            return 0.0 if await self._move() else config().poll_interval
        except ServiceUnavailable as error:
            logger.debug("The registry was not written: %s", error)
        except DurableStreamsError as error:
            if self._failures.is_due():
                path = config().registry_path
                logger.error(
                    "The registry %s cannot be written: %s Or name another path in REGISTRY_PATH. Nothing is lost "
                    "meanwhile.",
                    path,
                    error,
                    extra={"database": self._engine.using, "stream_path": path},
                )
        except Exception:  # the task must outlive every bug
            if self._failures.is_due():
                logger.exception("The registry was not written. It is tried again.")
        return FAILURE_PAUSE

    async def _move(self) -> bool:
        """Move some entries, and return whether there may be more.

        Raises:
            DurableStreamsError: nothing was moved.
        """
        using = self._engine.using
        if self._is_there and not await self._call(registry_entries.are_waiting, using):
            return False
        moved = await self._engine.write(MoveEntries(config().registry_path, ENTRIES_PER_MOVE))
        assert isinstance(moved, Moved)
        self._is_there = True
        return moved.count == ENTRIES_PER_MOVE

    async def move_all(self) -> None:
        """Move all entries, without a wait.

        Raises:
            DurableStreamsError: they cannot be moved.
        """
        while config().registry_path and await self._move():
            pass

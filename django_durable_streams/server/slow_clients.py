"""Ends streaming responses of Django's views whose clients take no data. Knows no format of a response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ..conf import config
from ..protocol.messages import ENDING_SECONDS
from .response_memory import PIECE_BYTES, Transfer, memory


class SlowClientGuard:
    """Ends the task of a response whose client takes no data. Django does not ask for a piece before one is sent."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = config().send_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._transfer: Transfer[bytes] | None = None

    async def pieces(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Yield chunks in pieces, and guard each of them."""
        async with aclosing(chunks):
            async for chunk in chunks:
                self.begin_chunk(chunk)
                try:
                    for first in range(0, len(chunk), PIECE_BYTES):
                        self.begin_piece()
                        yield chunk[first : first + PIECE_BYTES]
                        self.end_piece()
                finally:
                    self.end_chunk()

    def begin_chunk(self, chunk: bytes) -> None:
        """A chunk is about to be sent, piece by piece."""
        self._transfer = Transfer(chunk, self._loop, self.give_up)
        memory.add(self._transfer)

    def begin_piece(self) -> None:
        """The current task is about to send a piece."""
        self._task = asyncio.current_task()
        self._timer = self._loop.call_later(self._seconds, self.give_up)

    def end_piece(self) -> None:
        """The piece is sent, or never will be."""
        if self._timer is not None:
            self._timer.cancel()
        # The task refers to the response, and so to this object.
        self._timer = self._task = None
        if self._transfer is not None:
            memory.report_progress(self._transfer)

    def end_chunk(self) -> None:
        """The chunk is sent, or never will be."""
        self.end_piece()
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            memory.remove(transfer)

    def hurry(self) -> None:
        """The server is about to end: do not wait long for a client that takes no data."""
        self._seconds = min(self._seconds, ENDING_SECONDS)
        deadline = self._loop.time() + self._seconds
        if self._timer is not None and deadline < self._timer.when():  # a server that ends says so again and again
            self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self.give_up)

    def give_up(self) -> None:
        """End the task, if it waits for its client."""
        task = self._task
        self.end_piece()
        if task is not None:
            task.cancel()

"""One answer while this process writes it: from its source into the chat's stream, to exactly one end.

Runs in the background loop. The producer's epoch fences a process that has lost the run, so this never asks whether it
still has it. Knows neither leases nor queues, which are in `service`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import msgspec
from asgiref.sync import ThreadSensitiveContext

from ...api.writer import Writer
from ...conf import config
from ...protocol.errors import DurableStreamsError, ProducerFenced, ServiceUnavailable, StreamClosed, StreamNotFound
from ...server.request_threads import release_thread
from ...store.encoding import encodes_as_json
from . import rows
from .errors import AnswerError
from .events import AnyEvent, Failed, Finish, Piece, Start, Stopped, encode, encode_line
from .history import History
from .models import Run, committed_events
from .pace import PHASES
from .sources import AnswerContext, Source, events_of, values_of

logger = logging.getLogger(__name__)

GENERIC_ERROR = "The answer could not be completed."
"""What readers see of an unexpected error. The log has the rest."""

STOP_SECONDS = 2.0
"""How long a source may take to end after a stop. Then the answer ends without it."""

END_SECONDS, END_PAUSE = 60.0, 0.5
"""For how long, and how often, the end is tried again while the database does not answer."""

MAX_ERROR_LENGTH = 2000
"""Characters of an error that readers see at most. A provider's may be a whole page."""

SILENT = "The answer was cut off: the model has sent nothing for too long."

Call = Callable[..., Awaitable[Any]]


@asynccontextmanager
async def _opened(writer: Writer) -> AsyncIterator[None]:
    """Enter a writer in the background loop, where no caller can be in a transaction."""
    await writer.core.open()
    writer.is_open = writer.core.is_entered = True
    async with AsyncExitStack() as stack:
        stack.push_async_exit(writer)
        yield


def _storable(error: str) -> str:
    """Return the message of an error as every database and a stream can store it."""
    return error[:MAX_ERROR_LENGTH].encode(errors="replace").decode().replace("\0", "")


class RunningAnswer:
    """Writes the answer of one run.

    Args:
        held: the run, and its producer's state.
        source: the source; a run with a dotted path has its own.
        call: calls a function of `rows` in a thread with a connection, and returns its value.
        using: alias of the database.
    """

    def __init__(self, held: rows.Held, source: Source | None, call: Call, using: str) -> None:
        self.run = held.run
        self._taken_over = held.taken_over
        self._source: Source = held.run.source if source is None else source
        self._call = call
        self._using = using
        self.pace: Callable[[], float] | None = None
        """Returns the seconds between two commits. None: as for other writers."""
        self._early_end: Stopped | Failed | None = None
        self._ending = asyncio.Event()
        self._waiting_since: float | None = None
        """Time of the loop since which the source owes an event. None: the source is not waited for."""
        self._watchdog: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """End the answer as stopped. What the source has yielded stays."""
        self._end_early(Stopped(str(self.run.pk)))

    def leave(self) -> None:
        """End the work without an end of the answer: another process has it, or will continue it."""
        self._end_early(None)

    def interrupt(self) -> None:
        """This process ends: leave the answer to another process if it is to be continued, else end it as failed."""
        is_continued = self.run.on_lost == Run.OnLost.CONTINUE and self.run.source
        if not is_continued:
            logger.warning("The answer %s in %s has failed: its process ends.", self.run.pk, self.run.chat.path)
        self._end_early(None if is_continued else Failed(str(self.run.pk), rows.LOST))

    def _end_early(self, event: Stopped | Failed | None) -> None:
        if not self._ending.is_set():
            self._early_end = event
            self._ending.set()

    async def write(self) -> None:
        """Write the answer to its end. Raises nothing."""
        producing = asyncio.create_task(self._produce_in_context())
        ending = asyncio.create_task(self._ending.wait())
        if config().ai_idle_timeout:
            self._watch(config().ai_idle_timeout)
        try:
            await asyncio.wait([producing, ending], return_when=asyncio.FIRST_COMPLETED)
            event = self._outcome(producing) if producing.done() else await self._cut_short(producing)
        finally:
            producing.cancel()
            ending.cancel()
            if self._watchdog is not None:
                self._watchdog.cancel()
        if event is not None:
            await self._end(event)

    def _watch(self, limit: float) -> None:
        """End the answer if its source is silent for too long. One timer for an answer, not one for each event."""
        if self._ending.is_set():
            return
        loop, since = asyncio.get_running_loop(), self._waiting_since
        left = limit if since is None else since + limit - loop.time()
        if left > 0:
            self._watchdog = loop.call_later(left, self._watch, limit)
            return
        logger.error("The answer %s has failed: its source was silent for %g s (AI_IDLE_TIMEOUT).", self.run.pk, limit)
        self._end_early(Failed(str(self.run.pk), SILENT))

    def _outcome(self, producing: asyncio.Task[Finish | Failed | None]) -> Finish | Failed | None:
        """Return the event of a task that has ended by itself. Sources may raise SystemExit and cancellations, too."""
        error = asyncio.CancelledError() if producing.cancelled() else producing.exception()
        return producing.result() if error is None else self._failure(error)

    def _failure(self, error: BaseException) -> Failed:
        run = str(self.run.pk)
        logger.error("The answer %s has failed: %s: %s", run, type(error).__name__, error, exc_info=error)
        return Failed(run, GENERIC_ERROR)

    async def _cut_short(self, producing: asyncio.Task[Finish | Failed | None]) -> Stopped | Failed | None:
        producing.cancel()
        # A source that does not end after a stop is left behind. Its later texts are fenced.
        await asyncio.wait([producing], timeout=STOP_SECONDS)
        return self._early_end

    async def _produce_in_context(self) -> Finish | Failed | None:
        # The source's synchronous code gets a thread of its own: that of other code may wait for this answer.
        async with ThreadSensitiveContext():
            try:
                return await self._produce()
            finally:
                release_thread()

    async def _produce(self) -> Finish | Failed | None:
        """Copy the source into the stream, and return the event that ends the answer. None: it is not ours any more."""
        run = str(self.run.pk)
        writer = self.run.chat.stream.awriter(producer=self.run.producer, close=False)
        writer.core.appender.taken_over = self._taken_over
        writer.core.pace, writer.core.phase = self.pace, self.run.pk.int % PHASES / PHASES
        try:
            async with _opened(writer):
                return await self._copy(await self._context(), writer)
        except (ProducerFenced, StreamNotFound):
            logger.info("The answer %s is not written here any more: another process has it, or its chat is gone.", run)
            return None
        except StreamClosed:
            return Failed(run, "The chat was closed.")
        except AnswerError as error:
            message = _storable(str(error))
            logger.warning("The answer %s has failed: %s", run, message)
            return Failed(run, message)
        except Exception as error:  # of the project, or of a provider
            return self._failure(error)

    async def _copy(self, context: AnswerContext, writer: Writer) -> Finish | Failed:
        """Write what the source yields, and return the end of the answer. The source's close counts as silence, too."""
        clock, run = asyncio.get_running_loop().time, str(self.run.pk)
        self._waiting_since = clock()
        try:
            values = await values_of(self._source, context, self.run.arguments)
            takes_lines = encodes_as_json(config().json_encoder)
            async with aclosing(events_of(values)) as events:
                async for event in events:
                    if isinstance(event, Finish | Failed):
                        return msgspec.structs.replace(event, run=run)
                    self._waiting_since = None  # the database may be slow
                    line = encode_line(event) if takes_lines else None
                    if line is None:
                        await writer.write(encode(event))
                    else:
                        await writer.write_line(line)
                    self._waiting_since = clock()
            return Finish(run)
        finally:
            self._waiting_since = None

    async def _context(self) -> AnswerContext:
        """Return what the source needs to know, from the committed events of the chat."""
        run, history = str(self.run.pk), History()
        written: list[AnyEvent] | None = None
        async for event in committed_events(self.run.chat.stream):
            if isinstance(event, Start) and event.run == run:
                written = []
            elif written is None:
                history.add(event)
            elif isinstance(event, Piece):
                written.append(event)
        count = self._taken_over.seq + 1
        if len(written or ()) != count:  # the source would write some of them twice
            raise LookupError(
                f"The answer has written {count} events, and the stream has {len(written or ())} of them."
            )
        return AnswerContext(run, self.run.chat, self.run.owner, history.messages, written or [])

    async def _end(self, event: Finish | Stopped | Failed) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + END_SECONDS
        if isinstance(event, Failed):
            event = msgspec.structs.replace(event, error=_storable(event.error))
        while True:
            try:
                await self._call(rows.end, self.run.pk, self.run.epoch, event, self._using)
                return
            except ServiceUnavailable as error:
                if clock() >= deadline:
                    logger.error("The answer %s could not be ended. It is closed later: %s", self.run.pk, error)
                    return
            except DurableStreamsError as error:
                logger.error("The answer %s could not be ended: %s", self.run.pk, error)
                return
            await asyncio.sleep(END_PAUSE)

"""Following a stream from Python: what is there, then what comes, page by page.

A reader who waits is an object in the engine's hub, as the readers by HTTP are: it holds no thread and no connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ..conf import config
from ..engine import Engine, engine_for
from ..engine.hub import Hub, Watch
from ..engine.snapshot_reader import Snapshot
from ..protocol import arguments, content, text
from ..protocol.errors import StreamNotFound
from ..protocol.values import Data, MessageReader
from ..runtime import background
from ..runtime.servers import RunningServer, servers_around
from ..runtime.shutdown import signals_held
from ..store.read import lineage
from ..store.write.batch import expect
from . import transactions


@dataclass(frozen=True, slots=True)
class Page:
    """Messages of a stream that follow one another, and where to go on. Iterates over its messages."""

    messages: list[Data]
    next_offset: str
    """The offset behind the last message: whoever reads on from here misses nothing and gets nothing twice."""
    up_to_date: bool
    """Nothing more was in the stream."""
    closed: bool
    """Nothing more will ever be."""

    def __iter__(self) -> Iterator[Data]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)


async def follow(
    path: str, stream_id: int, offset: str, using: str, timeout: float | None
) -> AsyncGenerator[Page, None]:
    """Yield pages for as long as there are any, and then as they come.

    Args:
        stream_id: of the stream that is meant to be at the path.
        timeout: seconds to wait for the next page before giving up; None waits for ever, 0 not at all.

    Raises:
        InvalidOffset, OffsetGone, StreamNotFound, StreamGone, ServiceUnavailable.
    """
    engine = engine_for(using)
    view = await engine.look(path, arguments.offset(offset))
    expect(stream_id, view.info.id, path)
    engine.renew(view.info)
    async with aclosing(_pages(engine, view, timeout)) as pages:
        async for page in pages:
            yield page


def follow_in_thread(path: str, stream_id: int, offset: str, using: str, timeout: float | None) -> Iterator[Page]:
    """The same for synchronous code. What is there is read in the caller's transaction, and only then is waited.

    What waits is in the background loop, which no server knows, nor any signal: what ends it is found out here.
    """
    info, start = lineage.locate(transactions.find(path, using, stream_id), arguments.offset(offset), using)
    view = Snapshot(info, start, None, info.tail, info.closed)
    messages: MessageReader | None = None
    for found in transactions.pages(path, stream_id, info.offset(start), using, config().page_bytes):
        messages = found.reader
        view = Snapshot(found.info, found.end, None, found.info.tail, found.info.closed)
        if found.messages or view.at_end:
            yield _page(view, found.messages, messages)
    if messages is None and view.at_end:
        yield _page(view, [], None)
    if view.at_end or (timeout is not None and timeout <= 0):
        return
    # Whatever has come meanwhile is found by the first look of the one who waits.
    seen = Snapshot(view.info, view.end, None, view.end, False)
    with signals_held():
        yield from background.iterate(_pages(engine_for(using), seen, timeout, servers_around(), messages))


async def _pages(
    engine: Engine,
    view: Snapshot,
    timeout: float | None,
    servers: Sequence[RunningServer] = (),
    messages: MessageReader | None = None,
) -> AsyncGenerator[Page, None]:
    info = view.info
    reader = _Reader(engine.hub(), servers)
    try:
        while True:
            if view.segment is not None and messages is None:
                messages = MessageReader(info.content_type, await _held_before(engine, view))
            found = _messages(view, messages)
            if found or view.at_end:
                yield _page(view, found, messages)
            if view.at_end:
                return
            if not view.up_to_date:
                view = await engine.follow(info, view.end)
                continue
            watch = await reader.wait(view, timeout)
            if watch is None:
                return
            at_hand = None if watch.removed else watch.view(view.end)
            view = at_hand or await reader.hub.fetch(watch, view.end)
    except StreamNotFound:
        return  # deleted meanwhile, or expired
    finally:
        reader.leave()


async def _held_before(engine: Engine, view: Snapshot) -> bytes:
    """Return the bytes before a view that begin the character with whose rest it begins, if it does."""
    info, segment = view.info, view.segment
    if segment is None or not (content.holds_text(info.content_type) and text.is_cut(segment.data)):
        return b""
    start = max(view.position - text.MAX_HELD, info.first_position)
    before = (await engine.follow(info, start)).segment
    return b"" if before is None else before.held_before(view.position)


def _messages(view: Snapshot, reader: MessageReader | None) -> list[Data]:
    if reader is None:
        return []
    found = list(reader.messages(view.segment, final=view.at_end)) if view.segment is not None else []
    return [*found, *reader.rest()] if view.at_end else found


def _page(view: Snapshot, messages: list[Data], reader: MessageReader | None) -> Page:
    held = len(reader.held) if reader is not None else 0
    return Page(messages, view.info.token(view.end - held), view.up_to_date, view.at_end)


class _Reader:
    """A listener in the hub, from the first wait on."""

    def __init__(self, hub: Hub, servers: Sequence[RunningServer]) -> None:
        self.hub = hub
        self._servers = servers
        self._stopped = False
        self._watch: Watch | None = None
        self._woken = asyncio.Event()

    def notify(self) -> None:
        """The stream has changed."""
        self._woken.set()

    def tick(self, now: float) -> None:
        """Time passes; the wait has a timeout of its own."""

    def stop(self) -> None:
        """The process, or the server that this is a part of, is about to end."""
        self._stopped = True
        self._woken.set()

    async def wait(self, view: Snapshot, timeout: float | None) -> Watch | None:
        """Wait for news past a view and return the watch that has them; None if the time is over.

        Where that is removed, the reader has left it: the stream is gone, or has to be looked at once more.
        """
        if timeout is not None and timeout <= 0:
            return None
        if self._watch is None:
            self._watch = await self.hub.join(view.info, self, self._servers, seen_at=view.seen_at)
        watch = self._watch
        try:
            async with asyncio.timeout(timeout):
                while not (watch.removed or self._stopped):
                    if watch.tail > view.end or watch.closed:
                        return watch
                    self._woken.clear()
                    await self._woken.wait()
                if watch.removed:
                    self.leave()
                    return watch
        except TimeoutError:
            pass
        return None

    def leave(self) -> None:
        """Wait no more."""
        if self._watch is not None:
            self.hub.leave(self._watch, self)
            self._watch = None

"""Following a stream from Python: what is there, then what comes, page by page.

A reader who waits is an object in the engine's hub, as the readers by HTTP are: it holds no thread and no connection.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ..conf import config
from ..engine import Engine, engine_for
from ..engine.hub import Hub, Watch
from ..engine.live_reader import LiveReader
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


class _Reader(LiveReader):
    """A live reader of the hub, from its first wait on.

    Args:
        servers: the servers that the reader depends on, beyond those of its event loop.
    """

    def __init__(self, hub: Hub, servers: Sequence[RunningServer]) -> None:
        super().__init__(hub)
        self._servers = servers

    async def wait(self, snapshot: Snapshot, timeout: float | None) -> Watch | None:
        """Wait for data after a snapshot, and return the watch that has it. None: the time is over.

        If the watch is removed, the reader has left it: the stream is gone, or must be queried again.
        """
        if timeout is not None and timeout <= 0:
            return None
        watch = await self.join(snapshot, self._servers)
        deadline = None if timeout is None else self.hub.loop.time() + timeout
        while not (watch.removed or self.is_stopped):
            if watch.tail > snapshot.end or watch.closed:
                return watch
            seconds = None if deadline is None else deadline - self.hub.loop.time()
            if seconds is not None and seconds <= 0:
                return None
            await self.wait_for_news(seconds)
        if watch.removed:
            self.leave()
            return watch
        return None

"""`Stream.tail`: the existing messages of a stream, then new ones as they are committed, page by page.

While it waits, the reader is an object in the engine's hub, as HTTP readers are: it holds no thread and no database
connection. Knows no request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ..conf import config
from ..engine import Engine, engine_for
from ..engine.characters import held_before
from ..engine.hub import Hub, Watch
from ..engine.live_reader import LiveReader
from ..engine.snapshot_reader import Snapshot
from ..protocol import arguments
from ..protocol.errors import StreamNotFound
from ..protocol.values import Data, MessageReader
from ..runtime import background
from ..runtime.servers import RunningServer, servers_around
from ..runtime.shutdown import signals_held
from ..store.read import lineage
from ..store.write.batch import expect
from . import transactions
from .conflicts import snapshot_errors


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive messages of a stream, and the offset after them. Iterates over its messages."""

    messages: list[Data]
    next_offset: str
    """The offset after the last message. A read from here misses no message and repeats none."""
    up_to_date: bool
    """Whether the stream had no more messages."""
    closed: bool
    """Whether the stream is closed, so that no more messages follow."""

    def __iter__(self) -> Iterator[Data]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)


async def follow(
    path: str,
    stream_id: int,
    offset: str,
    using: str,
    timeout: float | None,
    servers: Sequence[RunningServer] = (),
) -> AsyncGenerator[Page, None]:
    """Yield pages of the existing messages, then of new ones.

    Args:
        path: path of the stream.
        stream_id: id that the stream at the path must have.
        offset: where to start: an offset, `-1` or `now`.
        using: alias of the database.
        timeout: seconds to wait for the next page; after that the generator ends. None: no limit. 0: no wait.
        servers: the servers that the reader depends on, beyond those of its event loop.

    Raises:
        InvalidOffset, OffsetGone, StreamNotFound, StreamGone, ServiceUnavailable.
    """
    engine = engine_for(using)
    snapshot = await engine.read(path, arguments.offset(offset))
    expect(stream_id, snapshot.info.id, path)
    engine.renew(snapshot.info)
    async with aclosing(_pages(engine, snapshot, timeout, servers)) as pages:
        async for page in pages:
            yield page


def follow_in_thread(path: str, stream_id: int, offset: str, using: str, timeout: float | None) -> Iterator[Page]:
    """The same for synchronous code. It reads existing messages in the caller's transaction, and waits only then.

    The wait is in the background loop. No server and no signal ends that loop, so this passes on the servers that run
    here, and holds the signals.
    """
    with snapshot_errors():
        info, start = lineage.locate(transactions.find(path, using, stream_id), arguments.offset(offset), using)
    snapshot = Snapshot(info, start, None, info.tail, info.closed)
    messages: MessageReader | None = None
    for page in transactions.pages(path, stream_id, info.offset(start), using, config().page_bytes):
        messages = page.reader
        snapshot = Snapshot(page.info, page.end, None, page.info.tail, page.info.closed)
        if page.messages or snapshot.at_end:
            yield _page(snapshot, page.messages, messages)
    if messages is None and snapshot.at_end:
        yield _page(snapshot, [], None)
    if snapshot.at_end or (timeout is not None and timeout <= 0):
        return
    # The first query of the waiting reader finds the messages that were committed meanwhile.
    seen = Snapshot(snapshot.info, snapshot.end, None, snapshot.end, False)
    with signals_held():
        yield from background.iterate(_pages(engine_for(using), seen, timeout, servers_around(), messages))


async def _pages(
    engine: Engine,
    snapshot: Snapshot,
    timeout: float | None,
    servers: Sequence[RunningServer] = (),
    messages: MessageReader | None = None,
) -> AsyncGenerator[Page, None]:
    info = snapshot.info
    reader = _Reader(engine.hub(), servers)
    try:
        while True:
            if snapshot.segment is not None and messages is None:
                messages = MessageReader(info.content_type, await held_before(engine, snapshot))
            new_messages = _messages(snapshot, messages)
            if new_messages or snapshot.at_end:
                yield _page(snapshot, new_messages, messages)
            if snapshot.at_end:
                return
            if not snapshot.up_to_date:
                snapshot = await engine.follow(info, snapshot.end)
                continue
            watch = await reader.wait(snapshot, timeout)
            if watch is None:
                return
            in_memory = None if watch.ended else watch.snapshot(snapshot.end)
            snapshot = in_memory or await reader.hub.fetch(watch, snapshot.end)
    except StreamNotFound:
        return  # the stream was deleted or has expired meanwhile
    finally:
        reader.leave()


def _messages(snapshot: Snapshot, reader: MessageReader | None) -> list[Data]:
    if reader is None:
        return []
    segment = snapshot.segment
    messages = list(reader.messages(segment, final=snapshot.at_end)) if segment is not None else []
    return [*messages, *reader.rest()] if snapshot.at_end else messages


def _page(snapshot: Snapshot, messages: list[Data], reader: MessageReader | None) -> Page:
    held = len(reader.held) if reader is not None else 0
    return Page(messages, snapshot.info.token(snapshot.end - held), snapshot.up_to_date, snapshot.at_end)


class _Reader(LiveReader):
    """A live reader of the hub, from its first wait on.

    Args:
        servers: the servers that the reader depends on, beyond those of its event loop.
    """

    kind = "tail"

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
        while not (watch.ended or self.is_stopped):
            if watch.tail > snapshot.end or watch.closed:
                return watch
            seconds = None if deadline is None else deadline - self.hub.loop.time()
            if seconds is not None and seconds <= 0:
                return None
            await self.wait_for_news(seconds)
        if watch.ended:
            self.leave()
            return watch
        return None

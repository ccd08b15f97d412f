"""The subscriptions of this project's own database, without HTTP and without permissions.

The rows are read and written in the thread of the subscriptions, so a worker holds neither a thread nor a connection.
The wake stream is followed as `Stream.tail` follows it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager

import msgspec

from ...api.tail import follow
from ...engine import engine_for
from ...protocol import offsets, values
from ...protocol.content import JSON_CONTENT_TYPE
from ...protocol.errors import DurableStreamsError, OffsetGone, StreamExists, StreamGone, StreamNotFound
from ...protocol.offsets import Sentinel
from ...protocol.subscriptions import Ack, SubscriptionConfig, WakeRequest
from ...runtime.batch_worker import WorkerEnded
from ...runtime.servers import RunningServer
from ...store.operations import Create
from ...store.read import lineage, log_reader
from .. import leases, registry
from ..consumers.messages import StoredMessage
from ..consumers.reading import StreamReader
from ..rows import find
from ..service import service_for
from .base import ClaimedStream, ClaimedWake, WakeMessage, is_event_of

MESSAGES_PER_STEP = 100
"""Messages that one call in the thread of the subscriptions decodes."""


class LocalServer:
    """A subscription of this project.

    Args:
        name: id of the subscription.
        using: alias of the database. None: the database to which the router has streams written.
        servers: the servers of this process that the worker depends on, beyond those of its event loop.
    """

    def __init__(self, name: str, using: str | None, servers: Sequence[RunningServer] = ()) -> None:
        self.is_stopping = False
        self._name = name
        self._engine = engine_for(using)
        self._service = service_for(using)
        self._using = self._service.using
        self._servers = servers

    async def ensure(self, config: SubscriptionConfig) -> bool:
        """Create the subscription and its wake stream, where they do not exist. Return whether it is new."""
        try:
            await self._engine.write(Create(config.wake_stream, JSON_CONTENT_TYPE))
        except StreamExists:
            pass  # it may have another content type
        subscription, is_new = await self._service.call(registry.create, self._name, config, "", self._using)
        if is_new and config.pattern:
            await self._service.link_existing(subscription)
        return is_new

    async def wake_stream(self) -> str:
        """Return the path of the wake stream.

        Raises:
            SubscriptionError: there is no subscription of this name.
        """
        subscription = await self._service.call(find, self._name, self._using)
        return subscription.wake_stream  # a webhook has none, and its claims are refused

    async def wake_events(self, path: str) -> AsyncGenerator[None, None]:
        """Yield once when the wake stream is watched, and then for each page with an event of the subscription."""
        with self._noticing_end():
            info = (await self._engine.read(path)).info
        yield
        start = info.token(info.tail)
        async with aclosing(follow(path, info.id, start, self._using, None, self._servers)) as pages:
            async for page in pages:
                if any(is_event_of(self._name, message) for message in page):
                    yield
        self.is_stopping = await self._has_stopped(path, info.id)

    async def _has_stopped(self, path: str, stream_id: int) -> bool:
        """Return whether a server or a signal has ended a read of a stream, and not the end of the stream."""
        try:
            info = (await self._engine.read(path)).info
        except WorkerEnded:
            return True
        except (StreamNotFound, StreamGone):
            return False
        return info.id == stream_id and not info.closed

    async def claim(self, worker: str) -> ClaimedWake:
        """Claim the subscription."""
        with self._noticing_end():
            claimed = await self._service.call(leases.claim, self._name, worker, self._using)
        return msgspec.convert(claimed, ClaimedWake)

    async def ack(self, wake: ClaimedWake, offsets: Mapping[str, str], *, done: bool) -> None:
        """Acknowledge offsets by path, and extend the lease or, with `done`, end it."""
        request = _request(wake, offsets, done)
        with self._noticing_end():
            has_more = await self._service.call(leases.ack, self._name, wake.token, request, self._using)
        if has_more:
            self._service.wake()

    async def release(self, wake: ClaimedWake) -> None:
        """Give the lease back."""
        await self._service.call(leases.release, self._name, wake.token, _request(wake, {}, False), self._using)
        self._service.wake()

    async def messages(self, stream: ClaimedStream, offset: str) -> AsyncGenerator[WakeMessage, None]:
        """Yield the messages of a stream after an offset, up to its present tail. None if it is gone."""
        reader = await self._service.call(_open, stream.path, offset, self._using)
        if reader is None:
            return
        self._engine.renew(reader.info)
        while stored := await self._service.call(_take, reader):
            for message in stored:
                value = values.decode(reader.info.content_type, message.raw)
                yield WakeMessage(stream.path, value, message.offset)

    async def close(self) -> None:
        """Close nothing: the connections belong to the process."""

    @contextmanager
    def _noticing_end(self) -> Iterator[None]:
        """Notice that the engines of the process have stopped. A later call would make new ones."""
        try:
            yield
        except WorkerEnded:
            self.is_stopping = True
            raise


def _request(wake: ClaimedWake, by_path: Mapping[str, str], done: bool) -> WakeRequest:
    acks = tuple(Ack(path, offsets.decode(offset)) for path, offset in by_path.items())
    return WakeRequest(wake.wake_id, wake.generation, acks, done)


def _open(path: str, offset: str, using: str) -> StreamReader | None:
    """Return a reader of the stream at a path, from an offset, or None if it is gone.

    If the offset belongs to an earlier stream at the path, the reader begins at the beginning.
    """
    info = log_reader.find([path], using)[path]
    if isinstance(info, DurableStreamsError):
        return None
    parsed = offsets.decode(offset)
    if isinstance(parsed, Sentinel):
        return StreamReader(info, None, using)
    try:
        info, position = lineage.locate(info, parsed, using)
    except OffsetGone:
        return StreamReader(info, None, using)
    return StreamReader(info, position, using)


def _take(reader: StreamReader) -> list[StoredMessage]:
    return reader.take(MESSAGES_PER_STEP)

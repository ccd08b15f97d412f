"""The asynchronous methods of streams, whose names begin with `a`.

They run their database work by `sync_to_async`, in the thread whose transaction the caller may be in: that of a view
around `async_to_sync`, or of a middleware. Only that thread knows whether there is a transaction. So `aappend` asks
there first. Outside a transaction it uses the committer, and so shares its commit with other requests.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, Unpack

from asgiref.sync import sync_to_async

from ..protocol.values import Data
from .hinge import api, pages
from .methods import LAST_PAGE_BYTES, StreamMethods

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from .hinge import Appended, EventSourceOptions, LastPage, Page, Writer, WriterOptions


class AsyncStreamMethods(StreamMethods):
    """The operations on a stream, also for asynchronous code."""

    class Meta:
        abstract = True

    async def aappend(self, value: Data, **options: Any) -> Appended:
        """The same as `append`, in the transaction of the thread that `sync_to_async` uses, if there is one.

        Without a transaction it shares a commit with other appends of the process.

        Raises:
            The errors of `append`.
            ServiceUnavailable: too many operations wait, or the database does not answer.
        """
        result: Appended = await api().aappend_value(self, value, options)
        return result

    async def aappend_many(self, values: Iterable[Data], **options: Any) -> int:
        """The same as `append_many`."""
        return await sync_to_async(self.append_many)(values, **options)

    async def aread(self, offset: str = "-1") -> AsyncIterator[Data]:
        """The same as `read`."""
        pages = api().pages(self, offset)
        while (page := await sync_to_async(lambda: next(pages, None))()) is not None:
            for message in page:
                yield message

    async def aread_last(self, count: int, *, before: str = "now", max_bytes: int = LAST_PAGE_BYTES) -> LastPage:
        """The same as `read_last`."""
        return await sync_to_async(self.read_last)(count, before=before, max_bytes=max_bytes)

    def atail(self, offset: str = "-1", *, timeout: float | None = None) -> AsyncIterator[Page]:
        """The same as `tail`, for committed data only. It holds neither a thread nor a database connection.

        Wrap it in `contextlib.aclosing` if a long-lived task may leave the loop before its end.
        """
        pages: AsyncIterator[Page] = api().atail(self, offset, timeout)
        return pages

    def awriter(self, **options: Unpack[WriterOptions]) -> Writer:
        """The same as `writer`: `async with stream.awriter() as writer: await writer.write(token)`."""
        writer: Writer = api().awriter(self, **options)
        return writer

    async def aappend_from(self, values: AsyncIterable[Data] | Iterable[Data], **options: Unpack[WriterOptions]) -> int:
        """Append the messages of an iterator through a writer, and return the number of messages that were written.

        Unlike with `append_many`, readers see them at once. With `producer`, an iterator that yields the same messages
        again continues where an earlier run stopped. The stream stays open, unless `close` is set.

        Raises:
            The errors of `writer` and of `Writer.write`, and those of the iterator.
        """
        options.setdefault("close", False)
        async with self.awriter(**options) as writer:
            return await writer.write_from(values)

    async def aevent_source(self, request: HttpRequest, **options: Unpack[EventSourceOptions]) -> HttpResponseBase:
        """The same as `event_source`, for asynchronous views."""
        response: HttpResponseBase = await pages().astream_source(self, request, options)
        return response

    async def aclose(self) -> None:
        """The same as `close`."""
        await sync_to_async(self.close)()

    async def adelete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """The same as `delete`."""
        return await sync_to_async(self.delete)(using=using, keep_parents=keep_parents)

    async def aset_lifetime(self, *, ttl: int | None = None, expires_at: datetime | None = None) -> None:
        """The same as `set_lifetime`."""
        await sync_to_async(self.set_lifetime)(ttl=ttl, expires_at=expires_at)

    async def atrim(self, before: str) -> str:
        """The same as `trim`."""
        return await sync_to_async(self.trim)(before)

    async def aretain(self, **rules: Any) -> None:
        """The same as `retain`."""
        await sync_to_async(self.retain)(**rules)

    async def areset_retention(self) -> None:
        """The same as `reset_retention`."""
        await sync_to_async(self.reset_retention)()

    async def afork(self, path: str, **options: Any) -> Self:
        """The same as `fork`."""
        return await sync_to_async(self.fork)(path, **options)


for _name in [
    "append",
    "append_many",
    "close",
    "delete",
    "fork",
    "reset_retention",
    "retain",
    "set_lifetime",
    "trim",
    "writer",
    "aappend",
    "aappend_many",
    "aappend_from",
    "aclose",
    "adelete",
    "afork",
    "areset_retention",
    "aretain",
    "aset_lifetime",
    "atrim",
    "awriter",
]:
    getattr(AsyncStreamMethods, _name).alters_data = True  # templates cannot call it

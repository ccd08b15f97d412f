"""What streams can do in asynchronous code: the methods with an `a` in front.

They run their database work with Django's `sync_to_async`, in the thread whose transaction the caller may be in, be it
a view's around `async_to_sync`, or one that a middleware has opened. That is why `aappend` does not hand its data to
the lanes, which commit by themselves: whether there is a transaction to be joined can only be asked in that thread.
What is to share commits with other writers goes through `awriter`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, Unpack

from asgiref.sync import sync_to_async

from ..protocol.values import Data
from .hinge import api
from .methods import StreamMethods

if TYPE_CHECKING:
    from .hinge import Appended, Page, Writer, WriterOptions


class AsyncStreamMethods(StreamMethods):
    """The operations on a stream, for asynchronous code too."""

    class Meta:
        abstract = True

    async def aappend(self, value: Data, **options: Any) -> Appended:
        """The same as `append`: it joins the transaction of the thread that `sync_to_async` uses, if that is in one.

        So it commits by itself only where there is none, and does not wait for other requests' commits.
        """
        return await sync_to_async(self.append)(value, **options)

    async def aappend_many(self, values: Iterable[Data], **options: Any) -> int:
        """The same as `append_many`."""
        return await sync_to_async(self.append_many)(values, **options)

    async def aread(self, offset: str = "-1") -> AsyncIterator[Data]:
        """The same as `read`."""
        pages = api().pages(self, offset)
        while (page := await sync_to_async(lambda: next(pages, None))()) is not None:
            for message in page:
                yield message

    def atail(self, offset: str = "-1", *, timeout: float | None = None) -> AsyncIterator[Page]:
        """The same as `tail`, but that it sees only what is committed. It holds neither thread nor connection.

        Wrap it in `contextlib.aclosing` where it may be left in the middle of a longer-lived task.
        """
        pages: AsyncIterator[Page] = api().atail(self, offset, timeout)
        return pages

    def awriter(self, **options: Unpack[WriterOptions]) -> Writer:
        """The same as `writer`: `async with stream.awriter() as writer: await writer.write(token)`."""
        writer: Writer = api().awriter(self, **options)
        return writer

    async def aappend_from(self, values: AsyncIterable[Data] | Iterable[Data], **options: Unpack[WriterOptions]) -> int:
        """Append what an iterator yields, as it comes, through a writer, and return how many messages were written.

        Unlike `append_many`, readers see them at once. With `producer`, an iterator that yields the same messages again
        from its beginning goes on where an earlier run was stopped. The stream stays open, but for `close`.

        Raises:
            The errors of `writer` and of `Writer.write`, and those of the iterator.
        """
        options.setdefault("close", False)
        async with self.awriter(**options) as writer:
            return await writer.write_from(values)

    async def aclose(self) -> None:
        """The same as `close`."""
        await sync_to_async(self.close)()

    async def adelete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """The same as `delete`."""
        return await sync_to_async(self.delete)(using=using, keep_parents=keep_parents)

    async def aset_lifetime(self, *, ttl: int | None = None, expires_at: datetime | None = None) -> None:
        """The same as `set_lifetime`."""
        await sync_to_async(self.set_lifetime)(ttl=ttl, expires_at=expires_at)

    async def afork(self, path: str, **options: Any) -> Self:
        """The same as `fork`."""
        return await sync_to_async(self.fork)(path, **options)


for _name in [
    "append",
    "append_many",
    "close",
    "delete",
    "fork",
    "set_lifetime",
    "writer",
    "aappend",
    "aappend_many",
    "aappend_from",
    "aclose",
    "adelete",
    "afork",
    "aset_lifetime",
    "awriter",
]:
    getattr(AsyncStreamMethods, _name).alters_data = True  # so that no template calls it

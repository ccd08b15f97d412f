"""A stream's page: what it is like, some of its messages, its forks and its producers. Nothing here has no bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.utils.translation import gettext as _

from ..models import Chunk, Producer, Stream
from ..protocol import content, offsets
from ..protocol.errors import InvalidOffset, OffsetGone
from ..protocol.segments import Message
from ..store import staged_rows
from ..store.read import browsing, lineage, log_reader
from ..store.stream_info import StreamInfo
from .base import StreamPages, of_stream
from .forms import AppendForm
from .rendering import ALONE, IN_LIST, ShownMessage, show
from .states import Kind, State

PAGE_MESSAGES = 50
PAGE_BYTES = 256 * 1024
"""What a page has of a stream's messages at the most, but for a single message that is larger."""

MAX_LISTED = 10
"""Forks and producers on a stream's page; there are links to all of them."""

MAX_LOOKED_AT = 200
"""Forks among which those are looked for that may be seen."""

PRODUCERS_PER_PAGE = 100

MAX_COUNTED = 10_000
"""Chunks and forks that are counted."""

POLL_SECONDS = 2.0
"""Time between two looks of the live tail where the server cannot wait for news: under WSGI."""


@dataclass(frozen=True)
class MessagePage:
    """Some messages of a stream, and where others are."""

    messages: Sequence[ShownMessage]
    start: int
    end: int
    tail: int
    is_first: bool

    @property
    def is_last(self) -> bool:
        """Whether the stream ends with these."""
        return self.end >= self.tail


class DetailViews(StreamPages):
    """Pages that change nothing."""

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show a stream. What changes it has URLs of its own."""
        return self._look(request, object_id)

    @of_stream("view")
    def _look(self, request: HttpRequest, stream: Stream) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        return self.stream_page(request, stream)

    def stream_page(self, request: HttpRequest, stream: Stream, append_form: AppendForm | None = None) -> HttpResponse:
        """Return a stream's page, with a form that was refused if there is one."""
        state = State.of(stream)
        info = self.info(stream)
        page = None if info is None else self._message_page(request, info)
        may_append = state is State.OPEN and self.may(request, "change", stream)
        forks = self._visible_forks(request, stream)
        producers = list(self._producers(stream)[: MAX_LISTED + 1])
        return self.render(
            request,
            "stream",
            str(stream),
            stream=stream,
            original=stream,
            state=state,
            kind=Kind.of(stream.content_type),
            source=self._visible_source(request, stream),
            own_bytes=stream.tail_position - (stream.fork_position or 0),
            fork_offset=None if stream.fork_position is None else stream.offset_at(stream.fork_position),
            chunks=self._count_chunks(stream),
            max_counted=MAX_COUNTED,
            page=page,
            page_messages=PAGE_MESSAGES,
            forks=forks[:MAX_LISTED],
            more_forks=len(forks) > MAX_LISTED,
            producers=producers[:MAX_LISTED],
            more_producers=len(producers) > MAX_LISTED,
            follows=page is not None and page.is_last and state is State.OPEN,
            poll_seconds=0 if isinstance(request, ASGIRequest) else POLL_SECONDS,
            append_form=self._append_form(append_form or AppendForm(stream.content_type)) if may_append else None,
            may_close=may_append,
            may_fork=state.is_alive and self.may(request, "add", stream),
            may_delete=state is not State.KEPT and self.may(request, "delete", stream),
        )

    def _visible_forks(self, request: HttpRequest, stream: Stream) -> list[Stream]:
        """Return the latest forks of a stream that a user may see: one more than are listed, if there are so many."""
        found = self.get_queryset(request).filter(source=stream).order_by("-pk").defer("lineage")[:MAX_LOOKED_AT]
        visible = (fork for fork in found if self.may(request, "view", fork))
        return [*islice(visible, MAX_LISTED + 1)]

    def _visible_source(self, request: HttpRequest, stream: Stream) -> Stream | None:
        """Return what a stream was forked from, if a user may see that."""
        if stream.source_id is None:
            return None
        return self.visible(request, [stream.source_id]).get(stream.source_id)

    def _count_chunks(self, stream: Stream) -> int:
        """Return how many chunks a stream has: MAX_COUNTED, if there are more."""
        tables = (Chunk.objects.using(self.alias), staged_rows.chunks(self.alias))
        return min(sum(found.filter(stream=stream).values("pk")[:MAX_COUNTED].count() for found in tables), MAX_COUNTED)

    def _append_form(self, form: AppendForm) -> Any:
        return self.admin_form(form, [(_("Append"), {"fields": ["text", "file", "close"]})])

    def info(self, stream: Stream) -> StreamInfo | None:
        """Return a stream as it is now, or None if it cannot be read any more."""
        return log_reader.find_ids([stream.pk], self.alias).get(stream.pk)

    def _message_page(self, request: HttpRequest, info: StreamInfo) -> MessagePage:
        """Return the page that a request asks for: the last one, if it does not say."""
        given = request.GET
        found: list[Message] = []
        if given.get("from"):
            found = self.messages_after(info, position(given["from"], info, self.alias))
        elif given.get("to"):
            found = self.messages_before(info, position(given["to"], info, self.alias))
        return message_page(info, found or self.messages_before(info, info.tail), self.alias)

    def messages_after(self, info: StreamInfo, start: int) -> list[Message]:
        """Return about a page of messages from a position on."""
        found = browsing.after(info, start, limit=PAGE_BYTES, count=PAGE_MESSAGES, using=self.alias)
        return browsing.whole(info, found, self.alias)

    def messages_before(self, info: StreamInfo, end: int) -> list[Message]:
        """Return about a page of messages up to a position."""
        found = browsing.before(info, end, limit=PAGE_BYTES, count=PAGE_MESSAGES, using=self.alias)
        return browsing.whole(info, found, self.alias)

    @of_stream("view")
    def message_view(self, request: HttpRequest, stream: Stream) -> HttpResponse:
        """Show one message, as much of it as a browser should be given."""
        info, message = self._message(request, stream)
        (whole,) = browsing.whole(info, [message], self.alias)
        shown = show(whole, lineage.around(info, self.alias, whole.start, whole.end), ALONE)
        return self.render(
            request, "message", str(stream), stream=stream, original=stream, message=shown, here=_("Message")
        )

    @of_stream("view")
    def download_view(self, request: HttpRequest, stream: Stream) -> HttpResponse:
        """Send one message whole, as a file: never to be displayed, whatever its content type."""
        _info, message = self._message(request, stream)
        name = f"stream-{stream.pk}-{message.end}.{_SUFFIXES[Kind.of(stream.content_type)]}"
        return HttpResponse(
            message.data,
            content_type=content.DEFAULT_CONTENT_TYPE,
            headers={
                "Content-Disposition": f'attachment; filename="{name}"',
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": "sandbox",
            },
        )

    def _message(self, request: HttpRequest, stream: Stream) -> tuple[StreamInfo, Message]:
        info = self.info(stream)
        if info is not None:
            start = position(request.GET.get("from", ""), info, self.alias)
            for message in browsing.after(info, start, limit=1, count=1, using=self.alias):
                return info, message
        raise Http404(_("There is no message at this offset."))

    def _producers(self, stream: Stream) -> QuerySet[Producer]:
        """Return the producers of a stream in the order of their ids, from where they are written."""
        return Producer.objects.using(self.alias).filter(stream=stream).order_by("producer_id")

    @of_stream("view")
    def producers_view(self, request: HttpRequest, stream: Stream) -> HttpResponse:
        """List the producers of a stream in the order of their ids, page by page."""
        found = self._producers(stream)
        after = request.GET.get("after", "")
        if after and "\0" not in after:
            found = found.filter(producer_id__gt=after)
        producers = list(found[: PRODUCERS_PER_PAGE + 1])
        more = len(producers) > PRODUCERS_PER_PAGE
        producers = producers[:PRODUCERS_PER_PAGE]
        return self.render(
            request,
            "producers",
            str(stream),
            here=_("Producers"),
            stream=stream,
            original=stream,
            producers=producers,
            is_first=not after,
            next_after=producers[-1].producer_id if more else None,
        )


_SUFFIXES = {Kind.JSON: "json", Kind.TEXT: "txt", Kind.BINARY: "bin"}


def message_page(info: StreamInfo, found: Sequence[Message], using: str) -> MessagePage:
    """Return messages as a page shows them."""
    if found:
        info = lineage.around(info, using, found[0].start, found[-1].end)
    shown = [show(message, info, IN_LIST) for message in found]
    start = found[0].start if found else info.first_position
    end = found[-1].end if found else info.tail
    return MessagePage(shown, start, end, info.tail, start <= info.first_position)


def position(token: str, info: StreamInfo, using: str) -> int:
    """Return the position in a stream that an offset, or a plain number, stands for.

    Raises:
        Http404: it is neither, or an offset of another stream.
    """
    if token.isdecimal() and token.isascii() and len(token) <= 16:
        return int(token)
    try:
        return lineage.locate(info, offsets.decode(token), using)[1]
    except (InvalidOffset, OffsetGone) as error:
        raise Http404(str(error)) from error
